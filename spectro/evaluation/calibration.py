"""Whether probabilities are calibrated."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectro.evaluation.intervals import wilson
from spectro.evaluation.metrics import encode

# Records that a bin should hold at least, and how many bins there are at most.
_PER_BIN, _MOST_BINS = 5, 10
_DRAWS = 2000
# The logarithm of a smaller probability is rounding error.
_LEAST = 1e-15


def calibration(
    y_true: Sequence[str] | NDArray[Any],
    probabilities: ArrayLike,
    classes: Sequence[str] | NDArray[Any],
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """How far the largest probabilities of some records are from how often they are right.

    The expected calibration error of the top label (Guo et al., 2017, "On calibration of modern neural networks"): the
    mean over bins, weighted by their records, of the distance between mean probability and share of right labels. Bins
    hold equally many records (Nixon et al., 2019, "Measuring calibration in deep learning"), 5 each at least, and there
    are 10 at most. Records of equal probability stay in one bin.

    The error is never 0, even of a perfectly calibrated model: in each bin the share differs from the probability by
    chance. So its distribution is drawn for labels that are right with the very probabilities given: the consistency
    resampling of Bröcker and Smith (2007), "Increasing the reliability of reliability diagrams". An error below
    ``ece_by_chance_high`` is no evidence against the model. A bootstrap interval would lie above the error.

    Args:
        y_true: True labels, (n,). May be empty.
        probabilities: (n, k), columns as ``classes``.
        classes: Labels, (k,).

    Returns:
        A dictionary of plain Python values that is valid JSON:

        - ``ece``; ``ece_by_chance`` and ``ece_by_chance_high``: mean and 95 % quantile of the error of a perfectly
          calibrated model with these probabilities;
        - ``nll``: mean negative logarithm of the true label's probability (at least 1e-15), and ``brier``: mean over
          records of the squared distance between probabilities and truth, summed over classes (Brier, 1950). Both need
          no bins and are smallest for the true probabilities;
        - ``reliability``: for each bin ``confidence`` (mean largest probability), ``accuracy``, ``accuracy_ci_low``,
          ``accuracy_ci_high`` (95 %, Wilson) and ``n``.

        Without records the numbers are None and there is no bin.

    Raises:
        ValueError: A label that is not among the classes, or shapes that do not fit.
    """
    p = np.asarray(probabilities, dtype=float)
    names = [str(name) for name in classes]
    if p.shape != (len(y_true), len(names)):
        raise ValueError(f"probabilities: got {p.shape}; allowed: {(len(y_true), len(names))}")
    if len(p) == 0:
        scores = ("ece", "ece_by_chance", "ece_by_chance_high", "nll", "brier")
        return {**dict.fromkeys(scores), "reliability": []}
    truth = encode(y_true, names, "y_true")
    confidence, right = p.max(axis=1), p.argmax(axis=1) == truth
    where = _bins(confidence)
    by_chance = _errors(confidence, np.random.default_rng(seed).random((_DRAWS, len(p))) < confidence, where)
    one_hot = np.eye(len(names))[truth]
    return {
        "ece": _rounded(_errors(confidence, right[None], where)[0]),
        "ece_by_chance": _rounded(by_chance.mean()),
        "ece_by_chance_high": _rounded(np.quantile(by_chance, 0.95)),
        "nll": _rounded(-np.log(np.maximum(p[one_hot > 0], _LEAST)).mean()),
        "brier": _rounded(((p - one_hot) ** 2).sum(axis=1).mean()),
        "reliability": [_bin(confidence[where == b], right[where == b]) for b in range(where.max() + 1)],
    }


def _rounded(value: float) -> float:
    """Without the digits that depend on the number of records in a batch."""
    return round(float(value), 9) + 0.0  # no negative zero


def _bins(confidence: NDArray[np.float64]) -> NDArray[np.intp]:
    """The bin of each record, (n,): equally many records in each as far as equal probabilities allow; none is empty."""
    bins = max(1, min(_MOST_BINS, len(confidence) // _PER_BIN))
    _, where, counts = np.unique(confidence, return_inverse=True, return_counts=True)
    # A value goes to the bin that the middle of its records lies in.
    middle = np.cumsum(counts) - counts / 2
    raw = np.minimum((middle * bins / len(confidence)).astype(int), bins - 1)
    return np.unique(raw, return_inverse=True)[1][where]


def _errors(confidence: NDArray[np.float64], right: NDArray[np.bool_], where: NDArray[np.intp]) -> NDArray[np.float64]:
    """Calibration error of each row of ``right``, (draws, n) -> (draws,)."""
    order = np.argsort(where, kind="stable")
    first = np.searchsorted(where[order], np.arange(where.max() + 1))
    # The sum over a bin's records of probability minus right, and the bin's share is in it. Not as a matrix product:
    # so small a one costs more in threads that wait for each other than in arithmetic.
    by_bin = np.add.reduceat((confidence - right)[:, order], first, axis=1)
    return np.abs(by_bin).sum(axis=1) / len(confidence)


def _bin(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> dict[str, Any]:
    low, high = wilson(int(right.sum()), len(right))
    return {
        "confidence": _rounded(confidence.mean()),
        "accuracy": float(right.mean()),
        "accuracy_ci_low": low,
        "accuracy_ci_high": high,
        "n": len(right),
    }

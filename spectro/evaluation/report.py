"""How good a set of predictions is, with its support and its uncertainty."""

from collections.abc import Collection, Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectro.evaluation.intervals import bootstrap_ci, wilson
from spectro.evaluation.metrics import applicable_metrics, evaluate, ratio

# Made-up sources in all; docs/intervals.md says what one gets with none.
SMOOTHING = 2.0


def score(
    y_true: Sequence[str] | NDArray[Any],
    y_pred: Sequence[str] | NDArray[Any],
    classes: Sequence[str] | NDArray[Any],
    *,
    sources: Sequence[Hashable] | NDArray[Any] | None = None,
    seed: int = 0,
    resamples: int = 1000,
    look_alikes: Collection[str] = (),
) -> dict[str, Any]:
    """Score the predictions of one split.

    Macro-F1 and balanced accuracy are means over the classes with support, which ``macro_f1_classes`` names. A
    class with support that is never predicted counts with an F1 of 0; a record predicted as a class without support
    is an error of its true class.

    The intervals of the averages are 95 % percentile intervals of a smoothed bootstrap that resamples sources within
    strata, and hold the value itself. The stratum of a source is the class of its records; a source with records of
    several classes belongs to the class of its first record. In a resample the means are over the classes with support
    in that resample. The 95 % Wilson intervals of the recalls count every record as independent.

    Args:
        y_true: True labels, (n,). May be empty.
        y_pred: Predicted labels, (n,).
        classes: All labels that may occur, (k,), in the order of the confusion matrix.
        sources: Source of each record, (n,). By default every record is its own source.
        seed: Seed of the bootstrap.
        resamples: Number of bootstrap resamples.
        look_alikes: The classes whose mean F1 is told besides; those that are not among ``classes`` count for nothing.

    Returns:
        A dictionary of plain Python values that is valid JSON:

        - ``macro_f1``, ``accuracy``, ``balanced_accuracy``, each with ``_ci_low`` and ``_ci_high``, which are
          None where every resample gives the same number, as with a single class; None without records;
        - where there are look-alikes, ``hard_pair_f1`` with its interval: the mean F1 of those that have support,
          which ``hard_pair_classes`` names;
        - ``per_class``: for each class ``precision``, ``recall``, ``f1``, ``support``, ``recall_ci_low``,
          ``recall_ci_high``. Without support the recall and its interval are None; precision and F1 are then 0, or
          None where the class is never predicted either;
        - ``classes``, ``macro_f1_classes``, ``n_records`` and ``confusion_matrix``, (k, k), whose rows are the truth.

    Raises:
        ValueError: A label is not among ``classes``, a class stands there twice or there is none, or the lengths
            differ.
    """
    names = [str(name) for name in classes]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"classes must be at least one label and each only once; got {names}")
    owners = range(len(y_true)) if sources is None else sources
    if not len(y_true) == len(y_pred) == len(owners):
        raise ValueError(
            "y_true, y_pred and sources must have equal lengths; "
            f"got {len(y_true)}, {len(y_pred)} and {len(owners)} entries"
        )
    true, pred = _encode(y_true, names, "y_true"), _encode(y_pred, names, "y_pred")
    report: dict[str, Any] = {
        **_averages_with_ci(true, pred, owners, names, look_alikes, seed, resamples),
        **_per_class(true, pred, names),
    }
    report["macro_f1_classes"] = [name for name in names if report["per_class"][name]["support"]]
    if "hard_pair_f1" in report:
        report["hard_pair_classes"] = [name for name in report["macro_f1_classes"] if name in look_alikes]
    report["n_records"] = len(true)
    return report


def _encode(labels: Sequence[str] | NDArray[Any], names: list[str], what: str) -> NDArray[np.intp]:
    """Position of each label in ``names``."""
    position = {name: i for i, name in enumerate(names)}
    unknown = sorted({str(label) for label in labels if label not in position})
    if unknown:
        raise ValueError(f"{what} holds {unknown}, allowed are the classes {names}")
    return np.array([position[label] for label in labels], dtype=np.intp)


def _per_class(true: NDArray[np.intp], pred: NDArray[np.intp], names: list[str]) -> dict[str, Any]:
    """The numbers of each class and the confusion matrix they come from."""
    k = len(names)
    # Not scikit-learn's functions, which warn of a single class, refuse an empty split and take 1 ms a call.
    matrix = np.bincount(true * k + pred, minlength=k * k).reshape(k, k)
    hits, support, predicted = np.diagonal(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    precision, recall, f1 = ratio(hits, predicted), ratio(hits, support), ratio(2 * hits, support + predicted)
    occurs = support + predicted > 0
    low, high = wilson(hits, support)
    per_class = {
        name: {
            "precision": float(precision[i]) if occurs[i] else None,
            "recall": float(recall[i]) if support[i] else None,
            "f1": float(f1[i]) if occurs[i] else None,
            "support": int(support[i]),
            "recall_ci_low": float(low[i]) if support[i] else None,
            "recall_ci_high": float(high[i]) if support[i] else None,
        }
        for i, name in enumerate(names)
    }
    return {"per_class": per_class, "classes": names, "confusion_matrix": matrix.tolist()}


def _averages_with_ci(
    true: NDArray[np.intp],
    pred: NDArray[np.intp],
    owners: Sequence[Hashable] | NDArray[Any],
    names: list[str],
    look_alikes: Collection[str],
    seed: int,
    resamples: int,
) -> dict[str, float | None]:
    """The averages with their bootstrap intervals; None without records."""
    k = len(names)
    if len(true) == 0:
        return {m.name + end: None for m in applicable_metrics(names, look_alikes) for end in ("", "_ci_low", "_ci_high")}
    number: dict[Hashable, int] = {}
    source = np.array([number.setdefault(owner, len(number)) for owner in owners])
    _, first_record = np.unique(source, return_index=True)
    tallies = np.zeros((len(number), k, k))
    np.add.at(tallies, (source, true, pred), 1)
    values = evaluate(tallies.sum(axis=0), names, look_alikes)
    strata = true[first_record]
    prior = made_up_sources(tallies, strata)

    def statistic(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack(list(evaluate(matrices, names, look_alikes).values()), axis=1)

    lows, highs = bootstrap_ci(tallies, strata, statistic, prior=prior, seed=seed, resamples=resamples)
    report: dict[str, float | None] = {}
    for (name, array), low, high in zip(values.items(), lows, highs, strict=True):
        value = float(array)
        report[name] = value if np.isfinite(value) else None
        # With one class all resamples agree, as no other class can be predicted.
        has_spread = low < high and np.isfinite(value)
        report[name + "_ci_low"] = float(min(low, value)) if has_spread else None
        report[name + "_ci_high"] = float(max(high, value)) if has_spread else None
    return report


def made_up_sources(
    tallies: NDArray[np.float64], strata: NDArray[np.intp]
) -> dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Made-up sources of each class, ``SMOOTHING`` of them shared out among the classes.

    Half of them are right, the other half wrong in every way alike. Each has as many records as a real one has on
    average. Sharing them out keeps many classes from drawing a mean away from what was seen, as a whole one for each
    class would: A. Agresti and B. Caffo (2000), "Simple and effective confidence intervals for proportions and
    differences of proportions result from adding two successes and two failures", The American Statistician 54,
    280-288, for two proportions; R. M. Price and D. G. Bonett (2004), "An improved confidence interval for a linear
    function of binomial proportions", Computational Statistics and Data Analysis 45, 449-456, for more.
    """
    k, found = tallies.shape[1], {}
    present = np.unique(strata)
    for c in present:
        own = tallies[strata == c]
        made_up = np.zeros((k, k, k))
        made_up[range(k), c, range(k)] = own.sum() / len(own)
        weights = np.full(k, SMOOTHING / len(present) / 2 / max(k - 1, 1))
        weights[c] = SMOOTHING / len(present) / 2
        found[int(c)] = made_up, weights
    return found

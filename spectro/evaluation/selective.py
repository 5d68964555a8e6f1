"""Which predictions are automatic and which a person looks at: risk and coverage, and thresholds on confidence.

The confidence of a record is its largest probability. "Risk" is the share of wrong predictions among the automatic
ones, "coverage" the share that is automatic (R. El-Yaniv and Y. Wiener, 2010, "On the foundations of noise-free
selective classification", Journal of Machine Learning Research 11, 1605-1641). Records of equal confidence are never
divided.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectro.evaluation.intervals import Sources, design_effects, number_sources, wilson

Floats = NDArray[np.float64]
# Rows of a table of risk and coverage, at most.
_POINTS = 100


@dataclass(frozen=True)
class Thresholds:
    """What confidence a prediction needs to be automatic; None: no confidence is enough.

    Attributes:
        overall: Of every class that has no threshold of its own.
        by_class: Of the classes with enough predicted records.
    """

    overall: float | None
    by_class: Mapping[str, float | None]

    def automatic(self, confidence: Floats, predicted: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether each prediction is automatic, ``(n,)``."""
        limits = [self.by_class.get(str(label), self.overall) for label in predicted]
        return confidence >= np.array([np.inf if limit is None else limit for limit in limits])


def confidence_of(probabilities: Floats) -> Floats:
    """The largest probability of each record, ``(n, k)`` to ``(n,)``, without digits that depend on the batch."""
    return probabilities.max(axis=1, initial=0.0).round(9)


def n_enough(target: float) -> int:
    """How many predicted records a class needs for a threshold of its own: 40 for an accuracy of 0.95.

    With so many, `thresholds` can pass one that is wrong; with fewer a single wrong record decides.
    """
    return int(np.ceil(2 / (1 - target) - 1e-9))


def thresholds(
    confidence: Floats, predicted: NDArray[Any], right: NDArray[np.bool_], *, target: float, coverage: float | None
) -> Thresholds:
    """The smallest thresholds under which the accuracy of the automatic records reaches a target.

    The smallest of many thresholds that seem good enough is a lucky one. Therefore one more record, which is wrong,
    counts as automatic: ``hits / (n + 1) >= target``, as in conformal risk control (Angelopoulos et al., 2024, ICLR).
    It is no guarantee; docs/background/review.md compares promised and measured accuracy.

    Args:
        confidence: Of records that the models were not fitted to, ``(n,)``.
        predicted: Their predicted labels, ``(n,)``.
        right: Whether these are right, ``(n,)``.
        target: Accuracy of the automatic records.
        coverage: Share that is automatic, at least, in place of the target; it has one threshold for all classes.
    """
    if coverage is not None:
        n = int(np.ceil(coverage * len(confidence) - 1e-9))
        return Thresholds(float(np.sort(confidence)[-n]) if n else None, {})
    rows = {str(label): predicted == label for label in sorted(set(predicted))}
    enough = {label: row for label, row in rows.items() if row.sum() >= n_enough(target)}
    return Thresholds(
        _lowest(confidence, right, target),
        {label: _lowest(confidence[row], right[row], target) for label, row in enough.items()},
    )


def _lowest(confidence: Floats, right: NDArray[np.bool_], target: float) -> float | None:
    values, last, hits = _by_confidence(confidence, right)
    reached = np.flatnonzero(hits / (last + 2) >= target)
    return float(values[reached[-1]]) if len(reached) else None


def _by_confidence(confidence: Floats, right: NDArray[np.bool_]) -> tuple[Floats, NDArray[np.intp], NDArray[np.intp]]:
    """Different confidences, the largest first; the last record that has at least it; how many are right up to it."""
    order = np.argsort(-confidence, kind="stable")
    ordered = confidence[order]
    last = np.flatnonzero(np.diff(ordered, append=-1.0))
    return ordered[last], last, np.cumsum(right[order].astype(np.intp))[last]


def automatic_report(right: NDArray[Any], automatic: NDArray[np.bool_], sources: Sources) -> dict[str, float | None]:
    """Share and accuracy of the automatic records.

    Returns:
        ``automatic``, the share, and ``automatic_accuracy`` with ``_ci_low`` and ``_ci_high``: the 95 % Wilson interval
        of as many independent records as those of the sources are worth. None where there is no record.
    """
    names, hits = ("automatic_accuracy", "automatic_accuracy_ci_low", "automatic_accuracy_ci_high"), right[automatic]
    share = float(automatic.mean()) if len(automatic) else None
    if not len(hits):
        return {"automatic": share, **dict.fromkeys(names)}
    source = number_sources([source for source, is_automatic in zip(sources, automatic, strict=True) if is_automatic])
    n = len(hits) / design_effects(np.zeros(len(hits), np.intp), hits, source, 1)[0]
    value = float(hits.mean())
    return {"automatic": share, **dict(zip(names, (value, *wilson(value * n, n)), strict=True))}


def risk_coverage(confidence: Floats, right: NDArray[np.bool_], sources: Sources) -> list[dict[str, Any]]:
    """The curve of risk and coverage: a row for each threshold, the highest first, at most 100 of them.

    Returns:
        Rows of ``threshold``, ``n`` (automatic records) and the numbers of `automatic_report`.
    """
    values, last, _ = _by_confidence(confidence, right)
    some = np.unique(np.linspace(0, len(values) - 1, min(len(values), _POINTS)).astype(int))
    return [
        {
            "threshold": float(values[i]),
            "n": int(last[i]) + 1,
            **automatic_report(right, confidence >= values[i], sources),
        }
        for i in some
    ]


def accuracy_at(coverage: float, confidences: Sequence[Floats], right: NDArray[np.bool_], sources: Sources) -> Any:
    """Accuracy of the most confident records of each seed, of which as many are automatic whatever the model.

    Of records of equal confidence at the end each counts as the share of them that is needed.

    Args:
        coverage: Share of the records, above 0.
        confidences: Of each seed, ``(n,)`` each.
        right: Whether each seed's predictions are right, ``(seeds, n)``.
        sources: Source of each record, ``(n,)``.

    Returns:
        Mean over seeds, the ends of its 95 % Wilson interval with the `design_effects` of all records, and the value of
        each seed. Seeds are no further records.
    """
    n, values = coverage * right.shape[1], []
    for confidence, hits in zip(confidences, right, strict=True):
        _, last, n_right = _by_confidence(confidence, hits)
        values.append(float(np.interp(n, np.append(0, last + 1), np.append(0, n_right))) / n)
    value = float(np.mean(values))
    n /= design_effects(np.zeros(right.shape[1], np.intp), right.mean(axis=0), number_sources(sources), 1)[0]
    return value, *wilson(min(value * n, n), n), tuple(values)

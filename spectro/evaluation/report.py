"""How good a set of predictions is, with its support and its uncertainty."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectro.evaluation.intervals import Sources, design_effects, number_sources, wilson
from spectro.evaluation.metrics import applicable_metrics, encode, ratio
from spectro.evaluation.paired import Estimate, Labels, score_over_seeds


def score(
    y_true: Labels,
    y_pred: Labels,
    classes: Labels,
    *,
    sources: Sources | None = None,
    seed: int = 0,
    resamples: int = 1000,
    look_alikes: Collection[str] = (),
) -> dict[str, Any]:
    """Scores the predictions of one split.

    Macro-F1 and balanced accuracy are means over the classes with support, which ``macro_f1_classes`` names. A
    class with support that is never predicted counts with an F1 of 0; a record predicted as a class without support
    is an error of its true class.

    The intervals of the metrics are 95 % percentile intervals of a smoothed bootstrap over sources within classes, see
    `spectro.evaluation.intervals.resample`, and hold the value itself. The 95 % Wilson intervals of the recalls are
    those of as many independent records as the records of the sources are worth, see `design_effects`.

    Args:
        y_true: True labels, (n,). May be empty.
        y_pred: Predicted labels, (n,).
        classes: All labels that may occur, (k,), each once, in the order of the confusion matrix.
        sources: Source of each record, (n,). By default every record is its own source.
        look_alikes: The classes that are hard to tell apart; those that are not among ``classes`` are ignored.

    Returns:
        A dictionary of plain Python values that is valid JSON:

        - every registered metric by its name, with ``<name>_ci_low`` and ``<name>_ci_high``, which are None where every
          resample gives the same number, as with a single class; all None without records. Metrics of look-alikes are
          there only for a task with look-alikes; ``hard_pair_classes`` then names those with support;
        - ``per_class``: for each class ``precision``, ``recall``, ``f1``, ``support``, ``recall_ci_low``,
          ``recall_ci_high``. Without support the recall and its interval are None; precision and F1 are then 0, or
          None where the class is never predicted either;
        - ``classes``, ``macro_f1_classes``, ``n_records`` and ``confusion_matrix``, (k, k), whose rows are the truth.

    Raises:
        ValueError: A label is not among ``classes``, or the lengths differ.
    """
    labels = [str(label) for label in classes]
    metrics = applicable_metrics(labels, look_alikes)
    estimates: dict[str, Estimate] = {}
    if len(y_true):
        options: dict[str, Any] = {"sources": sources, "seed": seed, "resamples": resamples, "look_alikes": look_alikes}
        estimates = score_over_seeds(y_true, y_pred, labels, **options)
    report: dict[str, Any] = {}
    for name in (metric.name for metric in metrics):
        estimate = estimates.get(name)
        report[name] = estimate and estimate.value
        report |= {f"{name}_{end}": estimate and getattr(estimate, end) for end in ("ci_low", "ci_high")}
    true, pred = encode(y_true, labels, "y_true"), encode(y_pred, labels, "y_pred")
    source = number_sources(range(len(true)) if sources is None else sources)
    report |= _per_class(true, pred, labels, design_effects(true, true == pred, source, len(labels)))
    report["macro_f1_classes"] = [label for label in labels if report["per_class"][label]["support"]]
    if any(metric.needs_look_alikes for metric in metrics):
        report["hard_pair_classes"] = [label for label in report["macro_f1_classes"] if label in look_alikes]
    return {**report, "n_records": len(y_true)}


def _per_class(
    true: NDArray[np.intp], pred: NDArray[np.intp], labels: Sequence[str], effects: NDArray[np.float64]
) -> dict[str, Any]:
    """The numbers of each class and the confusion matrix they come from."""
    k = len(labels)
    # Not scikit-learn's functions, which warn of a single class, refuse an empty split and take 1 ms a call.
    matrix = np.bincount(true * k + pred, minlength=k * k).reshape(k, k)
    hits, support, predicted = np.diagonal(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    precision, recall, f1 = ratio(hits, predicted), ratio(hits, support), ratio(2 * hits, support + predicted)
    occurs = support + predicted > 0
    low, high = wilson(hits / effects, support / effects)
    per_class = {
        label: {
            "precision": float(precision[i]) if occurs[i] else None,
            "recall": float(recall[i]) if support[i] else None,
            "f1": float(f1[i]) if occurs[i] else None,
            "support": int(support[i]),
            "recall_ci_low": float(low[i]) if support[i] else None,
            "recall_ci_high": float(high[i]) if support[i] else None,
        }
        for i, label in enumerate(labels)
    }
    return {"per_class": per_class, "classes": list(labels), "confusion_matrix": matrix.tolist()}

"""How good a set of predictions is, with its support and its uncertainty."""

from collections.abc import Collection, Hashable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectro.evaluation.intervals import percentile_interval, resample, wilson
from spectro.evaluation.metrics import applicable_metrics, encode, ratio


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
    """Scores the predictions of one split.

    Macro-F1 and balanced accuracy are means over the classes with support, which ``macro_f1_classes`` names. A
    class with support that is never predicted counts with an F1 of 0; a record predicted as a class without support
    is an error of its true class.

    The intervals of the metrics are 95 % percentile intervals of a smoothed bootstrap over sources within classes, see
    `spectro.evaluation.intervals.resample`, and hold the value itself. The 95 % Wilson intervals of the recalls count
    every record as independent.

    Args:
        y_true: True labels, (n,). May be empty.
        y_pred: Predicted labels, (n,).
        classes: All labels that may occur, (k,), in the order of the confusion matrix.
        sources: Source of each record, (n,). By default every record is its own source.
        seed: Seed of the bootstrap.
        resamples: Number of bootstrap resamples.
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
        ValueError: A label is not among ``classes``, a class stands there twice or there is none, or the lengths
            differ.
    """
    labels = [str(label) for label in classes]
    if not labels or len(set(labels)) < len(labels):
        raise ValueError(f"classes: got {labels}; allowed: at least one label, each only once")
    sources = range(len(y_true)) if sources is None else sources
    if not len(y_true) == len(y_pred) == len(sources):
        raise ValueError(
            "expected y_true, y_pred and sources of equal lengths; "
            f"got {len(y_true)}, {len(y_pred)} and {len(sources)} entries"
        )
    true, pred = encode(y_true, labels, "y_true"), encode(y_pred, labels, "y_pred")
    metrics = applicable_metrics(labels, look_alikes)
    report: dict[str, Any] = {metric.name + end: None for metric in metrics for end in ("", "_ci_low", "_ci_high")}
    if len(true):
        (model,) = resample(true, [pred[None]], len(labels), sources=sources, seed=seed, resamples=resamples)
        for metric in metrics:
            (value,), drawn = model.values(partial(metric, classes=labels, look_alikes=look_alikes))
            report[metric.name] = float(value) if np.isfinite(value) else None
            report[f"{metric.name}_ci_low"], report[f"{metric.name}_ci_high"] = percentile_interval(drawn, value)
    report |= _per_class(true, pred, labels)
    report["macro_f1_classes"] = [label for label in labels if report["per_class"][label]["support"]]
    if any(metric.needs_look_alikes for metric in metrics):
        report["hard_pair_classes"] = [label for label in report["macro_f1_classes"] if label in look_alikes]
    report["n_records"] = len(true)
    return report


def _per_class(true: NDArray[np.intp], pred: NDArray[np.intp], labels: list[str]) -> dict[str, Any]:
    """The numbers of each class and the confusion matrix they come from."""
    k = len(labels)
    # Not scikit-learn's functions, which warn of a single class, refuse an empty split and take 1 ms a call.
    matrix = np.bincount(true * k + pred, minlength=k * k).reshape(k, k)
    hits, support, predicted = np.diagonal(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    precision, recall, f1 = ratio(hits, predicted), ratio(hits, support), ratio(2 * hits, support + predicted)
    occurs = support + predicted > 0
    low, high = wilson(hits, support)
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
    return {"per_class": per_class, "classes": labels, "confusion_matrix": matrix.tolist()}

"""How good a set of predictions is, with its support and its uncertainty."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectro.evaluation.intervals import bootstrap_ci, wilson

AVERAGES = ("macro_f1", "accuracy", "balanced_accuracy")


def score(
    y_true: Sequence[str] | NDArray[Any],
    y_pred: Sequence[str] | NDArray[Any],
    classes: Sequence[str] | NDArray[Any],
    *,
    sources: Sequence[Hashable] | NDArray[Any] | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, Any]:
    """Score the predictions of one split.

    Macro-F1 and balanced accuracy are means over the classes with support, which ``macro_f1_classes`` names. A
    class with support that is never predicted counts with an F1 of 0; a record predicted as a class without support
    is an error of its true class.

    The intervals of the three averages are 95 % percentile intervals of a bootstrap that resamples sources within
    strata. The stratum of a source is the class of its records; a source with records of several classes belongs to
    the class of its first record. In a resample the means are over the classes with support in that resample. With
    1 or 2 sources per class these intervals are too narrow; the 95 % Wilson intervals of the recalls are not, but
    they count every record as independent.

    Args:
        y_true: True labels, (n,). May be empty.
        y_pred: Predicted labels, (n,).
        classes: All labels that may occur, (k,), in the order of the confusion matrix.
        sources: Source of each record, (n,). By default every record is its own source.
        seed: Seed of the bootstrap.
        resamples: Number of bootstrap resamples.

    Returns:
        A dictionary of plain Python values that is valid JSON:

        - ``macro_f1``, ``accuracy``, ``balanced_accuracy``, each with ``_ci_low`` and ``_ci_high``, which are
          None where every resample gives the same number; None without
          records;
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
        raise ValueError(f"classes must be at least one label and each only once; found {names}")
    owners = range(len(y_true)) if sources is None else sources
    if not len(y_true) == len(y_pred) == len(owners):
        raise ValueError(
            "y_true, y_pred and sources must have equal lengths; "
            f"found {len(y_true)}, {len(y_pred)} and {len(owners)} entries"
        )
    true, pred = _encode(y_true, names, "y_true"), _encode(y_pred, names, "y_pred")
    report: dict[str, Any] = {
        **_averages_with_ci(true, pred, owners, len(names), seed, resamples),
        **_per_class(true, pred, names),
    }
    report["macro_f1_classes"] = [name for name in names if report["per_class"][name]["support"]]
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
    from sklearn.metrics import precision_recall_fscore_support

    k = len(names)
    # Not scikit-learn's confusion_matrix, which warns of a single class and refuses an empty split.
    matrix = np.bincount(true * k + pred, minlength=k * k).reshape(k, k)
    precision = recall = f1 = np.zeros(k)
    if len(true):
        precision, recall, f1, _ = precision_recall_fscore_support(true, pred, labels=range(k), zero_division=0)
    support = matrix.sum(axis=1)
    occurs = support + matrix.sum(axis=0) > 0
    low, high = wilson(np.diagonal(matrix), support)
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
    k: int,
    seed: int,
    resamples: int,
) -> dict[str, float | None]:
    """The three averages with their bootstrap intervals; None without records."""
    if len(true) == 0:
        return {name + end: None for name in AVERAGES for end in ("", "_ci_low", "_ci_high")}
    number: dict[Hashable, int] = {}
    source = np.array([number.setdefault(owner, len(number)) for owner in owners])
    _, first_record = np.unique(source, return_index=True)
    tallies = np.zeros((len(number), k, k))
    np.add.at(tallies, (source, true, pred), 1)
    value = averages(tallies.sum(axis=0, keepdims=True))[0]
    low, high = bootstrap_ci(tallies, true[first_record], averages, seed=seed, resamples=resamples)
    # Where all resamples agree the data have nothing to say about the spread; an interval without width would claim it.
    has_spread = high > low
    return {
        name + end: float(numbers[i]) if end == "" or has_spread[i] else None
        for i, name in enumerate(AVERAGES)
        for end, numbers in (("", value), ("_ci_low", low), ("_ci_high", high))
    }


def averages(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Macro-F1, accuracy and balanced accuracy, as in `AVERAGES`, of confusion matrices: (r, k, k) to (r, 3).

    Each matrix holds a record at least; rows are the truth.
    """
    hits = np.diagonal(matrices, axis1=1, axis2=2)
    support, predicted = matrices.sum(axis=2), matrices.sum(axis=1)
    supported = (support > 0).sum(axis=1)
    # A class without support has no hits, so it adds 0 to both sums.
    f1 = 2 * hits / np.maximum(support + predicted, 1)
    recall = hits / np.maximum(support, 1)
    accuracy = hits.sum(axis=1) / support.sum(axis=1)
    return np.stack([f1.sum(axis=1) / supported, accuracy, recall.sum(axis=1) / supported], axis=1)

"""Metrics: each is one function on confusion matrices, registered under the name it has everywhere.

A registered metric appears by itself wherever metrics are shown or used: in `metrics.json` with its interval, on the
terminal, in figures, in MLflow, in comparisons, and as `objective=val/<name>`. The metrics of a user's own package are
registered in the same way, by a module named in the configuration's `plugins`::

    @register_metric("leak_recall", "recall of leaks")
    def leak_recall(confusion, classes):
        leak = list(classes).index("leak")
        return confusion[..., leak, leak] / confusion[..., leak, :].sum(axis=-1)
"""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Matrices = NDArray[np.float64]
# What is left of 0 where shares that are not exact are added up.
_ROUNDING = 1e-12
_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Metric:
    """A registered metric.

    Attributes:
        name: Its key in files, in MLflow and in ``objective=val/<name>``.
        label: Its name where people read it.
        function: See `register_metric`.
        needs_look_alikes: Whether it is a metric of the look-alike classes only.
    """

    name: str
    label: str
    function: Callable[..., Any]
    needs_look_alikes: bool = False

    def __call__(self, confusion: Matrices, classes: Sequence[str], look_alikes: Collection[str] = ()) -> Matrices:
        """Values of confusion matrices (..., k, k), shape (...); NaN where the metric is undefined.

        Raises:
            ValueError: The function returns another shape.
        """
        pair = ([name for name in classes if name in look_alikes],) if self.needs_look_alikes else ()
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.asarray(self.function(confusion, classes, *pair), dtype=float)
        if values.shape != confusion.shape[:-2]:
            raise ValueError(
                f"metric {self.name}: expected values of shape {confusion.shape[:-2]} for confusion matrices "
                f"{confusion.shape}; got {values.shape}. A function of one matrix becomes one of many by "
                "@numpy.vectorize(signature='(k,k),(k)->()') above it"
            )
        return values


METRICS: dict[str, Metric] = {}


def register_metric(name: str, label: str, *, needs_look_alikes: bool = False) -> Callable[[_Function], _Function]:
    """Registers a function ``(confusion, classes) -> values`` as a metric.

    ``confusion`` is a float array (..., k, k): counts of records, rows are the true classes, columns the predicted
    ones, both in the order of ``classes``, the k labels. One call gets all resamples of a bootstrap, 1,000 matrices and
    more, and some counts in them are fractions. The function returns an array (...), greater is better, NaN where the
    metric is undefined (it is written as null). A matrix has one record at least; a class may have none.

    A function of a single matrix is decorated with ``@numpy.vectorize(signature="(k,k),(k)->()")`` as well; one of
    scikit-learn's then gets the matrix as weights of all pairs of labels:
    ``f(repeat(classes, k), tile(classes, k), sample_weight=matrix.ravel())``.

    Args:
        name: Lower-case letters, digits and underscores.
        label: Name for people, short enough for a table.
        needs_look_alikes: The function gets the labels of the look-alikes as a third argument and is called only for
            tasks that have some.

    Raises:
        ValueError: The name is not valid, or another metric has it.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"metric name: got {name!r}; allowed: lower-case letters, digits and underscores")

    def register(function: _Function) -> _Function:
        # A module that is imported again replaces its own metrics.
        if name in METRICS and METRICS[name].function.__module__ == __name__ != function.__module__:
            raise ValueError(f"metric name: got {name!r}, one of spectro's own metrics; allowed: another name")
        METRICS[name] = Metric(name, label, function, needs_look_alikes)
        return function

    return register


def applicable_metrics(classes: Sequence[str], look_alikes: Collection[str] = ()) -> list[Metric]:
    """The metrics of a task; those of look-alikes only where some of its classes are look-alikes."""
    return [m for m in METRICS.values() if not m.needs_look_alikes or any(name in look_alikes for name in classes)]


def evaluate(confusion: Matrices, classes: Sequence[str], look_alikes: Collection[str] = ()) -> dict[str, Matrices]:
    """Values of all `applicable_metrics` of confusion matrices (..., k, k), shape (...), by name."""
    return {m.name: m(confusion, classes, look_alikes) for m in applicable_metrics(classes, look_alikes)}


def encode(labels: Any, classes: Sequence[str], name: str) -> NDArray[np.intp]:
    """Position of each label among the classes, an array of the same shape.

    Raises:
        ValueError: A label that is not among the classes; ``name`` is what the labels are called in the message.
    """
    position = {str(label): i for i, label in enumerate(classes)}
    array = np.asarray(labels, dtype=object)
    unknown = sorted({str(label) for label in array.ravel()} - set(position))
    if unknown:
        raise ValueError(f"{name}: got {', '.join(unknown)}; allowed: {', '.join(position)}")
    return np.array([position[str(label)] for label in array.ravel()], dtype=np.intp).reshape(array.shape)


@register_metric("macro_f1", "macro-F1")
def macro_f1(confusion: Matrices, classes: Sequence[str]) -> Matrices:
    """Mean F1 of the classes that have records."""
    return _f1(confusion).sum(axis=-1) / _n_present(confusion)


@register_metric("accuracy", "accuracy")
def accuracy(confusion: Matrices, classes: Sequence[str]) -> Matrices:
    """Share of the records that are predicted right."""
    return _hits(confusion).sum(axis=-1) / confusion.sum(axis=-1).sum(axis=-1)


@register_metric("balanced_accuracy", "balanced accuracy")
def balanced_accuracy(confusion: Matrices, classes: Sequence[str]) -> Matrices:
    """Mean recall of the classes that have records."""
    return ratio(_hits(confusion), confusion.sum(axis=-1)).sum(axis=-1) / _n_present(confusion)


@register_metric("hard_pair_f1", "hard pair F1", needs_look_alikes=True)
def hard_pair_f1(confusion: Matrices, classes: Sequence[str], look_alikes: Sequence[str]) -> Matrices:
    """Mean F1 of the look-alikes that have records; NaN where none has."""
    columns = [list(classes).index(name) for name in look_alikes]
    n_present = (confusion.sum(axis=-1)[..., columns] > 0).sum(axis=-1)
    return ratio(_f1(confusion)[..., columns].sum(axis=-1), n_present, empty=np.nan)


@register_metric("mcc", "MCC")
def mcc(confusion: Matrices, classes: Sequence[str]) -> Matrices:
    """Matthews correlation coefficient, -1 to 1; 0 where all records are of one class or predicted as one.

    J. Gorodkin (2004), "Comparing two K-category assignments by a K-category correlation coefficient", Computational
    Biology and Chemistry 28, 367-374.
    """
    true, predicted, hits = _shares(confusion)
    variances = (1 - (true**2).sum(axis=-1)) * (1 - (predicted**2).sum(axis=-1))
    return ratio(hits - (true * predicted).sum(axis=-1), np.sqrt(np.where(variances > _ROUNDING, variances, 0)))


@register_metric("cohen_kappa", "Cohen's kappa")
def cohen_kappa(confusion: Matrices, classes: Sequence[str]) -> Matrices:
    """Accuracy beyond that of chance, -1 to 1; NaN where all records are of one class and predicted as it.

    J. Cohen (1960), "A coefficient of agreement for nominal scales", Educational and Psychological Measurement 20,
    37-46.
    """
    true, predicted, hits = _shares(confusion)
    by_chance = (true * predicted).sum(axis=-1)
    return ratio(hits - by_chance, np.where(by_chance < 1 - _ROUNDING, 1 - by_chance, 0), empty=np.nan)


def ratio(above: NDArray[Any], below: NDArray[Any], empty: float = 0.0) -> Matrices:
    """The ratio, and ``empty`` where there is nothing to divide by."""
    return np.divide(above, below, out=np.full(np.shape(below), empty), where=below > 0)


def _hits(confusion: Matrices) -> Matrices:
    """Records of each class that are predicted right, (..., k)."""
    return np.diagonal(confusion, axis1=-2, axis2=-1)


def _f1(confusion: Matrices) -> Matrices:
    """F1 of each class, (..., k); 0 for a class without records."""
    return ratio(2 * _hits(confusion), confusion.sum(axis=-1) + confusion.sum(axis=-2))


def _n_present(confusion: Matrices) -> NDArray[np.intp]:
    """How many classes have records, (...)."""
    return (confusion.sum(axis=-1) > 0).sum(axis=-1)


def _shares(confusion: Matrices) -> tuple[Matrices, Matrices, Matrices]:
    """Shares of the records: true in each class, (..., k), predicted in each, (..., k), and predicted right, (...)."""
    n = confusion.sum(axis=(-2, -1))
    return (
        confusion.sum(axis=-1) / n[..., None],
        confusion.sum(axis=-2) / n[..., None],
        _hits(confusion).sum(axis=-1) / n,
    )

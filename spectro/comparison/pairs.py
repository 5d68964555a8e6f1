"""Paired tests of models on the same records: which is better, and how certain that is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist

import numpy as np

from spectro.comparison.models import Model
from spectro.evaluation.metrics import METRICS
from spectro.evaluation.paired import (
    Difference,
    McNemar,
    ResampledT,
    corrected_resampled_t,
    differences,
    holm,
    mcnemar,
)

LEVEL = 0.05
# 2 / 2**5 is above the level, 2 / 2**6 is not.
MIN_RECORDS = 6


@dataclass(frozen=True)
class Pair:
    """Two models on the same records; a is the one with the larger macro-F1.

    Attributes:
        differences: Metric -> difference, a minus b. Tests are of macro-F1.
        p_difference: Two-sided p of the difference, from its bootstrap standard error; None if nothing varies.
        mcnemar: The exact test on the records.
        folds: The corrected resampled t-test over common folds; None without any.
        holm: ``difference``, ``mcnemar``, ``folds`` -> p after Holm's correction over the pairs of the same question.
        n_pairs: How many pairs that question has.
        smallest: The smallest difference that is found in 80 % of such test sets, by the strictest step of the
            correction.
    """

    a: str
    b: str
    differences: Mapping[str, Difference]
    p_difference: float | None
    mcnemar: McNemar
    folds: ResampledT | None
    holm: Mapping[str, float | None] = field(default_factory=dict)
    n_pairs: int = 1
    smallest: float | None = None

    @property
    def difference(self) -> Difference:
        """The difference of macro-F1."""
        return self.differences["macro_f1"]

    @property
    def has_enough_records(self) -> bool:
        """Whether a and b differ on 6 records at least.

        On fewer even an exact test with all of them on one side cannot reach 5 %, and a bootstrap is overconfident.
        """
        return self.mcnemar.n_only_a + self.mcnemar.n_only_b >= MIN_RECORDS

    @property
    def is_better(self) -> bool:
        """Whether a is better: interval without 0, p below 5 % after Holm's correction, and enough records."""
        low, p = self.difference.ci_low, self.holm["difference"]
        return self.has_enough_records and low is not None and low > 0 and p is not None and p < LEVEL


def compare_pairs(pairs: Sequence[tuple[Model, Model]], seed: int) -> list[Pair]:
    """The tests of some pairs, corrected over them."""
    tested = [_pair(a, b, seed) for a, b in pairs]
    adjusted = {
        "difference": holm([pair.p_difference for pair in tested]),
        "mcnemar": holm([pair.mcnemar.p_value for pair in tested]),
        "folds": holm([pair.folds.p_value if pair.folds else None for pair in tested]),
    }
    # The power of the first of so many tests, for which Holm's correction is strictest.
    z = NormalDist().inv_cdf(1 - LEVEL / 2 / max(len(tested), 1)) + NormalDist().inv_cdf(0.8)
    return [
        replace(
            pair,
            holm={name: p[i] for name, p in adjusted.items()},
            n_pairs=len(tested),
            smallest=z * pair.difference.std_error or None,
        )
        for i, pair in enumerate(tested)
    ]


def _pair(a: Model, b: Model, seed: int) -> Pair:
    first = a.predictions[0]
    of_metrics = differences(first.y_true, a.predicted, b.predicted, first.classes, sources=first.sources, seed=seed)
    value, std_error = of_metrics["macro_f1"].value, of_metrics["macro_f1"].std_error
    p = 2 * (1 - NormalDist().cdf(abs(value) / std_error)) if std_error > 0 else 1.0 if value == 0 else None
    # McNemar's test counts records as independent: of several records of a class and a source the first.
    first_of: dict[tuple[str, str], int] = {}
    for i, key in enumerate(zip(first.y_true, first.sources, strict=True)):
        first_of.setdefault(key, i)
    rows = list(first_of.values())
    exact = mcnemar((a.votes == first.y_true)[rows], (b.votes == first.y_true)[rows])
    return Pair(a.name, b.name, of_metrics, p, exact, _fold_test(a, b))


def _fold_test(a: Model, b: Model) -> ResampledT | None:
    """Tests the difference over common folds; None where the two have none.

    Of each model those runs count that were cross-validated over the same folds as its first one; in each fold their
    mean.
    """
    folds_a, macro_f1_a = _fold_scores(a)
    folds_b, macro_f1_b = _fold_scores(b)
    if not folds_a or folds_a != folds_b:
        return None
    n, n_test = len(frozenset.union(*folds_a)), float(np.mean([len(paths) for paths in folds_a]))
    return corrected_resampled_t(macro_f1_a - macro_f1_b, n - n_test, n_test) if n_test < n else None


def _fold_scores(model: Model) -> tuple[list[frozenset[str]], np.ndarray]:
    """The paths of the records of each fold of each repeat, and macro-F1 in each of them, mean over seeds."""
    from sklearn.metrics import confusion_matrix

    common: list[frozenset[str]] = []
    scores = []
    for run in model.runs:
        folds, macro_f1 = [], []
        for predictions in run.out_of_fold:
            numbers, classes = np.array(predictions.fold), list(predictions.classes)
            for fold in np.unique(numbers):
                rows = np.flatnonzero(numbers == fold)
                folds.append(frozenset(str(predictions.records[i].path) for i in rows.tolist()))
                true, predicted = predictions.y_true[rows].tolist(), predictions.predicted[rows].tolist()
                macro_f1.append(METRICS["macro_f1"](confusion_matrix(true, predicted, labels=classes), classes))
        common = common or folds
        if folds and folds == common:
            scores.append(macro_f1)
    return common, np.mean(scores, axis=0) if scores else np.zeros(0)

"""The comparison of two contenders over the folds of a cross-validation that both of them went through."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from spectro.comparison.contenders import Contender
from spectro.comparison.runs import OutOfFold
from spectro.evaluation import score
from spectro.evaluation.paired import ResampledT, corrected_resampled_t


@dataclass(frozen=True)
class FoldTest:
    """The corrected resampled t-test of macro-F1, a minus b, and the folds it rests on."""

    test: ResampledT
    repeats: int
    k: int
    n_records: int


def fold_test(a: Contender, b: Contender) -> FoldTest | None:
    """Tests the difference over common folds; None where the two have none.

    Of each contender those runs count that were cross-validated over the same folds as its first one; in each fold
    their mean.
    """
    a_runs, b_runs = _cross_validated(a), _cross_validated(b)
    if not a_runs or not b_runs or a_runs[0].folds != b_runs[0].folds:
        return None
    folds = a_runs[0].folds
    members: dict[tuple[int, int], list[tuple[int, str]]] = defaultdict(list)
    for key, fold in folds.items():
        members[key[0], fold].append(key)
    differences = [_mean(a_runs, keys, a.classes) - _mean(b_runs, keys, b.classes) for keys in members.values()]
    n = len({path for _, path in folds})
    n_test = float(np.mean([len(keys) for keys in members.values()]))
    repeats = len({repeat for repeat, _ in folds})
    if n_test >= n:
        return None
    return FoldTest(corrected_resampled_t(differences, n - n_test, n_test), repeats, len(members) // repeats, n)


def _cross_validated(contender: Contender) -> list[OutOfFold]:
    found = [own for run in contender.runs if (own := run.out_of_fold) is not None]
    return [own for own in found if own.folds == found[0].folds]


def _mean(runs: list[OutOfFold], keys: list[tuple[int, str]], classes: tuple[str, ...]) -> float:
    """Macro-F1 over some records, mean over runs."""
    scores = []
    for run in runs:
        truth, predicted = zip(*(run.said[key] for key in keys), strict=True)
        scores.append(score(truth, predicted, classes, resamples=1)["macro_f1"])
    return float(np.mean(scores))

"""Everything that a comparison counts: scores with intervals, paired tests, the look-alikes, what all get wrong."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from statistics import NormalDist
from typing import Any

import numpy as np

from spectro.comparison.contenders import MAJORITY, Contender
from spectro.comparison.folds import FoldTest, fold_test
from spectro.evaluation import METRICS, score
from spectro.evaluation.intervals import wilson
from spectro.evaluation.paired import Difference, Estimate, McNemar, differences, holm, mcnemar, score_over_seeds

LEVEL = 0.05
# 2 / 2**5 is above the level, 2 / 2**6 is not.
LEAST_RECORDS = 6


@dataclass(frozen=True)
class Scores:
    """What a contender reaches.

    Attributes:
        averages: Metric -> mean over seeds with its interval.
        recall: Class -> ``recall`` (mean over seeds), ``ci_low``, ``ci_high``, ``support``; the first three are None
            without support.
        pair_f1: Look-alike group -> mean F1 of its classes in the whole task; None where none of them has records.
    """

    averages: Mapping[str, Estimate]
    recall: Mapping[str, Mapping[str, Any]]
    pair_f1: Mapping[str, Estimate | None]


@dataclass(frozen=True)
class Pair:
    """Two contenders on the same records; a is the one with the larger macro-F1.

    Attributes:
        a: One of them.
        b: The other.
        difference: Of macro-F1, a minus b; ``smallest`` is that of the strictest step of Holm's correction.
        p_difference: Two-sided p of the difference, from its bootstrap standard error; None if nothing varies.
        mcnemar: The exact test on the records.
        folds: The corrected resampled t-test; None without common folds.
        holm: ``difference``, ``mcnemar``, ``folds`` -> p after Holm's correction over the pairs of the same question.
        of: How many pairs that question has.
    """

    a: str
    b: str
    difference: Difference
    p_difference: float | None
    mcnemar: McNemar
    folds: FoldTest | None
    holm: dict[str, float | None] = field(default_factory=dict)
    of: int = 1

    @property
    def is_better(self) -> bool:
        """Whether a is better: the interval is without 0, p below 5 % after Holm's correction, and `enough` records."""
        low, p = self.difference.ci_low, self.holm["difference"]
        return self.enough and low is not None and low > 0 and p is not None and p < LEVEL

    @property
    def enough(self) -> bool:
        """Whether they differ on 6 records at least.

        On fewer even an exact test that finds all of them on one side cannot reach 5 %, whatever a bootstrap of so few
        says: it is too sure of itself there.
        """
        return self.mcnemar.n_only_a + self.mcnemar.n_only_b >= LEAST_RECORDS


def scores_of(contender: Contender, look_alikes: Mapping[str, Sequence[str]], seed: int = 0) -> Scores:
    """Averages and recalls of a contender.

    Args:
        contender: The contender.
        look_alikes: Group -> its classes; groups that the task does not tell apart are passed over.
        seed: Seed of the bootstrap.
    """
    truth = truth_of(contender)
    classes = contender.classes
    sources = [row.source for row in contender.rows]

    def over_seeds(metric: str, members: Sequence[str] = ()) -> Estimate:
        said = contender.predicted
        if len(said) == 1:
            # What the run itself tells shall not stand here with another interval.
            own_seed = next(iter(contender.seeds), seed)
            told = score(truth, said[0], classes, sources=sources, seed=own_seed, look_alikes=members)
            value = float(told[metric])
            return Estimate(value, told[f"{metric}_ci_low"], told[f"{metric}_ci_high"], None, (value,))
        return score_over_seeds(truth, said, classes, sources=sources, seed=seed, look_alikes=members)[metric]

    averages = {name: over_seeds(name) for name, metric in METRICS.items() if not metric.needs_look_alikes}
    recall: dict[str, dict[str, Any]] = {}
    for label in classes:
        own = truth == label
        n = int(own.sum())
        # Seeds are no further records: the interval is that of the mean recall over the records that there are.
        value = float((contender.predicted[:, own] == label).mean()) if n else None
        low, high = wilson(value * n, n) if value is not None else (None, None)
        recall[label] = {"recall": value, "ci_low": low, "ci_high": high, "support": n}
    told_apart = {group: members for group, members in look_alikes.items() if set(members) <= set(classes)}
    pair_f1 = {
        group: over_seeds("hard_pair_f1", members) if np.isin(truth, list(members)).any() else None
        for group, members in told_apart.items()
    }
    return Scores(averages, recall, pair_f1)


def pairs_of(contenders: Sequence[Contender], seed: int = 0) -> tuple[list[Pair], list[Pair]]:
    """Paired tests: every two models, and every model with every reference line.

    They are two questions, and Holm's correction is made over the pairs of each.

    Args:
        contenders: Models and reference lines.
        seed: Seed of the bootstrap.

    Returns:
        The pairs of two models, and those of a model and a line; in both the larger macro-F1 stands first.
    """
    models = [one for one in contenders if not one.is_reference]
    lines = [one for one in contenders if one.is_reference]
    between = _tested(list(combinations(models, 2)), seed)
    return between, _tested([(model, line) for model in models for line in lines], seed)


def wrong_for_all(contenders: Sequence[Contender]) -> list[int]:
    """Records that every model and the pixels line, by the vote of their seeds, call other than their label."""
    models = [one for one in contenders if one.name != MAJORITY]
    wrong = np.all([one.votes != truth_of(one) for one in models], axis=0)
    return [int(i) for i in np.flatnonzero(wrong)]


def agreed(contenders: Sequence[Contender], index: int) -> tuple[str, int]:
    """What most models call a record, and how many do."""
    said = Counter(str(one.votes[index]) for one in contenders if not one.is_reference)
    return min(said.items(), key=lambda item: (-item[1], item[0]))


def truth_of(contender: Contender) -> np.ndarray:
    """The true labels, ``(n,)``."""
    return np.array([row.label for row in contender.rows], dtype=object)


def _tested(pairs: Sequence[tuple[Contender, Contender]], seed: int) -> list[Pair]:
    """The tests of some pairs, corrected over them."""
    tested = []
    for one, other in pairs:
        pair = _pair(one, other, seed)
        tested.append(pair if pair.difference.value >= 0 else _pair(other, one, seed))
    p_values: dict[str, list[float | None]] = {
        "difference": [pair.p_difference for pair in tested],
        "mcnemar": [pair.mcnemar.p_value for pair in tested],
        "folds": [pair.folds.test.p_value if pair.folds else None for pair in tested],
    }
    adjusted = {test: holm(values) for test, values in p_values.items()}
    # What is seen by the first of so many tests, which Holm's correction asks most of.
    z = NormalDist().inv_cdf(1 - LEVEL / 2 / max(len(tested), 1)) + NormalDist().inv_cdf(0.8)
    return [
        replace(
            pair,
            difference=replace(pair.difference, smallest=z * pair.difference.std_error or None),
            of=len(tested),
            holm={test: None if np.isnan(own[i]) else float(own[i]) for test, own in adjusted.items()},
        )
        for i, pair in enumerate(tested)
    ]


def _pair(a: Contender, b: Contender, seed: int) -> Pair:
    truth, sources = truth_of(a), [row.source for row in a.rows]
    found = differences(truth, a.predicted, b.predicted, a.classes, sources=sources, seed=seed)["macro_f1"]
    p = None
    if found.std_error > 0:
        p = 2 * (1 - NormalDist().cdf(abs(found.value) / found.std_error))
    elif found.value == 0:
        p = 1.0
    # The test counts records as independent: of several records of a class and a source the first.
    seen: dict[tuple[str, str], int] = {}
    for i, key in enumerate(zip(truth, sources, strict=True)):
        seen.setdefault(key, i)
    first = list(seen.values())
    exact = mcnemar((a.votes == truth)[first], (b.votes == truth)[first])
    return Pair(a.name, b.name, found, p, exact, fold_test(a, b))

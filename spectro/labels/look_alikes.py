"""Which classes a flat model confuses beyond chance, a mapping made of it, and whether a cascade with it is better."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from spectro.comparison.baselines import load_dataset
from spectro.comparison.load import Run
from spectro.comparison.models import Model
from spectro.comparison.pairs import Pair, compare_pairs
from spectro.config.check import literal, rebuilt
from spectro.errors import DataError
from spectro.evaluation.intervals import wilson
from spectro.evaluation.paired import holm
from spectro.files import write_text
from spectro.labels.runs import mean_probabilities
from spectro.runs.crossval import Folds, cross_validate
from spectro.runs.predictions import Predictions
from spectro.runs.task import Task

LEVEL = 0.05
# The option of ``mapping``, and the name of its file.
OPTION = "look_alikes"


@dataclass(frozen=True)
class Confusion:
    """How often two classes are taken for one another, one record a source.

    Attributes:
        classes: The two.
        n: Number of sources of each.
        confused: Of these, how many are predicted as the other class.
        wrong: Number of wrong predictions of all classes.
        chance: Share of the wrong predictions that would be of this pair by chance, see `confusions`.
        p_value: Of the exact binomial test, one-sided, after Holm's correction over all pairs.
    """

    classes: tuple[str, str]
    n: tuple[int, int]
    confused: int
    wrong: int
    chance: float
    p_value: float

    @property
    def is_beyond_chance(self) -> bool:
        """Whether the test finds the pair."""
        return self.p_value < LEVEL

    @property
    def row(self) -> dict[str, Any]:
        """The pair as a row of ``pairs.csv``, shares with 95 % Wilson intervals."""
        rate, share = wilson(self.confused, sum(self.n)), wilson(self.confused, self.wrong)
        return {
            **{"class_a": self.classes[0], "class_b": self.classes[1], "n_a": self.n[0], "n_b": self.n[1]},
            **{"confused": self.confused, "confused_of_pair": self.confused / sum(self.n)},
            **{"confused_of_pair_ci_low": rate[0], "confused_of_pair_ci_high": rate[1]},
            "share_of_wrong": self.confused / self.wrong if self.wrong else 0.0,
            **{"share_of_wrong_ci_low": share[0], "share_of_wrong_ci_high": share[1]},
            **{"share_by_chance": self.chance, "p_holm": self.p_value, "look_alike": self.is_beyond_chance},
        }


def confusions(repeats: list[Predictions]) -> list[Confusion]:
    """Tests of every two classes, the pair that is farthest from chance first.

    Chance: every source is predicted wrong with the same probability, and a wrong one gets each of the other classes in
    proportion to their sources. With n_a of N sources in class a, a wrong prediction is then of the pair a, b with
    probability n_a/N * n_b/(N - n_a) + n_b/N * n_a/(N - n_b), and the number of these among all wrong ones is binomial.
    Records of a source are no independent evidence: they, and the repeats, count once, by their mean probabilities.

    Args:
        repeats: Out-of-fold predictions of three classes or more.

    Raises:
        DataError: There are fewer classes.
    """
    from scipy.stats import binomtest

    first, probabilities = repeats[0], mean_probabilities(repeats)
    classes = [str(label) for label in first.classes]
    if len(classes) < 3:
        raise DataError(f"RUN: got {len(classes)} classes; allowed: three or more, as a cascade merges some of them")
    units: dict[tuple[str, str], list[int]] = {}
    for i, key in enumerate(zip(first.y_true.tolist(), first.sources, strict=True)):
        units.setdefault(key, []).append(i)
    counts = np.zeros((len(classes), len(classes)), dtype=int)
    for (label, _), rows in units.items():
        counts[classes.index(label), probabilities[rows].mean(axis=0).argmax()] += 1
    n, total = counts.sum(axis=1), counts.sum()
    wrong = int(total - counts.trace())
    found = []
    for a, b in combinations(range(len(classes)), 2):
        chance = float(n[a] * n[b] / total * (1 / (total - n[a]) + 1 / (total - n[b])))
        confused = int(counts[a, b] + counts[b, a])
        p = float(binomtest(confused, wrong, chance, alternative="greater").pvalue) if wrong else 1.0
        found.append(Confusion((classes[a], classes[b]), (int(n[a]), int(n[b])), confused, wrong, chance, p))
    adjusted = holm([pair.p_value for pair in found])
    found = [replace(pair, p_value=float(p or 0.0)) for pair, p in zip(found, adjusted, strict=True)]
    return sorted(found, key=lambda pair: (pair.p_value, -pair.confused, pair.classes))


def groups_of_look_alikes(pairs: Sequence[Confusion]) -> dict[str, list[str]]:
    """Merged label -> classes, every two of which are confused beyond chance.

    Pairs are merged in their order, the clearest first. A class is in one group only; not all classes can be in one, as
    shares of the wrong predictions sum to 1 and not all of them can be above chance.
    """
    found = {frozenset(pair.classes) for pair in pairs if pair.is_beyond_chance}
    classes = {label for pair in pairs for label in pair.classes}
    groups = {label: {label} for label in classes}
    for pair in pairs:
        a, b = (groups[label] for label in pair.classes)
        if a is not b and all(frozenset((x, y)) in found for x in a for y in b):
            for label in (merged := a | b):
                groups[label] = merged
    members = sorted({tuple(sorted(group)) for group in groups.values() if len(group) > 1})
    # No label may be that of a class.
    return {" or ".join(group) + "_" * (" or ".join(group) in classes): list(group) for group in members}


def write_mapping(folder: Path, config: Mapping[str, Any], groups: Mapping[str, Sequence[str]]) -> None:
    """Writes ``mapping/look_alikes.yaml``, which ``--config-dir FOLDER mapping=look_alikes`` takes.

    ``groups`` are merged label -> classes; classes and folders are those of the run's mapping.
    """
    import yaml

    mapping = config["mapping"]
    content = {
        "name": OPTION,
        **{key: mapping[key] for key in ("classes", "left_out") if mapping.get(key)},
        "look_alikes": {group: list(members) for group, members in groups.items()},
    }
    text = yaml.safe_dump(literal(content), allow_unicode=True, sort_keys=False, width=120)
    (folder / "mapping").mkdir()
    comment = "# Classes that a flat model confuses beyond chance, as one class for the easy stage of a cascade\n"
    write_text(folder / "mapping" / f"{OPTION}.yaml", comment + text)


def cross_validated_cascade(run: Run, groups: Mapping[str, Sequence[str]], outputs: Path) -> list[Predictions]:
    """Out-of-fold predictions of the run's configuration as a cascade with these look-alikes, on its folds.

    Nothing is written, and test is not read.

    Raises:
        SpectroError: The images are no longer there, or the configuration cannot be a cascade.
    """
    look_alikes = {group: list(members) for group, members in groups.items()}
    raw = run.info.config | {
        "mapping": {**run.info.config["mapping"], "look_alikes": look_alikes, "name": OPTION},
        "cascade_stage": {"name": "full"},
    }
    data = {"cache_dir": str(outputs / "cache")} | ({"table": run.data.table} if run.data.table else {})
    config = rebuilt(raw, origin=run.origin, root=run.data.root, knobs={"outputs": str(outputs), "data": data})
    config.estimator().prepare()
    task = Task(config, load_dataset(run, outputs))
    folds = Folds.of(task)
    if folds is None:
        raise DataError(f"RUN: got {run.origin}; allowed: a run with validation=kfold")
    names = [replace(record, path=Path(task.dataset.name_of(record))) for record in folds.records]
    return [replace(p, records=names) for p in cross_validate(task, folds).stages[""]]


def compare_cascade(flat: list[Predictions], cascade: list[Predictions], seed: int) -> Pair:
    """The paired tests of flat model and cascade on the same out-of-fold records; a is the better one by macro-F1.

    Raises:
        DataError: They are not of the same records, labels and number of repeats.
    """
    first, second = (
        [(str(r.path), str(y), int(f)) for r, y, f in zip(p.records, p.y_true, np.array(p.fold), strict=True)]
        for p in (flat[0], cascade[0])
    )
    if first != second or len(flat) != len(cascade):
        raise DataError("--cascade: got a run of other records, labels or folds; allowed: a cascade on those of RUN")
    models = [Model(name, predictions) for name, predictions in (("flat", flat), ("cascade", cascade))]
    (pair,) = compare_pairs([(models[0], models[1])], seed)
    return pair if pair.difference.value >= 0 else compare_pairs([(models[1], models[0])], seed)[0]

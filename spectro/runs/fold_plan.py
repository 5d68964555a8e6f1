"""Which records are evaluated in which fold of a cross-validation, and which its models may know."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spectro.config.check import Config
from spectro.config.schema import KFoldKnobs
from spectro.data import Dataset, Record, labels_of
from spectro.data.splits import folds, groups_of, part_of, uneven
from spectro.errors import DataError
from spectro.runs import task


@dataclass(frozen=True)
class Plan:
    """Which records are evaluated in which fold.

    Attributes:
        records: Train and val records of the task, ``n``.
        groups: What stays together, ``(n,)``: records of one source, or with the same bytes.
        folds: From 0, ``(repeats, n)``.
        warnings: What the folds cannot evaluate well.
        k: How many folds there are.
        seed: Of the folds, and of whatever is drawn inside them.
        share: How much of a fold's training records its models may know; the smaller lies inside the larger.
    """

    records: Sequence[Record]
    groups: np.ndarray
    folds: np.ndarray
    warnings: Sequence[str]
    k: int
    seed: int
    share: float = 1.0

    def learned(self, repeat: int, number: int) -> np.ndarray:
        """Indices of the records that the models of a fold may know, a network's own val among them."""
        train = np.flatnonzero(self.folds[repeat] != number)
        labels = labels_of(self.of(train))
        return train[part_of(labels, self.groups[train], self.share, [self.seed, repeat, number])]

    def of(self, index: np.ndarray) -> list[Record]:
        """The records of these indices."""
        return [self.records[i] for i in index.tolist()]


def plan(config: Config, dataset: Dataset, share: float = 1.0) -> Plan:
    """Deals the records to folds; of each fold's training records a ``share`` may be used.

    Raises:
        DataError: There are fewer sources than folds.
    """
    knobs = config.common.validation
    if not isinstance(knobs, KFoldKnobs):
        raise TypeError(f"validation: got {knobs.name!r}; allowed: kfold")
    records = task.in_task(config, [*dataset.of("train"), *dataset.of("val")])
    groups = np.empty(len(records), dtype=int)
    # Named by order of path, so that they can be sorted; the same classes whatever the stage, so that stages compare.
    for number, group in enumerate(groups_of(records)):
        groups[group] = number
    labels = labels_of(records)
    try:
        dealt = [folds(labels, groups, knobs.k, [knobs.seed, repeat]) for repeat in range(knobs.repeats)]
    except ValueError as error:
        n = len(set(groups))
        allowed = f"2 to {n}" if n > 1 else "none"
        raise DataError(
            f"validation.k: got {knobs.k} folds for {n} sources in train and val; allowed: {allowed}"
        ) from error
    told = uneven(task.task_labels(config, records), groups, dealt[0], knobs.k)
    return Plan(records, groups, np.array(dealt), told, knobs.k, knobs.seed, share)

"""Cross-validation of a configuration: what models say of train and val records that they were not fitted to.

Test is never read here. Nothing is written either, but for finished folds of networks where a `workplace` is open.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spectro import task
from spectro.classifiers import CascadeClassifier, PictureClassifier, work
from spectro.classifiers.cascade import Said
from spectro.config import Config
from spectro.data import Dataset, Record, labels_of
from spectro.data.folds import folds, inner_val, part_of, uneven
from spectro.data.mapping import hard_stage_names
from spectro.data.splits import groups_of
from spectro.errors import DataError
from spectro.evaluation import score
from spectro.evaluation.metrics import AVERAGES, HARD_PAIR, averages
from spectro.progress import progress
from spectro.run_dir import write_json
from spectro.schema import KFoldKnobs

# An inner val is at most this part of a fold's training records, also where there are only two or three folds.
_INNER_SHARE = 4


@dataclass(frozen=True)
class OutOfFold:
    """What the folds' models say of the records of one task.

    Attributes:
        records: The records, ``n``.
        truth: Their labels, ``(n,)``.
        classes: The task's classes, sorted, ``(k,)``.
        folds: The fold that judged each record, from 0, ``(repeats, n)``.
        probabilities: ``(repeats, n, k)``; a class that a fold had no training records of has probability 0 there. Of
            a hard stage that a fold had none for at all every class has 0, and the first counts as predicted.
        k: How many folds there were; some may hold no record of a hard stage.
        look_alikes: The classes whose mean F1 is told besides, if any.
    """

    records: Sequence[Record]
    truth: np.ndarray
    classes: np.ndarray
    folds: np.ndarray
    probabilities: np.ndarray
    k: int
    look_alikes: Sequence[str] = ()

    @property
    def predicted(self) -> np.ndarray:
        """Labels of the largest probabilities, ``(repeats, n)``."""
        return self.classes[self.probabilities.argmax(axis=2)]

    def averages(self) -> dict[str, float | None]:
        """The averages, and how much macro-F1 varies.

        Returns:
            ``macro_f1``, ``accuracy``, ``balanced_accuracy`` and, where there are look-alikes, ``hard_pair_f1``: means
            over the repeats of what all records of a repeat give together. ``macro_f1_std_repeats``: its standard
            deviation over repeats. ``macro_f1_std_folds``: the standard deviation over folds of each fold's own
            macro-F1, mean over the repeats. None where there is one.
        """
        k, (repeats, n) = len(self.classes), self.folds.shape
        # (repeats, folds, k, k): rows are the truth
        matrices = np.zeros((repeats, self.k, k, k))
        rows = np.broadcast_to(np.searchsorted(self.classes, self.truth), (repeats, n))
        np.add.at(matrices, (np.arange(repeats)[:, None], self.folds, rows, self.probabilities.argmax(axis=2)), 1)
        pooled = averages(matrices.sum(axis=1), np.flatnonzero(np.isin(self.classes, list(self.look_alikes))))
        # A hard stage may have no record in some fold.
        by_fold = [averages(own[own.any(axis=(1, 2))])[:, 0] for own in matrices]
        spreads = [np.std(values, ddof=1) for values in by_fold if len(values) > 1]
        return {
            # The classes are those that records have, so that each of these is a number.
            **{name: float(v.mean()) for name, v in zip((*AVERAGES, HARD_PAIR), pooled.T, strict=False)},
            "macro_f1_std_repeats": float(np.std(pooled[:, 0], ddof=1)) if repeats > 1 else None,
            "macro_f1_std_folds": float(np.mean(spreads)) if spreads else None,
        }

    def report(self, seed: int) -> dict[str, Any]:
        """Every metric: intervals, classes and confusion matrix of the first repeat, `averages` over all of them."""
        sources = [record.source for record in self.records]
        classes, look_alikes = list(self.classes), self.look_alikes
        first = score(self.truth, self.predicted[0], classes, sources=sources, seed=seed, look_alikes=look_alikes)
        return {**first, **self.averages(), "k": self.k, "repeats": len(self.folds)}


@dataclass(frozen=True)
class CrossValidated:
    """The result of a cross-validation.

    Attributes:
        tasks: Task -> what was said: the whole task's name is empty, and within a cascade there are its stages.
        warnings: What a person should know of the folds and of what was said.
    """

    tasks: Mapping[str, OutOfFold]
    warnings: Sequence[str]

    def value(self, objective: str) -> float | None:
        """A metric by its name: ``cv/macro_f1``, ``hard/cv/accuracy``."""
        stage, _, metric = f"/{objective}".rpartition("/cv/")
        return self.tasks[stage.lstrip("/")].averages()[metric]


@dataclass(frozen=True)
class Plan:
    """Which records are judged in which fold.

    Attributes:
        records: Train and val records of the task, ``n``.
        groups: What stays together, ``(n,)``: records of one source, or with the same bytes.
        folds: From 0, ``(repeats, n)``.
        warnings: What the folds cannot judge well.
        seed: Of the folds, and of whatever is drawn inside them.
        share: How much of a fold's training records its models may know; the smaller lies inside the larger.
    """

    records: Sequence[Record]
    groups: np.ndarray
    folds: np.ndarray
    warnings: Sequence[str]
    seed: int
    share: float = 1.0

    def learned(self, repeat: int, number: int) -> np.ndarray:
        """Indices of the records that the models of a fold may know, a network's own val among them."""
        train = np.flatnonzero(self.folds[repeat] != number)
        labels = labels_of(_pick(self.records, train))
        return train[part_of(labels, self.groups[train], self.share, [self.seed, repeat, number])]


def plan(config: Config, dataset: Dataset, share: float = 1.0) -> Plan:
    """Deals the records to folds; of each fold's training records a ``share`` may be used.

    Raises:
        DataError: There are fewer sources than folds.
    """
    knobs = _knobs(config)
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
            f"validation.k: found {knobs.k} folds for {n} sources in train and val; allowed: {allowed}"
        ) from error
    told = uneven(task.task_labels(config, records), groups, dealt[0], knobs.k)
    return Plan(records, groups, np.array(dealt), told, knobs.seed, share)


def cross_validate(config: Config, dataset: Dataset, planned: Plan | None = None) -> CrossValidated:
    """Fits the configured classifier in every fold and asks it for the records that it was not fitted to.

    All that learns from records is inside the fold: scaler, components, early stopping. Augmented variants are made of
    the fold's training records; only originals are judged. A family that chooses on val gives up a part of the fold's
    training records for it; others are trained on all of them, and probabilities then have temperature 1.

    Args:
        config: A valid configuration with ``validation=kfold``.
        dataset: Its data.
        planned: The folds, where they were dealt before, and how much of them may be learned from.

    Returns:
        What was said.

    Raises:
        DataError: There are fewer sources than folds.
    """
    planned, estimator = planned or plan(config, dataset), config.estimator()
    records, truth = planned.records, task.task_labels(config, planned.records)
    tasks = _tasks(config, estimator, records, truth)
    shape = planned.folds.shape
    out = {name: np.zeros((*shape, len(classes))) for name, (_, classes, _) in tasks.items()}
    with progress("cross-validation", shape[0] * _knobs(config).k) as advance:
        for repeat, number in np.ndindex(shape[0], _knobs(config).k):
            new = planned.folds[repeat] == number
            for name, said in _remembered(config, dataset, planned, estimator, repeat, number).items():
                columns = np.searchsorted(tasks[name][1], said.classes)
                out[name][repeat, np.flatnonzero(new)[:, None], columns] = said.probabilities
            advance(1)
    found = {}
    for name, (labels, classes, own) in tasks.items():
        kept = _pick(records, own)
        told, p = () if name else config.look_alikes, out[name][:, own]
        found[name] = OutOfFold(kept, labels[own], classes, planned.folds[:, own], p, _knobs(config).k, told)
    return CrossValidated(found, [*planned.warnings, *_never_predicted(found)])


def _never_predicted(tasks: Mapping[str, OutOfFold]) -> list[str]:
    """Classes that no record is called out of fold: the sign of a machine that degenerates."""
    lines = []
    for name, own in tasks.items():
        never = sorted(set(own.truth) - set(own.predicted.ravel()))
        if never:
            where = f"stage {name}" if name else "the model"
            n = int(np.isin(own.truth, never).sum())
            lines.append(f"cross-validation: {where} calls no record {' or '.join(never)}, though {n} are")
    return lines


def _knobs(config: Config) -> KFoldKnobs:
    knobs = config.common.validation
    if not isinstance(knobs, KFoldKnobs):
        raise TypeError(f"validation: found {knobs.name!r}; allowed: kfold")
    return knobs


def _tasks(
    config: Config, estimator: PictureClassifier, records: Sequence[Record], truth: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Task -> its labels ``(n,)``, its classes, and the indices of the records that it is about."""
    everything = np.arange(len(records))

    def about(labels: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return labels, np.array(sorted(set(labels[own])), dtype=object), own

    tasks = {"": about(truth, everything)}
    if isinstance(estimator, CascadeClassifier):
        tasks["easy"] = about(estimator.merged(truth), everything)
        for group, name in hard_stage_names(list(estimator.look_alikes)).items():
            tasks[name] = about(truth, np.flatnonzero(np.isin(truth, list(estimator.look_alikes[group]))))
    return tasks


def _judged(
    config: Config, dataset: Dataset, planned: Plan, estimator: PictureClassifier, repeat: int, number: int
) -> dict[str, Said]:
    """What the models of one fold say of its records, by task."""
    train = planned.learned(repeat, number)
    val, new = train[:0], _pick(planned.records, np.flatnonzero(planned.folds[repeat] == number))
    if estimator.chooses_on_val:
        knobs, labels = _knobs(config), labels_of(_pick(planned.records, train))
        share = max(knobs.k, _INNER_SHARE)
        chosen = inner_val(labels, planned.groups[train], share, [knobs.seed, repeat, number])
        train, val = train[~chosen], train[chosen]
    learned, chosen_on = (_pick(planned.records, own) for own in (train, val))
    X, y = task.training_set(config, dataset, learned)
    X_val, y_val = dataset.pictures(chosen_on), task.task_labels(config, chosen_on)
    if not isinstance(estimator, CascadeClassifier):
        p = estimator.out_of_fold(X, y, X_val, y_val, dataset.pictures(new))
        return {"": Said(np.array(sorted(set(y)), dtype=object), p)}
    said = estimator.stages_out_of_fold(X, y, X_val, y_val, dataset.pictures(new))
    names = {f"hard/{group}": name for group, name in hard_stage_names(list(estimator.look_alikes)).items()}
    return {names.get(name, name): own for name, own in said.items()}


def _remembered(
    config: Config, dataset: Dataset, planned: Plan, estimator: PictureClassifier, repeat: int, number: int
) -> dict[str, Said]:
    """`_judged`, with what was told of its epochs, as a run that was killed left it in its workplace."""
    here = work.current()
    prefix = f"repeat {repeat + 1} " if len(planned.folds) > 1 else ""
    name = f"{prefix}fold {number + 1}"
    path = None if here.folder is None else here.folder / f"{name.replace(' ', '_')}.json"
    identity = hashlib.sha256(
        json.dumps([config.raw, dataset.fingerprint, planned.share], sort_keys=True).encode()
    ).hexdigest()
    before = None if path is None else _read(path, identity)
    if before is not None:
        for stage, history in before["history"].items():
            here.on_epoch(stage, history)
        said = before["said"]
        return {t: Said(np.array(s["classes"], dtype=object), np.array(s["p"])) for t, s in said.items()}
    told: dict[str, Sequence[Mapping[str, Any]]] = {}

    def on_epoch(stage: str, history: Sequence[Mapping[str, Any]]) -> None:
        told[stage] = history
        here.on_epoch(stage, history)

    with work.fold(name, name.replace(" ", "_"), on_epoch, is_first=repeat == number == 0):
        found = _judged(config, dataset, planned, estimator, repeat, number)
    if path is not None and told:
        path.parent.mkdir(parents=True, exist_ok=True)
        said = {t: {"classes": list(own.classes), "p": own.probabilities.tolist()} for t, own in found.items()}
        write_json(path, {"identity": identity, "history": told, "said": said})
        # Checkpoints of a network are large, and this fold will not go on.
        shutil.rmtree(path.with_suffix(""), ignore_errors=True)
    return found


def _pick(records: Sequence[Record], index: np.ndarray) -> list[Record]:
    return [records[i] for i in index.tolist()]


def _read(path: Path, identity: str) -> dict[str, Any] | None:
    """A fold that was finished; None if there is none of this configuration and these data."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if content["identity"] == identity else None

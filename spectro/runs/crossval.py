"""Cross-validation of a task over its train and val records; test is never read.

Nothing is written, but for finished folds of networks where a `fit_context` has a folder.
"""

import hashlib
import json
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spectro.classifiers import ImageClassifier, fit_context
from spectro.classifiers.base import StageOutput
from spectro.config.schema import CrossValidationKnobs, KFoldKnobs
from spectro.data import Record, labels_of
from spectro.data.splits import folds as deal
from spectro.data.splits import group_numbers, inner_val, part_of, uneven
from spectro.errors import DataError
from spectro.evaluation.metrics import evaluate, macro_f1
from spectro.files import read_json, write_json
from spectro.progress import progress
from spectro.runs.predictions import Predictions, never_predicted, write_predictions
from spectro.runs.task import Task

# An inner val is at most this part of a fold's training records, also where there are only two or three folds.
_INNER_SHARE = 4
_HINT = "spectro learning-curve shows whether more labels help"


@dataclass(frozen=True)
class Folds:
    """Which records are evaluated in which fold, and which may be trained on there.

    Attributes:
        records: Train and val records of the task, ``n``.
        groups: What stays together, ``(n,)``: records of one source, or with the same bytes.
        number: The fold that evaluates each record, from 0, ``(repeats, n)``.
        k: Number of folds.
        seed: Seed of the folds, and of whatever is drawn inside them.
        share: Share of a fold's training records that is used; a smaller one lies inside a larger one.
        warnings: What the folds cannot evaluate well.
    """

    records: Sequence[Record]
    groups: np.ndarray
    number: np.ndarray
    k: int
    seed: int
    share: float
    warnings: Sequence[str]

    @classmethod
    def of(cls, task: Task, share: float = 1.0) -> "Folds | None":
        """The folds of a task; None without cross-validation.

        Raises:
            DataError: There are fewer sources than folds, or fewer than two.
        """
        knobs = task.config.common.validation
        if not isinstance(knobs, CrossValidationKnobs):
            return None
        records = task.train_and_val
        # Numbered in the order of paths. Folds are stratified by class, whatever the stage, so that stages compare.
        groups, labels = group_numbers(records), labels_of(records)
        n = len(set(groups))
        if not isinstance(knobs, KFoldKnobs):
            if n < 2:
                raise DataError(f"data.group: got {n} group in train and val; allowed: two or more to leave one out")
            warnings = uneven(task.labels_of(records), groups, groups, n)
            return cls(records, groups, groups[None], n, 0, share, warnings)
        if knobs.k > n:
            allowed = f"2 to {n}" if n > 1 else "none"
            raise DataError(f"validation.k: got {knobs.k} folds for {n} sources in train and val; allowed: {allowed}")
        numbers = [deal(labels, groups, knobs.k, [knobs.seed, repeat]) for repeat in range(knobs.repeats)]
        warnings = uneven(task.labels_of(records), groups, numbers[0], knobs.k)
        return cls(records, groups, np.array(numbers), knobs.k, knobs.seed, share, warnings)

    def train(self, repeat: int, fold: int) -> np.ndarray:
        """Indices of the records that the models of a fold may use, a network's own val among them."""
        train = np.flatnonzero(self.number[repeat] != fold)
        labels = labels_of(self.take(train))
        return train[part_of(labels, self.groups[train], self.share, [self.seed, repeat, fold])]

    def split(self, repeat: int, fold: int, *, with_val: bool) -> tuple[list[Record], list[Record], list[Record]]:
        """Training records, inner val (empty unless ``with_val``) and the evaluated records of a fold."""
        train, new = self.train(repeat, fold), np.flatnonzero(self.number[repeat] == fold)
        val = train[:0]
        if with_val:
            labels, share = labels_of(self.take(train)), max(self.k, _INNER_SHARE)
            is_val = inner_val(labels, self.groups[train], share, [self.seed, repeat, fold])
            train, val = train[~is_val], train[is_val]
        return self.take(train), self.take(val), self.take(new)

    def take(self, index: np.ndarray) -> list[Record]:
        """The records of these indices."""
        return [self.records[i] for i in index.tolist()]


@dataclass(frozen=True)
class CrossValidated:
    """Out-of-fold predictions.

    Attributes:
        stages: Stage -> predictions of each repeat. The whole task's name is empty. Of a hard stage that a fold had no
            training records for every class has probability 0 there, and the first counts as predicted.
        k: Number of folds; some may hold no record of a hard stage.
        look_alikes: Classes whose mean F1 is reported too, of the whole task.
        warnings: What is unusual about folds and predictions.
        epochs: Stage of a network that chooses its epoch on val -> its number of epochs on all records: the median over
            the folds of the best epoch, with as many steps as in the fold.
    """

    stages: Mapping[str, Sequence[Predictions]]
    k: int
    look_alikes: Sequence[str]
    warnings: Sequence[str]
    epochs: Mapping[str, int]

    def averages(self, stage: str = "") -> dict[str, float | None]:
        """Every metric of a stage, and how much macro-F1 varies.

        Returns:
            Every metric: mean over the repeats of its value over all records of a repeat; None where it is undefined.
            ``macro_f1_std_repeats``: standard deviation of macro-F1 over repeats. ``macro_f1_std_folds``: standard
            deviation over the folds of each fold's macro-F1, mean over the repeats. None where there is one.
        """
        repeats = self.stages[stage]
        classes, y_true = list(repeats[0].classes), np.searchsorted(repeats[0].classes, repeats[0].y_true)
        # (repeats, folds, k, k): rows are the true classes
        matrices = np.zeros((len(repeats), self.k, len(classes), len(classes)))
        for matrix, predictions in zip(matrices, repeats, strict=True):
            np.add.at(matrix, (np.array(predictions.fold), y_true, predictions.probabilities.argmax(axis=1)), 1)
        pooled = evaluate(matrices.sum(axis=1), classes, () if stage else self.look_alikes)
        # A hard stage may have no record in some fold.
        by_fold = [macro_f1(matrix[matrix.any(axis=(1, 2))], classes) for matrix in matrices]
        spreads = [np.std(values, ddof=1) for values in by_fold if len(values) > 1]
        return {
            **{name: float(v.mean()) if np.isfinite(v).all() else None for name, v in pooled.items()},
            "macro_f1_std_repeats": float(np.std(pooled["macro_f1"], ddof=1)) if len(repeats) > 1 else None,
            "macro_f1_std_folds": float(np.mean(spreads)) if spreads else None,
        }

    def report(self, stage: str, *, seed: int) -> dict[str, Any]:
        """Every metric: `averages` over all repeats; intervals, matrix and calibration of the first repeat."""
        repeats, look_alikes = self.stages[stage], () if stage else self.look_alikes
        report = repeats[0].report(seed=seed, look_alikes=look_alikes, averages=self.averages(stage))
        return {**report, "k": self.k, "repeats": len(repeats)}

    def write(self, path: Path, name_of: Callable[[Record], str]) -> None:
        """Writes ``oof_predictions.csv`` of the whole task; repeats and folds count from 1."""
        write_predictions(path, dict(enumerate(self.stages[""], 1)), name_of, key="repeat")


def cross_validate(task: Task, folds: Folds) -> CrossValidated:
    """Fits the configured classifier in every fold and evaluates it on the records that it was not fitted to.

    All that learns from records is inside the fold: scaler, components, early stopping. Augmented views are made of the
    fold's training records; only originals are evaluated. A family that chooses on val gives up a part of the fold's
    training records for it; others are trained on all of them. Probabilities have temperature 1.
    """
    estimator = task.estimator()
    stage_labels = estimator.stage_labels(task.labels_of(folds.records))
    classes = {stage: np.array(sorted(set(y[rows])), dtype=object) for stage, (y, rows) in stage_labels.items()}
    shape = folds.number.shape
    probabilities = {stage: np.zeros((*shape, len(labels))) for stage, labels in classes.items()}
    settings = json.dumps([task.config.raw, task.dataset.fingerprint, folds.share], sort_keys=True)
    identity = hashlib.sha256(settings.encode()).hexdigest()
    epochs: dict[str, list[float]] = defaultdict(list)
    with progress("cross-validation", shape[0] * folds.k) as advance:
        for repeat, fold in np.ndindex(shape[0], folds.k):
            rows = np.flatnonzero(folds.number[repeat] == fold)
            outputs, best = _fold(task, estimator, folds, repeat, fold, identity)
            for stage, epoch in best:
                epochs[stage].append(epoch)
            for stage, output in outputs.items():
                columns = np.searchsorted(classes[stage], output.classes)
                probabilities[stage][repeat, rows[:, None], columns] = output.probabilities
            advance(1)
    stages = {
        stage: [
            Predictions(folds.take(rows), y[rows], classes[stage], p[rows], number[rows])
            for p, number in zip(probabilities[stage], folds.number, strict=True)
        ]
        for stage, (y, rows) in stage_labels.items()
    }
    warnings = [*folds.warnings, *never_predicted(stages, "cross-validation", _HINT)]
    rounded = {stage: max(1, round(float(np.median(values)))) for stage, values in epochs.items()}
    return CrossValidated(stages, folds.k, task.config.look_alikes, warnings, rounded)


def _fold(
    task: Task, estimator: ImageClassifier, folds: Folds, repeat: int, fold: int, identity: str
) -> tuple[dict[str, StageOutput], list[tuple[str, float]]]:
    """Outputs for the records of a fold by stage, from the run's folder if a killed run left it there, and epochs.

    The epochs are those on all records that have as many steps as the best epoch of a network of the fold.

    Only folds that have epochs are written: others take less time than a file. ``identity`` names the configuration and
    the data; the file of another one is ignored.
    """
    context = fit_context.current()
    name = f"{f'repeat {repeat + 1} ' if len(folds.number) > 1 else ''}fold {fold + 1}"
    stem = name.replace(" ", "_")
    path = None if context.folder is None else context.folder / f"{stem}.json"
    content = {} if path is None else read_json(path) or {}
    if content.get("identity") == identity:
        for stage, history in content["history"].items():
            context.on_epoch(stage, history)
        stages = {stage: StageOutput(*map(np.array, output)) for stage, output in content["outputs"].items()}
        return stages, _epochs(content["history"], name, content["share"])
    histories: dict[str, Sequence[Mapping[str, Any]]] = {}

    def on_epoch(stage: str, history: Sequence[Mapping[str, Any]]) -> None:
        histories[stage] = history
        context.on_epoch(stage, history)

    train, val, new = folds.split(repeat, fold, with_val=estimator.chooses_on_val)
    share = len(train) / len(folds.records)
    with fit_context.part(context.stage, stem, fold=name, on_epoch=on_epoch):
        stages = estimator.stages_out_of_fold(
            *task.training_set(train), task.dataset.images(val), task.labels_of(val), task.dataset.images(new)
        )
    if path is not None and histories:
        path.parent.mkdir(parents=True, exist_ok=True)
        outputs = {stage: [part.tolist() for part in output] for stage, output in stages.items()}
        write_json(path, {"identity": identity, "history": histories, "outputs": outputs, "share": share})
        # Checkpoints of a network are large, and this fold is finished.
        shutil.rmtree(path.with_suffix(""), ignore_errors=True)
    return stages, _epochs(histories, name, share)


def _epochs(histories: Mapping[str, Sequence[Mapping[str, Any]]], fold: str, share: float) -> list[tuple[str, float]]:
    """Stage and best epoch, times the fold's share of all records, of each network."""
    return [
        (re.sub(r" member \d+$", "", stage.removesuffix(fold).rstrip()), row["epoch"] * share)
        for stage, history in histories.items()
        for row in history
        if row["best"]
    ]

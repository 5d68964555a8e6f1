"""Cross-validation of a configuration: what models say of train and val records that they were not fitted to.

Test is never read here. Nothing is written either, but for finished folds of networks where a `fit_context` is open.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from spectro.classifiers import CascadeClassifier, ImageClassifier
from spectro.classifiers.base import StageOutput
from spectro.config.check import Config
from spectro.data import Dataset, Record, labels_of
from spectro.data.mapping import hard_stage_names
from spectro.data.splits import inner_val
from spectro.evaluation import calibration, score
from spectro.evaluation.metrics import applicable_metrics, evaluate, macro_f1
from spectro.progress import progress
from spectro.runs import task
from spectro.runs.fold_memory import remembered
from spectro.runs.fold_plan import Plan, plan

# An inner val is at most this part of a fold's training records, also where there are only two or three folds.
_INNER_SHARE = 4


@dataclass(frozen=True)
class OutOfFold:
    """What the folds' models say of the records of one task.

    Attributes:
        records: The records, ``n``.
        truth: Their labels, ``(n,)``.
        classes: The task's classes, sorted, ``(k,)``.
        folds: The fold that evaluated each record, from 0, ``(repeats, n)``.
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
        """Labels ``(repeats, n)``: those of the largest probabilities."""
        return self.classes[self._columns]

    @property
    def _columns(self) -> np.ndarray:
        return self.probabilities.argmax(axis=2)

    def averages(self) -> dict[str, float | None]:
        """The averages, and how much macro-F1 varies.

        Returns:
            Every metric: mean over the repeats of what all records of a repeat give together; None where it is
            undefined. ``macro_f1_std_repeats``: its standard deviation over repeats. ``macro_f1_std_folds``: the
            standard deviation over folds of each fold's own macro-F1, mean over the repeats. None where there is one.
        """
        k, (repeats, n) = len(self.classes), self.folds.shape
        # (repeats, folds, k, k): rows are the truth
        matrices = np.zeros((repeats, self.k, k, k))
        rows = np.broadcast_to(np.searchsorted(self.classes, self.truth), (repeats, n))
        np.add.at(matrices, (np.arange(repeats)[:, None], self.folds, rows, self._columns), 1)
        classes = list(self.classes)
        pooled = evaluate(matrices.sum(axis=1), classes, self.look_alikes)
        # A hard stage may have no record in some fold.
        by_fold = [macro_f1(own[own.any(axis=(1, 2))], classes) for own in matrices]
        spreads = [np.std(values, ddof=1) for values in by_fold if len(values) > 1]
        return {
            **{name: float(v.mean()) if np.isfinite(v).all() else None for name, v in pooled.items()},
            "macro_f1_std_repeats": float(np.std(pooled["macro_f1"], ddof=1)) if repeats > 1 else None,
            "macro_f1_std_folds": float(np.mean(spreads)) if spreads else None,
        }

    def report(self, seed: int) -> dict[str, Any]:
        """Every metric: `averages` over all repeats; intervals, matrix and calibration of the first one."""
        sources = [record.source for record in self.records]
        classes, look_alikes = list(self.classes), self.look_alikes
        first = score(self.truth, self.predicted[0], classes, sources=sources, seed=seed, look_alikes=look_alikes)
        calibrated = calibration(self.truth, self.probabilities[0], self.classes, seed=seed)
        means = self.averages()
        for name in (metric.name for metric in applicable_metrics(classes, look_alikes)):
            # The mean over repeats need not lie inside what the first repeat gives.
            if means[name] is not None and first[f"{name}_ci_low"] is not None:
                first[f"{name}_ci_low"] = min(first[f"{name}_ci_low"], means[name])
                first[f"{name}_ci_high"] = max(first[f"{name}_ci_high"], means[name])
        return {**first, **means, **calibrated, "k": self.k, "repeats": len(self.folds)}


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


def cross_validate(config: Config, dataset: Dataset, planned: Plan | None = None) -> CrossValidated:
    """Fits the configured classifier in every fold and asks it for the records that it was not fitted to.

    All that learns from records is inside the fold: scaler, components, early stopping. Augmented variants are made of
    the fold's training records; only originals are evaluated. A family that chooses on val gives up a part of the
    fold's training records for it; others are trained on all of them, and probabilities then have temperature 1.

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
    identity = hashlib.sha256(
        json.dumps([config.raw, dataset.fingerprint, planned.share], sort_keys=True).encode()
    ).hexdigest()
    with progress("cross-validation", shape[0] * planned.k) as advance:
        for repeat, number in np.ndindex(shape[0], planned.k):
            new = planned.folds[repeat] == number
            evaluate = partial(_evaluated, config, dataset, planned, estimator, repeat, number)
            name = f"{f'repeat {repeat + 1} ' if shape[0] > 1 else ''}fold {number + 1}"
            fold = remembered(name, identity, evaluate, is_first=repeat == number == 0)
            for task_name, said in fold.items():
                classes = tasks[task_name][1]
                columns = np.searchsorted(classes, said.classes)
                out[task_name][repeat, np.flatnonzero(new)[:, None], columns] = said.probabilities
            advance(1)
    found = {}
    for name, (labels, classes, own) in tasks.items():
        kept, k = planned.of(own), planned.k
        p, told = out[name][:, own], () if name else config.look_alikes
        found[name] = OutOfFold(kept, labels[own], classes, planned.folds[:, own], p, k, told)
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


def _tasks(
    config: Config, estimator: ImageClassifier, records: Sequence[Record], truth: np.ndarray
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


def _evaluated(
    config: Config, dataset: Dataset, planned: Plan, estimator: ImageClassifier, repeat: int, number: int
) -> dict[str, StageOutput]:
    """Fits the models of one fold and asks them."""
    train = planned.learned(repeat, number)
    val, new = train[:0], planned.of(np.flatnonzero(planned.folds[repeat] == number))
    if estimator.chooses_on_val:
        labels = labels_of(planned.of(train))
        share = max(planned.k, _INNER_SHARE)
        chosen = inner_val(labels, planned.groups[train], share, [planned.seed, repeat, number])
        train, val = train[~chosen], train[chosen]
    learned, chosen_on = (planned.of(own) for own in (train, val))
    X, y = task.training_set(config, dataset, learned)
    X_val, y_val = dataset.images(chosen_on), task.task_labels(config, chosen_on)
    X_new = dataset.images(new)
    return estimator.stages_out_of_fold(X, y, X_val, y_val, X_new)

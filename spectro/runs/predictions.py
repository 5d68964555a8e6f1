"""Predictions of a model for some records, and their tables."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spectro.data import Record
from spectro.errors import DataError
from spectro.evaluation import calibration, score
from spectro.files import read_csv, write_csv

# How far the sum of a record's probabilities may lie from 1: networks compute them in single precision.
_ROUNDING = 1e-4


@dataclass(frozen=True)
class Predictions:
    """Probabilities of the classes of a task for some records.

    Attributes:
        records: The records, ``n``.
        y_true: Their labels in the task, ``(n,)``; empty text where they are not known.
        classes: The classes of the task, sorted, ``(k,)``.
        probabilities: ``(n, k)``. A class without training records in a fold has probability 0 in that fold.
        fold: The fold whose model predicted each record, from 0, ``(n,)``; None where there are no folds.
    """

    records: Sequence[Record]
    y_true: np.ndarray
    classes: np.ndarray
    probabilities: np.ndarray
    fold: np.ndarray | None = None

    @property
    def predicted(self) -> np.ndarray:
        """The label of the largest probability of each record, ``(n,)``."""
        return self.classes[self.probabilities.argmax(axis=1)]

    @property
    def sources(self) -> list[str]:
        """The source of each record, ``n``."""
        return [record.source for record in self.records]

    def report(
        self, *, seed: int, look_alikes: Sequence[str] = (), averages: Mapping[str, float | None] | None = None
    ) -> dict[str, Any]:
        """Every metric with its interval, and the calibration of the probabilities.

        Args:
            seed: Seed of the bootstrap.
            look_alikes: Classes whose mean F1 is reported too.
            averages: Values in the place of those of the metrics, and further ones; intervals are widened to hold them.
        """
        classes = list(self.classes)
        scores = score(self.y_true, self.predicted, classes, sources=self.sources, seed=seed, look_alikes=look_alikes)
        for name, value in (averages or {}).items():
            scores[name], ends = value, (f"{name}_ci_low", f"{name}_ci_high")
            if value is not None and scores.get(ends[0]) is not None:
                scores[ends[0]], scores[ends[1]] = min(scores[ends[0]], value), max(scores[ends[1]], value)
        return {**scores, **calibration(self.y_true, self.probabilities, classes, seed=seed)}


def write_predictions(
    path: Path, groups: Mapping[Any, Predictions], name_of: Callable[[Record], str], *, key: str = "split"
) -> None:
    """Writes a table with a row for each record, with a column ``fold``, from 1, where there are folds.

    Args:
        path: The file.
        groups: Split or repeat, the column ``key`` -> predictions, all of the same classes.
        name_of: Record -> its path below the data set's folder.
        key: ``split`` or ``repeat``.
    """
    rows: list[list[Any]] = []
    for group, p in groups.items():
        folds = [[]] * len(p.records) if p.fold is None else [[fold + 1] for fold in p.fold.tolist()]
        for record, fold, label, predicted, row in zip(
            p.records, folds, p.y_true, p.predicted, p.probabilities, strict=True
        ):
            rows.append([group, *fold, name_of(record), record.source, label, predicted, *row])
    first = next(iter(groups.values()))
    columns = [key, *(["fold"] if first.fold is not None else []), "path", "source", "label", "predicted"]
    write_csv(path, [*columns, *(f"p_{label}" for label in first.classes)], rows)


def read_predictions(path: Path, key: str = "split") -> dict[str, Predictions]:
    """Reads what `write_predictions` has written; the paths of the records are relative.

    Returns:
        Split or repeat -> predictions, ordered as in the file.

    Raises:
        DataError: The file is damaged or does not exist.
    """
    groups: dict[str, list[dict[str, str]]] = {}
    try:
        for row in read_csv(path):
            groups.setdefault(row[key], []).append(row)
        return {group: _of_rows(rows) for group, rows in groups.items()}
    except KeyError as error:
        raise DataError(f"{path}: damaged; it has no column {error}") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: damaged or not there ({error})") from error


def _of_rows(rows: Sequence[Mapping[str, str]]) -> Predictions:
    classes = np.array([name.removeprefix("p_") for name in rows[0] if name.startswith("p_")], dtype=object)
    labels, predicted = (np.array([row[name] for row in rows], dtype=object) for name in ("label", "predicted"))
    probabilities = np.array([[float(row[f"p_{label}"]) for label in classes] for row in rows])
    if not np.isfinite(probabilities).all():
        raise ValueError("probabilities are NaN or infinite")
    if (probabilities < 0).any() or (abs(probabilities.sum(axis=1) - 1) > _ROUNDING).any():
        raise ValueError("probabilities are below 0, or do not sum to 1")
    if unknown := {*labels, *predicted} - set(classes):
        raise ValueError(f"labels without a column: {', '.join(sorted(unknown))}")
    records = [Record(Path(row["path"]), row.get("split", ""), "", row["source"], label=row["label"]) for row in rows]
    fold = np.array([int(row["fold"]) - 1 for row in rows]) if "fold" in rows[0] else None
    predictions = Predictions(records, labels, classes, probabilities, fold)
    if (predictions.predicted != predicted).any():
        raise ValueError("predicted is not the class of the largest probability")
    return predictions


def never_predicted(stages: Mapping[str, Sequence[Predictions]], where: str, hint: str) -> list[str]:
    """A line for each stage with classes that have records and are never predicted: the model may have degenerated.

    Args:
        stages: Stage -> predictions of the same records, one for each repeat. The whole task's name is empty.
        where: What was evaluated, such as ``val``.
        hint: What to try.
    """
    lines = []
    for stage, repeats in stages.items():
        y_true = repeats[0].y_true
        never = sorted(set(y_true).difference(*(predictions.predicted for predictions in repeats)))
        if never:
            model, n = f"stage {stage}" if stage else "the model", int(np.isin(y_true, never).sum())
            lines.append(
                f"{where}: {model} never predicts {' or '.join(never)}, the label of {n} of {len(y_true)}; {hint}"
            )
    return lines

"""Predictions of a model for some records, and their tables."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spectro.data import Record
from spectro.errors import DataError
from spectro.evaluation import calibration, score
from spectro.files import read_csv, write_csv


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

    def report(self, *, seed: int, look_alikes: Sequence[str] = ()) -> dict[str, Any]:
        """Every metric with its interval, and the calibration of the probabilities.

        Args:
            seed: Seed of the bootstrap.
            look_alikes: Classes whose mean F1 is reported too.
        """
        classes, sources = list(self.classes), self.sources
        return {
            **score(self.y_true, self.predicted, classes, sources=sources, seed=seed, look_alikes=look_alikes),
            **calibration(self.y_true, self.probabilities, self.classes, seed=seed),
        }

    def rows(self, name_of: Callable[[Record], str]) -> Iterator[list[Any]]:
        """The rows of a table: path, source, label, predicted label, probability of each class."""
        for record, label, predicted, row in zip(
            self.records, self.y_true, self.predicted, self.probabilities, strict=True
        ):
            yield [name_of(record), record.source, label, predicted, *row]


def write_predictions(path: Path, splits: Mapping[str, Predictions], name_of: Callable[[Record], str]) -> None:
    """Writes ``predictions.csv``: a row for each record of the splits.

    Args:
        path: The file.
        splits: Split -> predictions, all of the same classes.
        name_of: Record -> its path below the data set's folder.
    """
    classes = next(iter(splits.values())).classes
    rows = ([split, *row] for split, predictions in splits.items() for row in predictions.rows(name_of))
    write_csv(path, ["split", "path", "source", "label", "predicted", *(f"p_{c}" for c in classes)], rows)


def write_out_of_fold(path: Path, repeats: Sequence[Predictions], name_of: Callable[[Record], str]) -> None:
    """Writes ``oof_predictions.csv``: a row for each repeat and record; repeats and folds count from 1."""
    rows = (
        [repeat, int(fold) + 1, *row]
        for repeat, predictions in enumerate(repeats, start=1)
        for fold, row in zip(np.array(predictions.fold), predictions.rows(name_of), strict=True)
    )
    classes = repeats[0].classes
    write_csv(path, ["repeat", "fold", "path", "source", "label", "predicted", *(f"p_{c}" for c in classes)], rows)


def never_predicted(stages: Mapping[str, Sequence[Predictions]], where: str) -> list[str]:
    """A line for each stage with classes that have records and are never predicted: the model may have degenerated.

    Args:
        stages: Stage -> predictions of the same records, one for each repeat. The whole task's name is empty.
        where: What was evaluated, such as ``val``.
    """
    lines = []
    for stage, repeats in stages.items():
        y_true = repeats[0].y_true
        never = sorted(set(y_true).difference(*(predictions.predicted for predictions in repeats)))
        if never:
            model, n = f"stage {stage}" if stage else "the model", int(np.isin(y_true, never).sum())
            lines.append(f"{where}: {model} never predicts {' or '.join(never)}, the label of {n} of {len(y_true)}")
    return lines


def read_predictions(path: Path) -> dict[str, Predictions]:
    """Reads ``predictions.csv``: split -> predictions, ordered as in the file.

    Raises:
        DataError: The file is damaged or does not exist.
    """
    return _read(path, "split")


def read_out_of_fold(path: Path) -> list[Predictions]:
    """Reads ``oof_predictions.csv``: predictions of each repeat, with folds from 0.

    Raises:
        DataError: The file is damaged or does not exist.
    """
    return list(_read(path, "repeat").values())


def _read(path: Path, key: str) -> dict[str, Predictions]:
    """The groups of rows with an equal ``key``, in order; paths of the records are relative."""
    try:
        groups: dict[str, list[dict[str, str]]] = {}
        for row in read_csv(path):
            groups.setdefault(row[key], []).append(row)
        return {value: _of_rows(rows) for value, rows in groups.items()}
    except KeyError as error:
        raise DataError(f"{path}: damaged; it has no column {error}") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: damaged or not there ({error})") from error


def _of_rows(rows: Sequence[Mapping[str, str]]) -> Predictions:
    classes = np.array([name.removeprefix("p_") for name in rows[0] if name.startswith("p_")], dtype=object)
    probabilities = np.array([[float(row[f"p_{label}"]) for label in classes] for row in rows])
    if not np.isfinite(probabilities).all():
        raise ValueError("probabilities are NaN or infinite")
    unknown = {row[name] for row in rows for name in ("label", "predicted")} - set(classes)
    if unknown:
        raise ValueError(f"labels without a column: {', '.join(sorted(unknown))}")
    records = [Record(Path(row["path"]), row.get("split", ""), "", row["source"], label=row["label"]) for row in rows]
    fold = np.array([int(row["fold"]) - 1 for row in rows]) if "fold" in rows[0] else None
    return Predictions(records, np.array([row["label"] for row in rows], dtype=object), classes, probabilities, fold)

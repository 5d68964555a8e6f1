"""A run directory as a comparison reads it: who it is, and what it says of the records of one split."""

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from spectro.errors import DataError
from spectro.paths import short

MLFLOW_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Row:
    """A record that a run predicted: its path below the data's root, its source and its true label in the task."""

    path: str
    source: str
    label: str


@dataclass(frozen=True)
class Place:
    """Where ``records.csv`` puts a record: its split, its class and the SHA-256 of its file."""

    split: str
    label: str
    sha256: str


@dataclass(frozen=True)
class Run:
    """A finished run and its predictions of one split.

    Attributes:
        folder: Its directory.
        info: The content of its ``run.json``.
        classes: The classes of its task, ``k``.
        rows: The records of the split, ``n``, ordered by path.
        predicted: Their predicted labels, ``(n,)``.
        probabilities: ``(n, k)``.
        places: Every record of the run's data: path -> place.
    """

    folder: Path
    info: Mapping[str, Any]
    classes: tuple[str, ...]
    rows: tuple[Row, ...]
    predicted: np.ndarray
    probabilities: np.ndarray
    places: Mapping[str, Place]

    @property
    def origin(self) -> str:
        """Its directory, or its id if it was fetched from MLflow."""
        return f"MLflow run {self.folder.name}" if MLFLOW_ID.fullmatch(self.folder.name) else short(self.folder)

    @property
    def shown(self) -> str:
        """How it is named in messages."""
        return f"{self.origin} ({self.info.get('run_name', 'no name')})"

    @property
    def model(self) -> str:
        """The option of ``model``."""
        return str(self.info["config"]["model"]["name"])

    @property
    def stage(self) -> str:
        """``full``, ``easy``, ``hard`` or ``flat``."""
        return str(self.info["config"]["cascade_stage"]["name"])

    @property
    def seed(self) -> int:
        """Its seed."""
        return int(self.info["seed"])

    @property
    def fingerprint(self) -> str:
        """Names exactly its images, labels and splits."""
        return str(self.info["data"]["fingerprint"])

    @property
    def mapping(self) -> dict[str, Any]:
        """Its ``mapping`` without its name; what is not set is empty."""
        found = self.info["config"]["mapping"]
        return {
            "classes": found.get("classes") or {},
            "left_out": found.get("left_out") or [],
            "look_alikes": found.get("look_alikes") or {},
        }

    @cached_property
    def out_of_fold(self) -> "OutOfFold | None":
        """What it says of train and val out of fold; None without ``validation=kfold``.

        Raises:
            DataError: The file is damaged.
        """
        path = self.folder / "oof_predictions.csv"
        if not path.exists():
            return None
        rows = _table(path, ("repeat", "fold", "path", "label", "predicted"))
        try:
            folds = {(int(row["repeat"]), row["path"]): int(row["fold"]) for row in rows}
        except ValueError as error:
            raise DataError(f"{path}: damaged ({error})") from error
        return OutOfFold(folds, {(int(r["repeat"]), r["path"]): (r["label"], r["predicted"]) for r in rows})


@dataclass(frozen=True)
class OutOfFold:
    """Out-of-fold predictions: (repeat, path) -> fold, and -> (label, predicted)."""

    folds: Mapping[tuple[int, str], int]
    said: Mapping[tuple[int, str], tuple[str, str]]


def read_card(folder: Path) -> dict[str, Any]:
    """The content of a ``run.json``.

    Raises:
        DataError: It is not there, or damaged.
    """
    path = folder / "run.json"
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(info, dict):
            raise ValueError("not an object")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: damaged or not there ({error})") from error
    return info


def unusable(folder: Path, info: Mapping[str, Any]) -> str | None:
    """Why a run directory cannot be compared; None if it can."""
    tags = info.get("tags") or {}
    if tags.get("kind") == "comparison":
        return "a comparison and not a run"
    status = info.get("status")
    if status == "RUNNING":
        return "not finished (status RUNNING)"
    if status != "FINISHED":
        return f"not finished (status {status}{f', {reason}' if (reason := info.get('reason')) else ''})"
    if "trial" in tags and "final" not in tags:
        return "a trial of a search, which never reads test"
    if "model" not in (info.get("config") or {}) or "cascade_stage" not in info["config"]:
        return "a search and not a run: its final run lies in it"
    for name in ("predictions.csv", "records.csv"):
        if not (folder / name).is_file():
            return f"it has no {name}"
    return None


def read_run(folder: Path, split: str) -> Run:
    """Reads a run directory.

    Args:
        folder: A run directory that is not `unusable`.
        split: ``test`` or ``val``.

    Raises:
        DataError: A file is damaged, or the split has no records.
    """
    info = read_card(folder)
    path = folder / "predictions.csv"
    rows = [row for row in _table(path, ("split", "path", "source", "label", "predicted")) if row["split"] == split]
    if not rows:
        raise DataError(f"{path}: has no records of {split}; allowed: runs that predicted it")
    rows.sort(key=lambda row: row["path"])
    classes = tuple(key.removeprefix("p_") for key in rows[0] if key.startswith("p_"))
    try:
        probabilities = np.array([[float(row[f"p_{label}"]) for label in classes] for row in rows])
        if not np.isfinite(probabilities).all():
            raise ValueError("probabilities that are no numbers")
        strangers = {row[key] for row in rows for key in ("label", "predicted")} - set(classes)
        if strangers:
            raise ValueError(f"labels without a column: {', '.join(sorted(strangers))}")
        found = _table(folder / "records.csv", ("split", "path", "label", "sha256"))
        run = Run(
            folder=folder,
            info=info,
            classes=classes,
            rows=tuple(Row(row["path"], row["source"], row["label"]) for row in rows),
            predicted=np.array([row["predicted"] for row in rows], dtype=object),
            probabilities=probabilities,
            places={row["path"]: Place(row["split"], row["label"], row["sha256"]) for row in found},
        )
        _ = (run.model, run.stage, run.seed, run.fingerprint, run.mapping, info["experiment"], info["mlflow"].keys())
        _ = (float(info["started_at"]), info["data"]["name"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{folder}: damaged ({type(error).__name__}: {error})") from error
    return run


def _table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file that has these columns.

    Raises:
        DataError: It cannot be read, or lacks a column.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            names, rows = list(reader.fieldnames or ()), list(reader)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    missing = [name for name in columns if name not in names]
    if missing:
        raise DataError(f"{path}: damaged; it has no column {', '.join(missing)}")
    if any(None in row or None in row.values() for row in rows):
        raise DataError(f"{path}: damaged; rows differ in length")
    return rows

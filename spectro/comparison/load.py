"""Finished runs, from what a person names (folders, sweeps, MLflow runs), and whether they can be compared."""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from spectro.data import Record
from spectro.errors import DataError
from spectro.files import read_csv
from spectro.paths import short
from spectro.runs.predictions import Predictions, read_out_of_fold, read_predictions
from spectro.runs.runinfo import DataInfo, RunInfo

MLFLOW_ID = re.compile(r"[0-9a-f]{32}")
ATTRIBUTION = "figures/attribution_{split}.png"
_FILES = ("run.json", "predictions.csv", "records.csv", "oof_predictions.csv")


@dataclass(frozen=True)
class Run:
    """A finished run and its predictions of one split.

    Attributes:
        info: The content of its ``run.json``.
        data: Its data set.
        predictions: Its predictions of the split; records are ordered by path, paths are relative.
        records: Every record of its data set.
    """

    info: RunInfo
    data: DataInfo
    predictions: Predictions
    records: Sequence[Record]

    @property
    def is_fetched(self) -> bool:
        """Whether its files were fetched from MLflow."""
        return MLFLOW_ID.fullmatch(self.info.folder.name) is not None

    @property
    def origin(self) -> str:
        """Its directory, or its id if it was fetched from MLflow."""
        return f"MLflow run {self.info.folder.name}" if self.is_fetched else short(self.info.folder)

    @property
    def model(self) -> str:
        """The option of ``model``."""
        return str(self.info.config["model"]["name"])

    @property
    def stage(self) -> str:
        """``full``, ``easy``, ``hard`` or ``flat``."""
        return str(self.info.config["cascade_stage"]["name"])

    @property
    def seed(self) -> int:
        """Its seed."""
        return int(self.info.seed or 0)

    @property
    def look_alikes(self) -> dict[str, list[str]]:
        """The look-alike groups of its mapping: merged label -> classes."""
        return self.info.config["mapping"].get("look_alikes") or {}

    @cached_property
    def out_of_fold(self) -> list[Predictions]:
        """Its out-of-fold predictions of train and val, repeat by repeat; empty without ``validation=kfold``."""
        path = self.info.folder / "oof_predictions.csv"
        return read_out_of_fold(path) if path.exists() else []


def load_runs(
    names: Sequence[str],
    *,
    outputs: Path,
    scratch: Path,
    experiment: str | None = None,
    tracking_uri: str | None = None,
    split: str = "test",
) -> tuple[list[Run], list[str]]:
    """Reads comparable runs.

    A run that is named and cannot be compared is refused. One that only lies in a folder of several, or in an
    experiment, is left out with a note.

    Args:
        names: Run directories, folders of them (a sweep's, a multirun's, ``outputs/runs``), MLflow run ids, or names
            of folders in ``outputs/runs``.
        outputs: The folder that holds ``runs/``, ``sweeps/`` and ``mlflow.db``.
        scratch: An empty folder for files of runs that only MLflow has.
        experiment: An MLflow experiment: all its runs.
        tracking_uri: The MLflow store; that of ``outputs`` by default.
        split: The split that will be compared.

    Returns:
        The runs in the order in which they were named, and notes on those that were left out.

    Raises:
        SpectroError: Something that is not a run, runs that cannot be compared, or no run at all.
    """
    uri = tracking_uri or f"sqlite:///{(outputs / 'mlflow.db').absolute()}"
    folders: list[Path] = []
    notes: list[str] = []
    for name in names:
        _take(_named(name, outputs, scratch, uri, split), name, folders, notes)
    if experiment is not None:
        found = _from_mlflow(outputs, scratch, uri, split, experiment=experiment)
        _take(found, f"experiment {experiment}", folders, notes)
    if not folders:
        raise DataError("\n".join(["got no run that can be compared; allowed: finished runs", *notes]))
    runs = [_read(folder, split) for folder in folders]
    check_comparable(runs, split)
    return runs, notes


def check_comparable(runs: Sequence[Run], split: str) -> None:
    """Refuses runs of other records, labels or classes.

    Raises:
        DataError: Names what differs, the values, and the runs that have them.
    """
    tasks = [_task(run, split) for run in runs]
    for name in tasks[0]:
        groups: dict[str, list[int]] = {}
        for i, task in enumerate(tasks):
            groups.setdefault(json.dumps(task[name]), []).append(i)
        if len(groups) == 1:
            continue
        lines = [f"runs that cannot be compared: {name} differ"]
        for members in groups.values():
            value = tasks[members[0]][name]
            shown = f"{len(value)} records" if isinstance(value, list) and len(value) > 4 else json.dumps(value)
            lines.append(f"  got {shown} in {_listed([runs[i].origin for i in members])}")
        if name == "the splits":
            lines.append(f"  {_other_split(*(runs[members[0]] for members in list(groups.values())[:2]))}")
        raise DataError("\n".join([*lines, "  allowed: runs that agree in it"]))


def _task(run: Run, split: str) -> dict[str, Any]:
    """What comparable runs have in common. Records by content, as their paths may hold the name of a split."""
    mapping, predictions = run.info.config["mapping"], run.predictions
    predicted = zip(predictions.records, predictions.y_true, strict=True)
    return {
        **{f"mapping.{key}": mapping.get(key) or None for key in ("classes", "left_out", "look_alikes")},
        "the files of the data (by SHA-256)": sorted(record.digest for record in run.records),
        "the splits": sorted((record.digest, record.split) for record in run.records),
        "the classes of records": sorted((record.digest, record.label) for record in run.records),
        "data fingerprints": run.data.fingerprint,
        "the classes of the task": ", ".join(predictions.classes),
        f"the predicted records of {split}": [(str(record.path), str(label)) for record, label in predicted],
    }


def _named(name: str, outputs: Path, scratch: Path, uri: str, split: str) -> list[Path]:
    """The run directories that a name stands for: a folder, a folder in ``outputs/runs``, or an MLflow run id."""
    for path in (Path(name).expanduser(), outputs / "runs" / name) if name and "\0" not in name else ():
        if path.is_dir():
            several = sorted((file.parent for file in path.glob("*/run.json")), key=_by_number)
            is_run = (path / "run.json").is_file()
            if not is_run and not several:
                raise DataError(f"{path}: not a run directory; allowed: a folder with run.json, or a folder of such")
            # The folder of a search is a run, too, but only its trials and its final run can be compared.
            return [path] if is_run and (not several or _unusable(path) is None) else several
    if MLFLOW_ID.fullmatch(name):
        return _from_mlflow(outputs, scratch, uri, split, run_id=name)
    raise DataError(
        f"got {name!r}; allowed: a run directory, a sweep's folder, or the id of an MLflow run (32 letters and digits)"
    )


def _from_mlflow(
    outputs: Path, scratch: Path, uri: str, split: str, *, run_id: str | None = None, experiment: str | None = None
) -> list[Path]:
    """Runs of MLflow: their directories where they still exist, else copies of their files."""
    from spectro.tracking.lookup import download, find_runs

    local = {}
    for path in sorted(path for pattern in ("runs/*", "sweeps/*", "sweeps/*/*") for path in outputs.glob(pattern)):
        with suppress(DataError):
            local[RunInfo.read(path).mlflow.run_id] = path
    if run_id in local:
        return [local[run_id]]
    return [
        local.get(entry.run_id) or download(uri, entry.run_id, [*_FILES, ATTRIBUTION.format(split=split)], scratch)
        for entry in find_runs(uri, [run_id] if run_id else [], experiment)
        if entry.tags.get("kind") != "comparison"
    ]


def _take(found: Sequence[Path], name: str, folders: list[Path], notes: list[str]) -> None:
    """Adds run directories to ``folders``, and why others cannot be compared to ``notes``.

    Raises:
        DataError: A single run that cannot be compared.
    """
    unusable: dict[str, list[str]] = {}
    for folder in found:
        if (reason := _unusable(folder)) is not None:
            if len(found) == 1:
                raise DataError(f"{folder}: {reason}; allowed: finished runs")
            unusable.setdefault(reason, []).append(folder.name)
        elif folder.resolve() in {known.resolve() for known in folders}:
            notes.append(f"{short(folder)} was named twice and counts once")
        else:
            folders.append(folder)
    notes += [f"left out of {name}: {_listed(members)}: {reason}" for reason, members in unusable.items()]


def _unusable(folder: Path) -> str | None:
    """Why a run directory cannot be compared; None if it can."""
    if not (folder / "run.json").is_file():
        return "it has no run.json"
    info = RunInfo.read(folder)
    if info.tags.get("kind") == "comparison":
        return "a comparison and not a run"
    if info.status != "FINISHED":
        return f"not finished (status {info.status}{f', {info.reason}' if info.reason else ''})"
    if "trial" in info.tags and "final" not in info.tags:
        return "a trial of a search, which never reads test"
    if not {"model", "cascade_stage"} <= info.config.keys():
        return "a search and not a run: its final run is in it"
    missing = [name for name in ("predictions.csv", "records.csv") if not (folder / name).is_file()]
    return f"it has no {missing[0]}" if missing else None


def _read(folder: Path, split: str) -> Run:
    """Reads a run directory that is not unusable."""
    info, path = RunInfo.read(folder), folder / "records.csv"
    predictions = read_predictions(folder / "predictions.csv").get(split)
    if predictions is None:
        raise DataError(f"{folder / 'predictions.csv'}: has no records of {split}; allowed: runs that predicted it")
    try:
        records = [
            Record(Path(row["path"]), row["split"], row["folder"], row["source"], row["sha256"], row["label"])
            for row in read_csv(path)
        ]
    except (KeyError, OSError, ValueError) as error:
        raise DataError(f"{path}: damaged ({type(error).__name__}: {error})") from error
    if info.data is None:
        raise DataError(f"{folder / 'run.json'}: damaged; it has no data")
    order = sorted(range(len(predictions.records)), key=lambda i: str(predictions.records[i].path))
    ordered = replace(
        predictions,
        records=[predictions.records[i] for i in order],
        y_true=predictions.y_true[order],
        probabilities=predictions.probabilities[order],
    )
    return Run(info, info.data, ordered, records)


def _other_split(run: Run, other: Run) -> str:
    """A record that two runs have in different splits."""
    splits: Mapping[str, str] = {record.digest: record.split for record in other.records}
    for record in run.records:
        if splits[record.digest] != record.split:
            return f"e.g. {record.path} is in {record.split} of the first and in {splits[record.digest]} of the second"
    return ""


def _listed(names: Sequence[str], limit: int = 4) -> str:
    """Names with commas between them, of many only the first."""
    more = len(names) - limit
    return ", ".join(names) if more <= 1 else f"{', '.join(names[:limit])} and {more} more"


def _by_number(folder: Path) -> tuple[int, str]:
    """Jobs of a sweep by their number, then the rest by name."""
    return (int(folder.name), "") if folder.name.isdecimal() else (1 << 60, folder.name)

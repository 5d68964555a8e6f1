"""Finished runs, from what a person names (folders, sweeps, MLflow runs), and whether they can be compared."""

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from spectro.data import Record
from spectro.errors import DataError
from spectro.files import read_csv
from spectro.paths import mlflow_database, short
from spectro.runs.predictions import Predictions, read_predictions
from spectro.runs.runinfo import DataInfo, RunInfo
from spectro.tracking import MLFLOW_ID

_FILES = ("run.json", "predictions.csv", "records.csv", "oof_predictions.csv")


@dataclass(frozen=True)
class Run:
    """A finished run and its predictions of one split.

    Attributes:
        info: The content of its ``run.json``.
        predictions: Its predictions of the split; for ``cv`` those out of fold, of the first repeat. Records are
            ordered by path, paths are relative.
        out_of_fold: Predictions of train and val, repeat by repeat; empty without ``validation=kfold``.
    """

    info: RunInfo
    data: DataInfo
    predictions: Predictions
    records: Sequence[Record]
    out_of_fold: list[Predictions] = field(default_factory=list)

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
    def seed(self) -> int:
        """Its seed."""
        return int(self.info.seed or 0)

    @property
    def is_refit(self) -> bool:
        """Whether its model was fitted to train and val; runs of before there was a choice were not."""
        return bool(self.info.config.get("validation", {}).get("refit"))

    @property
    def look_alikes(self) -> dict[str, list[str]]:
        """The look-alike groups of its mapping: merged label -> classes."""
        return self.info.config["mapping"].get("look_alikes") or {}

    def task(self, split: str) -> dict[str, Any]:
        """What comparable runs have in common: the records, their labels, and the classes that are predicted."""
        predictions = self.predictions
        predicted = zip((str(record.path) for record in predictions.records), map(str, predictions.y_true), strict=True)
        return {
            # By content, as their paths may hold the name of a split.
            "the files, splits or classes of the data": {(r.digest, r.split, r.label) for r in self.records},
            "data fingerprints": self.data.fingerprint,
            "the classes of the task": list(predictions.classes),
            f"the predicted records of {split}": set(predicted),
        }


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
    experiment, is left out with a note: there the runs count that have the records and classes of those that are named,
    or else of most (of the newest, if several sets are equally frequent).

    Args:
        names: Run directories, folders of them (a sweep's, a multirun's, ``outputs/runs``) or of sweeps, ``outputs``
            with all of both, MLflow run ids, or names of folders in ``outputs/runs``.
        outputs: The folder that holds ``runs/``, ``sweeps/`` and ``mlflow.db``.
        scratch: An empty folder for files of runs that only MLflow has.
        tracking_uri: The MLflow store; that of ``outputs`` by default.
        split: The split that will be compared; ``cv``: train and val, out of fold.

    Returns:
        The runs in the order in which they were named, and notes on those that were left out.

    Raises:
        SpectroError: Something that is not a run, runs that cannot be compared, or no run at all.
    """
    uri = tracking_uri or mlflow_database(outputs)
    of_mlflow = partial(_of_mlflow, outputs, scratch, uri)
    named = [(name, _folders(name, outputs) or of_mlflow([name])) for name in names]
    if experiment is not None:
        named.append((f"experiment {experiment}", of_mlflow([], experiment)))
    runs: dict[Path, Run] = {}
    place_of: dict[Path, str] = {}
    notes: list[str] = []
    unusable: dict[tuple[str, str], list[str]] = {}
    for name, folders in named:
        for folder in folders:
            if folder.resolve() in runs:
                # Named outright, it is not one of a folder that may be left out.
                place_of[folder.resolve()] = "" if len(folders) == 1 else place_of[folder.resolve()]
                notes.append(f"{short(folder)} was named twice and counts once")
                continue
            try:
                runs[folder.resolve()] = read_run(folder, split)
                place_of[folder.resolve()] = name if len(folders) > 1 else ""
            except DataError as error:
                if len(folders) == 1:
                    raise DataError(f"{folder}: {error}; allowed: finished runs") from error
                unusable.setdefault((name, str(error)), []).append(_folder_name(folder))
    chosen = [run for path, run in runs.items() if not place_of[path]]
    check_comparable(chosen, split)
    if runs and not chosen:
        counts = Counter(_key(run, split) for run in runs.values())
        chosen = [max(runs.values(), key=lambda run: (counts[_key(run, split)], run.info.started_at))]
    for path, run in list(runs.items()):
        if different := _differences(run, chosen[0], split):
            unusable.setdefault((place_of[path], different[0][0]), []).append(_folder_name(path))
            del runs[path]
    for (name, reason), members in unusable.items():
        more = f" and {len(members) - 4} more" if len(members) > 4 else ""
        notes.append(f"left out of {name}: {', '.join(members[:4])}{more}: {reason}")
    if not runs:
        raise DataError("\n".join(["got no run that can be compared; allowed: finished runs", *notes]))
    return list(runs.values()), notes


def _folders(name: str, outputs: Path) -> list[Path]:
    """The run directories in a folder, or in a folder of ``outputs/runs``; none for the id of an MLflow run."""
    for path in (Path(name).expanduser(), outputs / "runs" / name) if name and "\0" not in name else ():
        if path.is_dir():
            # The folder of a search is a run, too, but only its trials and its final run can be compared.
            places = (path, path / "runs", path / "sweeps")  # those of outputs
            inside = [run for place in places for folder in _runs_in(place) for run in _runs_in(folder) or [folder]]
            if not inside and not (path / "run.json").is_file():
                raise DataError(f"{path}: not a run directory; allowed: a folder with run.json, or a folder of such")
            # Jobs of a sweep by their number, then the rest by name.
            return sorted(inside, key=lambda p: (not p.name.isdecimal(), p.name.zfill(9))) or [path]
    if MLFLOW_ID.fullmatch(name):
        return []
    raise DataError(
        f"got {name!r}; allowed: a run directory, a sweep's folder, or the id of an MLflow run (32 letters and digits)"
    )


def _folder_name(folder: Path) -> str:
    """The name of a run's folder, with that of its sweep, as jobs and trials are numbered."""
    return "/".join(folder.parts[-2 if (folder.parent / "run.json").is_file() else -1 :])


def _runs_in(folder: Path) -> list[Path]:
    return [file.parent for file in folder.glob("*/run.json")]


def _of_mlflow(outputs: Path, scratch: Path, uri: str, ids: Sequence[str], experiment: str | None = None) -> list[Path]:
    """Runs of MLflow: their directories where they still exist, else copies of their files."""
    from spectro.tracking.lookup import download, find_runs

    local = {}
    for path in (path for pattern in ("runs/*", "sweeps/*", "sweeps/*/*") for path in sorted(outputs.glob(pattern))):
        with suppress(DataError):
            local[RunInfo.read(path).mlflow.run_id] = path
    if ids and local.keys() >= set(ids):
        return [folder for run_id in ids for folder in _folders(str(local[run_id]), outputs)]
    return [
        local.get(found_id) or download(uri, found_id, _FILES, scratch)
        for found_id, tags in find_runs(uri, ids, experiment).items()
        if tags.get("kind") != "comparison"
    ]


def read_run(folder: Path, split: str) -> Run:
    """Reads a run directory.

    Raises:
        DataError: The run is damaged, or cannot be compared.
    """
    if not (folder / "run.json").is_file():
        raise DataError("it has no run.json")
    info = RunInfo.read(folder)
    if info.status != "FINISHED":
        raise DataError(f"not finished (status {info.status}{f', {info.reason}' if info.reason else ''})")
    if "trial" in info.tags and "final" not in info.tags:
        raise DataError("a trial of a search, which never reads test")
    if info.data is None or not {"model", "cascade_stage"} <= info.config.keys():
        raise DataError("a comparison or a search and not a run")
    if info.config.get("seed", info.seed) != info.seed:
        raise DataError(f"run.json: damaged: got seed {info.seed}, and {info.config['seed']} in config")
    if not MLFLOW_ID.fullmatch(folder.name):
        info.check_files()  # of a run that only MLflow has no metrics are fetched
    tables, out_of_fold = read_predictions(folder / "predictions.csv"), folder / "oof_predictions.csv"
    folds = read_predictions(out_of_fold, "repeat") if out_of_fold.exists() else {}
    predictions = next(iter(folds.values()), None) if split == "cv" else tables.get(split)
    if predictions is None:
        if split == "cv":
            raise DataError("it was not cross-validated (validation=kfold)")
        hint = " (its model is fitted to train and val: validation.refit)" if split == "val" else ""
        raise DataError(f"predictions.csv has no records of {split}{hint}")
    try:
        records = [
            Record(Path(row["path"]), row["split"], row["folder"], row["source"], row["sha256"], row["label"])
            for row in read_csv(folder / "records.csv")
        ]
        if not records:
            raise ValueError("no records")
    except (KeyError, OSError, ValueError) as error:
        raise DataError(f"records.csv: damaged or not there ({type(error).__name__}: {error})") from error
    mapping = info.config["mapping"] if info.config["cascade_stage"]["name"] == "easy" else {}
    group_of = {label: group for group, labels in (mapping.get("look_alikes") or {}).items() for label in labels}
    expected = {str(r.path): (r.split, r.source, group_of.get(r.label, r.label)) for r in records}
    for r in (r for table in (*tables.values(), *folds.values()) for r in table.records):
        in_split, *others = expected.get(str(r.path), ("",))
        # The table of those out of fold does not tell train and val apart.
        if [r.source, r.label] != others or r.split not in ("", in_split):
            raise DataError(f"{r.path} has another label, source or split in the predictions than in records.csv")
    return Run(info, info.data, by_path(predictions), records, list(folds.values()))


def by_path(predictions: Predictions) -> Predictions:
    """The same predictions, ordered by the paths of their records."""
    order = sorted(range(len(predictions.records)), key=lambda i: str(predictions.records[i].path))
    return replace(
        predictions,
        records=[predictions.records[i] for i in order],
        y_true=predictions.y_true[order],
        probabilities=predictions.probabilities[order],
        fold=None if predictions.fold is None else predictions.fold[order],
    )


def check_comparable(runs: Sequence[Run], split: str) -> None:
    """Refuses runs of other records, labels or classes, with both values and their runs."""
    for run in runs[1:]:
        for reason, first, value in _differences(run, runs[0], split):
            got = [_shown(runs[0], first, value), _shown(run, value, first)]
            raise DataError(
                "\n".join([f"runs that cannot be compared: {reason}", *got, "  allowed: runs that agree in it"])
            )


def _differences(run: Run, other: Run, split: str) -> list[tuple[str, Any, Any]]:
    """In what a run's task differs from another's: the reason, the other's value and the run's."""
    task, first = run.task(split), other.task(split)
    return [(f"{key} differ", first[key], value) for key, value in task.items() if value != first[key]]


def _key(run: Run, split: str) -> str:
    return json.dumps([sorted(v) if isinstance(v, set) else v for v in run.task(split).values()])


def _shown(run: Run, value: Any, other: Any) -> str:
    """A line with a value; of records their number, and one that the other run lacks or has otherwise."""
    if isinstance(value, set):
        path_of = {record.digest: str(record.path) for record in run.records}
        lines = sorted(f"{path_of.get(key, key)} in {', '.join(rest)}" for key, *rest in value - other)
        text = f"{len(value)} records" + (f", such as {lines[0]}," if lines else "")
    else:
        text = json.dumps(value)
    return f"  got {text} in {run.origin}"

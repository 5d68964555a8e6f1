"""From what a person names to run directories: folders, sweeps, MLflow ids, an experiment."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spectro.comparison.runs import MLFLOW_ID, read_card, unusable
from spectro.errors import DataError
from spectro.paths import short

_FILES = ("run.json", "predictions.csv", "records.csv", "oof_predictions.csv")
ATTRIBUTION = "figures/attribution_{split}.png"


@dataclass
class Gathered:
    """Run directories, in the order in which they were named, and what a person should know of how they came here."""

    folders: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, folder: Path) -> None:
        """Takes a run directory, once."""
        if any(folder.resolve() == known.resolve() for known in self.folders):
            self.notes.append(f"{short(folder)} was named twice and counts once")
        else:
            self.folders.append(folder)


def gather(
    names: Sequence[str],
    *,
    outputs: Path,
    scratch: Path,
    experiment: str | None = None,
    tracking_uri: str | None = None,
    split: str = "test",
) -> Gathered:
    """The run directories that are meant.

    A run that is named and cannot be compared is refused. One that only lies in a folder of several, or in an
    experiment, is left out with a note.

    Args:
        names: Run directories, folders of them (a sweep's, a multirun's, ``outputs/runs``), MLflow run ids, or names
            of folders in ``outputs/runs``.
        outputs: The folder that holds ``runs/``, ``sweeps/`` and ``mlflow.db``.
        scratch: An empty folder for runs that are in MLflow only.
        experiment: An MLflow experiment: all its runs.
        tracking_uri: The MLflow store; that of ``outputs`` by default.
        split: The split that will be compared.

    Raises:
        SpectroError: Something that is not a run, a run that cannot be compared, or nothing at all.
    """
    got = Gathered()
    uri = tracking_uri or f"sqlite:///{(outputs / 'mlflow.db').absolute()}"
    for name in names:
        path = _path_of(name, outputs)
        if path is not None:
            _from_folder(path, got)
        elif MLFLOW_ID.fullmatch(name):
            here = _here(outputs).get(name)
            if here is not None and (here / "predictions.csv").exists():
                _from_folder(here, got)
            else:
                _from_mlflow(got, uri, outputs, scratch, split, ids=[name])
        else:
            raise DataError(
                f"got {name!r}; allowed: a run directory, a sweep's folder, or the id of an MLflow run (32 letters "
                "and digits)"
            )
    if experiment is not None:
        _from_mlflow(got, uri, outputs, scratch, split, experiment=experiment)
    if not got.folders:
        raise DataError("\n".join(["found no run that can be compared; allowed: finished runs", *got.notes]))
    return got


def _path_of(name: str, outputs: Path) -> Path | None:
    """The folder that a name means; None if there is none."""
    path = Path(name).expanduser()
    if not name:
        return None
    try:
        if path.is_file():
            raise DataError(f"found the file {name}; allowed: a run directory, which holds run.json")
        if path.is_dir():
            return path
        below = outputs / "runs" / name
        return below if below.is_dir() else None
    except (OSError, ValueError):
        return None


def _from_folder(path: Path, got: Gathered) -> None:
    """Takes a run, or the runs of a folder of several."""
    own = (path / "run.json").is_file()
    if own:
        info = read_card(path)
        reason = unusable(path, info)
        if reason is None:
            got.add(path)
            return
    several = sorted((inner.parent for inner in path.glob("*/run.json")), key=_by_number)
    if own and not several:
        raise DataError(f"{path}: {reason}; allowed: finished runs")
    if not several:
        raise DataError(f"{path}: not a run directory; allowed: a folder that holds run.json, or folders that do")
    left_out: list[tuple[str, str]] = []
    for folder in several:
        reason = unusable(folder, read_card(folder))
        if reason is None:
            got.add(folder)
        else:
            left_out.append((folder.name, reason))
    got.notes += _left_out(left_out, f" of {short(path)}")
    if len(left_out) == len(several):
        raise DataError("\n".join([f"{path}: holds no run that can be compared; allowed: finished runs", *got.notes]))


def _from_mlflow(
    got: Gathered,
    uri: str,
    outputs: Path,
    scratch: Path,
    split: str,
    *,
    ids: Sequence[str] = (),
    experiment: str | None = None,
) -> None:
    """Takes runs that MLflow knows: their directories if they are here, else copies of their files."""
    from spectro.tracking.lookup import download, find_runs

    here = _here(outputs)
    left_out = []
    for found in find_runs(uri, ids, experiment):
        if found.tags.get("kind") == "comparison":
            continue
        folder = here.get(found.run_id)
        if folder is None or not folder.is_dir():
            folder = download(uri, found.run_id, [*_FILES, ATTRIBUTION.format(split=split)], scratch)
        reason = unusable(folder, read_card(folder)) if (folder / "run.json").exists() else "MLflow has no files of it"
        if reason is None:
            got.add(folder)
        elif experiment is None and len(ids) == 1 and found.run_id == ids[0]:
            raise DataError(f"MLflow run {found.run_id} ({found.name}): {reason}; allowed: finished runs")
        else:
            left_out.append((found.name, reason))
    got.notes += _left_out(left_out, f" of experiment {experiment}" if experiment else "")


def _here(outputs: Path) -> dict[str, Path]:
    """MLflow run id -> run directory, of the directories below ``outputs``."""
    found = {}
    for folder in _all_runs(outputs):
        try:
            run_id = read_card(folder)["mlflow"]["run_id"]
        except (DataError, KeyError, TypeError):
            continue
        if run_id:
            found[str(run_id)] = folder
    return found


def _all_runs(outputs: Path) -> Iterator[Path]:
    for pattern in ("runs/*", "sweeps/*", "sweeps/*/*"):
        yield from (path.parent for path in sorted(outputs.glob(f"{pattern}/run.json")))


def _left_out(found: Iterable[tuple[str, str]], where: str) -> list[str]:
    """One line for each reason."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in found:
        by_reason.setdefault(reason, []).append(name)
    return [f"left out{where}: {listed(names)}: {reason}" for reason, names in by_reason.items()]


def listed(names: Sequence[str], most: int = 4) -> str:
    """Names with commas between them, of many only the first."""
    more = len(names) - most
    return ", ".join(names) if more <= 1 else f"{', '.join(names[:most])} and {more} more"


def _by_number(folder: Path) -> tuple[int, str]:
    """Jobs of a sweep by their number, then the rest by name."""
    return (int(folder.name), "") if folder.name.isdecimal() else (1 << 60, folder.name)

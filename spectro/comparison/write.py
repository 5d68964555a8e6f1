"""The folder of a comparison: tables, figures, one page, and a ``run.json`` by which it goes to MLflow like a run."""

import re
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from spectro import interrupt
from spectro.comparison.figures import draw
from spectro.comparison.references import Images, thumbnails
from spectro.comparison.report import page, shown_wrong
from spectro.comparison.result import Result
from spectro.comparison.tables import csv_table, markdown
from spectro.errors import ConfigError
from spectro.files import write_csv, write_json, write_text
from spectro.runs.runinfo import DataInfo, RunInfo, git_commit
from spectro.tracking import MlflowEntry


def check_out(out: Path | None) -> None:
    """Refuses a folder that holds something.

    Raises:
        ConfigError: It is not a new or an empty folder.
    """
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out: got {str(out)!r}, which is in use; allowed: a new or an empty folder")


def write(
    result: Result,
    images: Images,
    *,
    outputs: Path,
    out: Path | None,
    tracking_uri: str | None,
    started_at: float,
    seed: int,
) -> Path:
    """Writes a comparison and sends it to MLflow; a store that is away costs a warning.

    Args:
        result: What was found.
        images: The data set, for images of records.
        outputs: The folder that gets ``comparison/``.
        out: The folder to write to; None for a new one.
        tracking_uri: The MLflow store; that of the first run that has one if None.
        started_at: When the comparison was started, Unix seconds.
        seed: Seed of the bootstraps.

    Returns:
        The folder.

    Raises:
        ConfigError: The folder cannot be made.
    """
    try:
        folder = _make(out, outputs, result, started_at)
    except OSError as error:
        raise ConfigError(f"cannot write to {str(out or outputs)!r} ({error.strerror})") from error
    info = _card(folder, result, outputs, tracking_uri, started_at, seed)
    info.write()
    try:
        header, rows = csv_table(result)
        write_csv(folder / "table.csv", header, rows)
        write_text(folder / "table.md", markdown(result))
        write_json(folder / "comparison.json", result.as_json())
        figures = draw(result, folder / "figures")
        shown = thumbnails(images, [one.path for one in shown_wrong(result)])
        write_text(folder / "report.html", page(result, figures, shown, images.reason, info.content()))
    except BaseException as error:
        info.end("KILLED" if interrupt.caused(error) else "FAILED", f"{type(error).__name__}: {error}")
        raise
    info.end("FINISHED")
    info.send_to_mlflow()
    return folder


def _make(out: Path | None, outputs: Path, result: Result, started_at: float) -> Path:
    """The folder, which nobody has: a second comparison of the same second gets ``name_2``."""
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        return out
    names = "_".join(one.name for one in result.models) or "comparison"
    slug = re.sub(r"[^\w.=-]+", "_", names).strip("_")[:60]
    wanted = f"{datetime.fromtimestamp(started_at):%Y-%m-%d_%H-%M-%S}_{slug}"
    number = 1
    while True:
        folder = outputs / "comparison" / (wanted if number == 1 else f"{wanted}_{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
            continue
        return folder


def _card(
    folder: Path, result: Result, outputs: Path, tracking_uri: str | None, started_at: float, seed: int
) -> RunInfo:
    first = result.runs[0]
    known = (run.info["mlflow"] for run in result.runs if run.info["mlflow"].get("tracking_uri"))
    entry = next(known, None)
    if tracking_uri is not None:
        entry = asdict(MlflowEntry.new(tracking_uri, outputs))
    elif entry is None:
        entry = asdict(MlflowEntry.new(None, outputs))
    commit = git_commit(Path(__file__).parent)
    names = ", ".join(one.name for one in result.models)
    return RunInfo.start(
        folder,
        run_name=f"comparison of {names}",
        experiment=str(first.info["experiment"]),
        tags={
            "kind": "comparison",
            "mlflow.source.name": "compare.py",
            "mapping": str((first.info.get("tags") or {}).get("mapping", first.info["experiment"])),
            "data_fingerprint": first.fingerprint,
            "git_commit": commit or "unknown",
        },
        config={"split": result.split, "seed": seed, "runs": [run.origin for run in result.runs]},
        seed=seed,
        git_commit=commit,
        data=DataInfo(**first.info["data"]),
        mlflow=MlflowEntry(tracking_uri=entry["tracking_uri"], artifact_location=entry.get("artifact_location")),
        started_at=started_at,
    )

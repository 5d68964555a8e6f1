"""Which of several runs is the best, how certain that is, and what they cost: `compare` and its report."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from spectro import interrupt
from spectro.comparison.load import Run, load_runs
from spectro.comparison.models import PIXELS, load_task, majority_baseline, models_of, pixels_baseline
from spectro.comparison.statistics import Result, compute
from spectro.errors import ConfigError, DataError
from spectro.files import write_csv, write_json, write_text
from spectro.paths import new_folder
from spectro.plugins import load_plugins
from spectro.progress import status
from spectro.runs.runinfo import RunInfo, git_commit
from spectro.runs.task import Task
from spectro.tracking import MlflowEntry

__all__ = ["Result", "compare"]


def compare(
    names: Sequence[str | Path],
    *,
    outputs: Path | str = "outputs",
    experiment: str | None = None,
    tracking_uri: str | None = None,
    split: str = "test",
    out: Path | str | None = None,
    seed: int = 0,
) -> tuple[Result, Path]:
    """Compares runs, writes the report and sends it to MLflow.

    Args:
        names: Run directories, folders of several, MLflow run ids.
        outputs: The folder that holds the runs, and gets ``comparison/``.
        experiment: An MLflow experiment, all its runs.
        tracking_uri: The MLflow store of ids, experiment and the comparison; by default that of ``outputs`` for the
            first two, and that of the runs for the last.
        split: ``test`` or ``val``.
        out: The folder of the report, new or empty; a new one in ``outputs/comparison`` by default.
        seed: Seed of the bootstraps.

    Returns:
        The numbers, and the folder with ``report.html``.

    Raises:
        SpectroError: Something that is not a run, runs that cannot be compared, or a folder that is in use. Nothing
            was written.
    """
    started_at, outputs, out = time.time(), Path(outputs), None if out is None else Path(out)
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out: got {str(out)!r}, which is in use; allowed: a new or an empty folder")
    with tempfile.TemporaryDirectory() as scratch:
        with status("reading runs"):
            runs, notes = load_runs(
                [str(name) for name in names],
                outputs=outputs,
                scratch=Path(scratch),
                experiment=experiment,
                tracking_uri=tracking_uri,
                split=split,
            )
            notes += _load_plugins(runs)
        # A baseline that does without val beside a model that does not would be too easy to beat.
        first = next((run for run in runs if run.is_refit), runs[0])
        if not all(run.is_refit for run in runs) and first.is_refit:
            notes.append("some models and the baselines are fitted to train and val, the others to train alone")
        with status("reading images"):
            try:
                task, problem = load_task(first, outputs), ""
            except DataError as error:
                task, problem = None, str(error)
        with status("comparing"):
            models, more = models_of(runs)
            models.append(majority_baseline(first))
            if all(run.model != PIXELS for run in runs) and task:
                models.append(pixels_baseline(first, task, split))
            elif all(run.model != PIXELS for run in runs):
                more.append(f"the pixels baseline (logistic regression on 20x15 grey pixels) is left out: {problem}")
            result = compute(models, runs[0].look_alikes, split, notes=[*notes, *more], seed=seed)
        info = _start(result, outputs, out, tracking_uri, started_at, seed)
        with status("writing the report"):
            _write(result, info, task)
    return result, info.folder


def _load_plugins(runs: Sequence[Run]) -> list[str]:
    """Imports the plugins of the runs, for their metrics; returns a note for each that cannot be imported.

    A run that was fetched from MLflow may be anybody's: the modules that it names are not imported.
    """
    named = dict.fromkeys(name for run in runs if not run.is_fetched for name in run.info.config.get("plugins") or [])
    notes = []
    # Without names those of installed packages.
    for modules in ([], *([name] for name in named)):
        try:
            load_plugins(modules)
        except ConfigError as error:
            notes.append(f"{error}; its metrics are missing")
    return notes


def _start(
    result: Result, outputs: Path, out: Path | None, tracking_uri: str | None, started_at: float, seed: int
) -> RunInfo:
    """Makes the folder and its ``run.json``, by which the comparison goes to MLflow like a run."""
    first, names = result.runs[0], ", ".join(model.name for model in result.candidates)
    try:
        if out is None:
            slug = re.sub(r"[^\w.=-]+", "_", names).strip("_")[:60]
            out = new_folder(outputs / "comparison" / f"{datetime.fromtimestamp(started_at):%Y-%m-%d_%H-%M-%S}_{slug}")
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write to {str(out or outputs)!r} ({error.strerror})") from error
    entry = next((run.info.mlflow for run in result.runs if run.info.mlflow.tracking_uri), None)
    if tracking_uri is not None or entry is None:
        entry = MlflowEntry.new(tracking_uri, outputs)
    commit = git_commit(Path(__file__).parent)
    info = RunInfo.start(
        out,
        run_name=f"comparison of {names}",
        experiment=first.info.experiment,
        tags={
            "kind": "comparison",
            "mlflow.source.name": "compare.py",
            "mapping": first.info.tags.get("mapping", first.info.experiment),
            "data_fingerprint": first.data.fingerprint,
            "git_commit": commit or "unknown",
        },
        config={"split": result.split, "seed": seed, "runs": [run.origin for run in result.runs]},
        seed=seed,
        git_commit=commit,
        data=first.data,
        mlflow=replace(entry, run_id=None, experiment_id=None, sent=False),
        started_at=started_at,
    )
    info.write()
    return info


def _write(result: Result, info: RunInfo, task: Task | None) -> None:
    """Writes the files of a comparison and sends it to MLflow; a store that is away costs a warning."""
    from spectro.comparison.page import draw, page
    from spectro.comparison.report import csv_table, markdown

    folder = info.folder
    try:
        write_csv(folder / "table.csv", *csv_table(result))
        write_text(folder / "table.md", markdown(result))
        write_json(folder / "comparison.json", result.as_json())
        write_text(folder / "report.html", page(result, info, draw(result, folder / "figures"), task))
    except BaseException as error:
        info.end("KILLED" if interrupt.caused(error) else "FAILED", f"{type(error).__name__}: {error}")
        raise
    info.end("FINISHED")
    info.send_to_mlflow()

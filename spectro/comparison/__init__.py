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
from spectro.comparison.baselines import baseline_runs, load_dataset, majority_baseline
from spectro.comparison.load import Run, load_runs
from spectro.comparison.models import models_of
from spectro.comparison.statistics import Result, compute
from spectro.config.received import check_modules, modules_of
from spectro.data import Dataset
from spectro.errors import ConfigError, DataError, SpectroError
from spectro.files import write_csv, write_json, write_text
from spectro.paths import cut, new_folder
from spectro.plugins import load_plugins
from spectro.progress import status
from spectro.runs.runinfo import RunInfo
from spectro.tracking import MlflowEntry

__all__ = ["Result", "compare"]

# Characters of the models' names in a folder's name.
_MAX_SLUG = 40


def compare(
    names: Sequence[str | Path],
    *,
    outputs: Path | str = "outputs",
    experiment: str | None = None,
    tracking_uri: str | None = None,
    split: str = "test",
    out: Path | str | None = None,
    seed: int = 0,
    labels: Sequence[str] | None = None,
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
        labels: Names of the models, in the order of their first runs; None: what differs and matters.

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
        if len({run.is_refit for run in runs}) > 1:
            notes.append("some models and the baselines are fitted to train and val, the others to train alone")
        models_of(runs, names=labels)  # names that are not allowed are refused before a baseline is fitted
        dataset, problem = None, ""
        with status("reading images"):
            try:
                dataset = load_dataset(runs[0], outputs)
            except DataError as error:
                problem = str(error)
        mlflow, unsent = _mlflow(runs, outputs, tracking_uri)
        notes += unsent
        added, more = baseline_runs(runs, outputs, split, mlflow, problem)
        with status("comparing"):
            models, most = models_of(runs, added, labels)
            models.append(majority_baseline(next((run for run in runs if run.is_refit), runs[0])))
            result = compute(models, _look_alikes(runs), split, notes=[*notes, *more, *most], seed=seed)
        info = _start(result, outputs, out, mlflow, started_at, seed)
        with status("writing the report"):
            _write(result, info, dataset)
    return result, info.folder


def _load_plugins(runs: Sequence[Run]) -> list[str]:
    """Imports the installed plugins, for their metrics; returns a note for each other one that the runs name.

    A run may be anybody's: a module that only it names is not imported.
    """
    notes = []
    try:
        load_plugins()
    except ConfigError as error:
        notes.append(f"{error}; its metrics are missing")
    named = {module: run.origin for run in runs for key, module in modules_of(run.info.config) if key == "plugins"}
    for module, origin in named.items():
        try:
            check_modules({"plugins": [module]}, origin)
        except ConfigError as error:
            notes.append(f"metrics of plugins may be missing: {error}")
    return notes


def _look_alikes(runs: Sequence[Run]) -> dict[str, list[str]]:
    """The look-alike groups of the runs, each once: flat runs may have none."""
    groups = {frozenset(members): (group, members) for run in runs[::-1] for group, members in run.look_alikes.items()}
    return dict(groups.values())


def _mlflow(runs: Sequence[Run], outputs: Path, tracking_uri: str | None) -> tuple[MlflowEntry, list[str]]:
    """The store of the comparison and its baselines, see `MlflowEntry.to`; a note if that of the runs is not used."""
    entry = next((run.info.mlflow for run in runs if run.info.mlflow.tracking_uri), MlflowEntry(tracking_uri=None))
    if tracking_uri is None and entry.tracking_uri is None:
        return entry, []
    try:
        return replace(entry.to(tracking_uri, outputs), run_id=None, experiment_id=None, sent=False), []
    except SpectroError as error:
        return MlflowEntry(tracking_uri=None), [f"not sent to MLflow: {error}: --tracking-uri"]


def _start(
    result: Result, outputs: Path, out: Path | None, mlflow: MlflowEntry, started_at: float, seed: int
) -> RunInfo:
    """Makes the folder and its ``run.json``, by which the comparison goes to MLflow like a run."""
    first, names = result.runs[0], ", ".join(model.name for model in result.candidates)
    try:
        if out is None:
            slug = re.sub(r"[^\w.=-]+", "_", names).strip("_")[:_MAX_SLUG].strip("_")
            out = new_folder(outputs / "comparison" / f"{datetime.fromtimestamp(started_at):%Y-%m-%d_%H-%M-%S}_{slug}")
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write to {str(out or outputs)!r} ({error.strerror})") from error
    info = RunInfo.start(
        out,
        run_name=cut(f"comparison of {names}", 100),
        experiment=first.info.experiment,
        tags={
            "kind": "comparison",
            "mlflow.source.name": "compare.py",
            "mapping": first.info.tags.get("mapping", first.info.experiment),
            "data_fingerprint": first.data.fingerprint,
        },
        config={"split": result.split, "seed": seed, "runs": [run.origin for run in result.runs]},
        seed=seed,
        data=first.data,
        mlflow=mlflow,
        started_at=started_at,
    )
    info.write()
    return info


def _write(result: Result, info: RunInfo, dataset: Dataset | None) -> None:
    """Writes the files of a comparison and sends it to MLflow; a store that is away costs a warning."""
    from spectro.comparison.page import draw, page
    from spectro.comparison.report import csv_table, markdown
    from spectro.comparison.verdict import verdict

    folder = info.folder
    try:
        write_csv(folder / "table.csv", *csv_table(result))
        write_text(folder / "table.md", markdown(result))
        summary = verdict(result)
        answer = {"model": summary.model.name, "headline": summary.headline, "command": summary.command}
        write_json(folder / "comparison.json", {"verdict": answer, **result.as_json()})
        draw(result, folder / "figures" / "scores.png")
        write_text(folder / "report.html", page(result, info, dataset))
        ends = {"": "value", "_ci_low": "ci_low", "_ci_high": "ci_high"}
        scores = {name: estimates["macro_f1"] for name, estimates in result.scores.items()}
        values = {name: {f"macro_f1{end}": getattr(e, key) for end, key in ends.items()} for name, e in scores.items()}
        write_json(folder / "metrics.json", values)
    except BaseException as error:
        info.end("KILLED" if interrupt.caused(error) else "FAILED", f"{type(error).__name__}: {error}")
        raise
    info.end("FINISHED")
    info.send_to_mlflow()

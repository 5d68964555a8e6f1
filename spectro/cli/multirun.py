"""The run of a plain multirun: its jobs stand below it in MLflow, as trials stand below their search."""

from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from spectro.config.check import Config
from spectro.paths import redact
from spectro.runs import run as experiment
from spectro.runs.runinfo import RunInfo

# What a column of MLflow's pages shows.
_NAME = 48


def open_parent(folder: Path, config: Config, words: Sequence[str], varied: Sequence[str]) -> None:
    """Writes the ``run.json`` of a multirun's folder and opens its MLflow run; the first of its jobs does.

    Args:
        folder: The multirun's folder.
        config: The configuration of the first job.
        words: The command line's overrides.
        varied: Those of them that make the jobs differ; the run is named after them.
    """
    with FileLock(folder / "run.lock"):
        if (folder / "run.json").exists():
            return
        content = experiment.identity_of(config)
        commit, name = content["tags"]["git_commit"], redact(f"multirun {' '.join(varied)}".strip())
        content |= {
            "run_name": name if len(name) <= _NAME else f"{name[: _NAME - 1]}…",
            "config": {"multirun": [redact(word) for word in words]},
            "tags": {"multirun": "true", "git_commit": commit},
        }
        # Jobs may differ in their seed.
        info = RunInfo.start(folder, **{**content, "seed": None})
        info.write()
        info.open_in_mlflow()


def end_parent(folder: Path, status: str, reason: str | None = None) -> None:
    """Ends a multirun's run and sends it; nothing where the multirun has none.

    Args:
        folder: The multirun's folder.
        status: ``FINISHED``, ``FAILED`` or ``KILLED``.
        reason: Why it did not finish.
    """
    if not (folder / "run.json").exists():
        return
    info = RunInfo.read(folder)
    if "multirun" not in info.tags:
        return
    ends = [RunInfo.read(path.parent).ended_at for path in folder.glob("*/run.json")]
    info.status, info.reason, info.ended_at = status, reason, max((end for end in ends if end), default=None)
    info.send_to_mlflow()

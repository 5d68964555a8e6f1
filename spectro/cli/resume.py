"""``python train.py resume=DIR``: a run that was killed goes on from the last epoch that it finished."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from spectro.errors import ConfigError, DataError

if TYPE_CHECKING:
    from spectro.runs.runinfo import RunInfo


def asks_for_it(arguments: Sequence[str]) -> bool:
    """Whether the command line is one of ours and not Hydra's."""
    return any(argument.lstrip("+").startswith("resume=") for argument in arguments)


def resume(arguments: Sequence[str]) -> None:
    """Goes on with a run, with its own configuration and in the folder that it was started from.

    Args:
        arguments: The command line: ``resume=DIR`` and nothing else.

    Raises:
        ConfigError: Something beside ``resume``, not a run directory, a run that has finished or is still going.
    """
    from spectro.config import check as config
    from spectro.runs import run as experiment

    first, *others = sorted(arguments, key=lambda argument: not argument.startswith("resume="))
    if others or first == "resume=":
        raise ConfigError(f"resume: got {' '.join(arguments)}; allowed: resume=DIR alone, the rest is as it was")
    run_dir = Path(first.partition("=")[2]).expanduser().absolute()
    before = _card(run_dir)
    started_in = _started_in(run_dir)
    if started_in is not None and started_in.is_dir():
        # Relative paths of the configuration are seen from there.
        os.chdir(started_in)
    experiment.run(config.saved(run_dir), run_dir, before)


def _card(run_dir: Path) -> "RunInfo | None":
    """The content of ``run.json``; None where the run was killed before it was written."""
    from spectro import tracking
    from spectro.runs.runinfo import RunInfo

    if not (run_dir / "run.json").exists():
        if not (run_dir / ".hydra").is_dir():
            raise ConfigError(f"resume: got {str(run_dir)!r}; allowed: a run directory")
        return None
    try:
        info = RunInfo.read(run_dir)
    except DataError as error:
        raise ConfigError(f"resume: {error}") from error
    if info.status == "FINISHED":
        raise ConfigError(f"resume: got {str(run_dir)!r}, which has finished; allowed: a run that was stopped")
    if info.status == "RUNNING" and tracking.is_alive(info.content()) and info.pid != os.getpid():
        raise ConfigError(f"resume: got {str(run_dir)!r}, which is still going in process {info.pid}")
    return info


def _started_in(run_dir: Path) -> Path | None:
    try:
        hydra = yaml.safe_load((run_dir / ".hydra" / "hydra.yaml").read_text(encoding="utf-8"))
        return Path(hydra["hydra"]["runtime"]["cwd"])
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return None

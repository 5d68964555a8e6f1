"""``python train.py resume=DIR``: a run that was killed continues after the last epoch that it finished."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from spectro.errors import ConfigError, DataError
from spectro.files import as_json
from spectro.paths import flatten
from spectro.progress import say

if TYPE_CHECKING:
    from spectro.runs.runinfo import RunInfo


def resume(words: Sequence[str]) -> None:
    """Continues a run with its configuration and search path, in the folder in which it was started.

    A run that was killed after its end, while it was sent to MLflow, is sent.

    Raises:
        ConfigError: Something beside ``resume=DIR``, no run directory, a run that has finished or is in progress.
    """
    from spectro.config.check import check
    from spectro.config.groups import groups_of
    from spectro.runs import run as experiment

    if len(words) > 1 or words[0].endswith("resume="):
        raise ConfigError(f"resume: got {' '.join(words)}; allowed: resume=DIR alone, all other keys keep their values")
    run_dir = Path(words[0].partition("=")[2]).expanduser().absolute()
    before = _stopped(run_dir)
    try:
        cfg: Any = OmegaConf.load(path := run_dir / ".hydra" / "config.yaml")
        runtime = OmegaConf.load(run_dir / ".hydra" / "hydra.yaml").hydra.runtime
        plain: Any = OmegaConf.to_container(cfg, resolve=False)
        if not isinstance(plain, dict):
            raise ValueError(f"{path} is no section with keys")
        folder, groups = Path(runtime.cwd), groups_of(runtime.config_sources)
    except (OSError, ValueError, YAMLError, OmegaConfBaseException, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split("\n    ")[0].split())
        raise ConfigError(f"resume: got {str(run_dir)!r} ({reason}); allowed: a run directory") from error
    for key, value in flatten(plain).items():
        if "${" in str(value):
            raise ConfigError(f"resume: {path}: {key}: got {value!r}; allowed: plain values, as runs write them")
    if folder.is_dir():
        os.chdir(folder)  # relative paths refer to it
    config = check(cfg, groups)
    _check_unchanged(path, config.raw, {} if before is None else before.config)
    if before is not None and before.status == "FINISHED":  # it was killed while it was sent
        before.mlflow = before.mlflow.to(config.common.tracking.uri, config.outputs)
        before.send_to_mlflow_beside()
        if before.mlflow.sent:
            say(f"{run_dir} had finished and is now sent to MLflow")
        return
    experiment.run(config, run_dir, before)


def _check_unchanged(path: Path, raw: dict[str, Any], expected: dict[str, Any]) -> None:
    """Raises a ConfigError where the saved configuration is not the one that ``run.json`` has."""
    both = json.loads(as_json(raw)), expected
    # The second one has no passwords.
    now, before = ({k: v for k, v in flatten(c).items() if k != "tracking.uri"} for c in both)
    for key in now.keys() | before.keys() if expected else ():
        if now.get(key) != before.get(key):
            got = f"{key}: got {now.get(key)!r}; allowed: {before.get(key)!r}, as run.json has it"
            raise ConfigError(f"resume: {path}: damaged: {got}")


def _stopped(run_dir: Path) -> "RunInfo | None":
    """The metadata of a run that can be resumed; None where it was killed before they were written."""
    from spectro import tracking
    from spectro.runs.runinfo import RunInfo

    if not (run_dir / "run.json").exists():
        return None
    try:
        info = RunInfo.read(run_dir)
    except DataError as error:
        raise ConfigError(f"resume: {error}") from error
    is_unsent = info.mlflow.tracking_uri is not None and not info.mlflow.sent
    if info.status == "FINISHED":
        shutil.rmtree(run_dir / "checkpoints", ignore_errors=True)
        if not is_unsent:
            raise ConfigError(f"resume: got {str(run_dir)!r}, which has finished; allowed: a run that was stopped")
    if info.status in ("RUNNING", "FINISHED") and tracking.is_alive(info.content()) and info.pid != os.getpid():
        raise ConfigError(f"resume: got {str(run_dir)!r}, which is still running in process {info.pid}")
    return info

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

from spectro.config.schema import Plugins
from spectro.errors import ConfigError, DataError
from spectro.files import as_json
from spectro.knobs import validate
from spectro.paths import flatten, mlflow_database, short
from spectro.plugins import load_plugins
from spectro.progress import say

if TYPE_CHECKING:
    from spectro.config.groups import Groups
    from spectro.runs.runinfo import RunInfo

# What a resumed run takes from the command line and not from its directory alone.
_TYPED = ("plugins", "outputs", "data.cache_dir", "data.demo_dir", "tracking.uri")


def resume(words: Sequence[str], groups: "Groups | None" = None) -> None:
    """Continues a run with its configuration, in the folder in which it was started.

    A run directory may be anybody's: what runs code, contacts a server or writes elsewhere is typed again. A run that
    was killed after its end, while it was sent to MLflow, is sent.

    Args:
        words: The command line: ``resume=DIR``, and keys of `_TYPED`.
        groups: The configuration groups of the command line; None: those of ``conf/``.

    Raises:
        ConfigError: Another word beside ``resume``, no run directory, a run that has finished or is in progress, or one
            that names modules or places which must be typed.
    """
    from spectro.config.check import check
    from spectro.config.groups import Groups
    from spectro.config.received import check_modules, check_places, outputs_of
    from spectro.runs import run as experiment

    name, typed = _parsed(words)
    run_dir = Path(name).expanduser().absolute()
    before = _stopped(run_dir)
    try:
        cfg: Any = OmegaConf.load(path := run_dir / ".hydra" / "config.yaml")
        runtime = OmegaConf.load(run_dir / ".hydra" / "hydra.yaml").hydra.runtime
        plain: Any = OmegaConf.to_container(cfg, resolve=False)
        if not isinstance(plain, dict):
            raise ValueError(f"{path} is no section with keys")
        folder = Path(runtime.cwd)
        config_dirs = [str(source.path) for source in runtime.config_sources if source.provider == "command-line"]
    except (OSError, ValueError, YAMLError, OmegaConfBaseException, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split("\n    ")[0].split())
        raise ConfigError(f"resume: got {str(run_dir)!r} ({reason}); allowed: a run directory") from error
    for key, value in flatten(plain).items():
        if "${" in str(value):
            raise ConfigError(f"resume: {path}: {key}: got {value!r}; allowed: plain values, as runs write them")
    # Before the folder is changed to one that a file names: these are of the folder in which they are typed.
    load_plugins(validate(Plugins, {"plugins": typed.pop("plugins", [])}).plugins)
    outputs = [Path("outputs").absolute(), *outputs_of(run_dir)]
    check_modules(plain, short(run_dir))
    _check_unchanged(path, plain, {} if before is None else before.config)
    if "outputs" in typed:  # what lies in it by default
        place, values = Path(str(typed["outputs"])).absolute(), flatten(plain)
        inside = {"data.cache_dir": f"{place / 'cache'}", "tracking.uri": mlflow_database(place)}
        typed = {"outputs": f"{place}", **{k: v for k, v in inside.items() if values.get(k)}, **typed}
    for key, value in typed.items():
        OmegaConf.update(cfg, key, value)
    if folder.is_dir():
        os.chdir(folder)  # relative paths refer to it
    check_places(OmegaConf.to_container(cfg), str(run_dir), outputs, list(typed))  # type: ignore[arg-type]
    groups = groups or Groups()
    try:
        config = check(cfg, groups)
    except ConfigError as error:
        others = [place for place in config_dirs if Path(place) not in groups.folders]
        if not others or ".model" not in str(error):
            raise
        raise ConfigError(f"{error}; the run had --config-dir {others[0]}, which is read if it is typed") from error
    if before is not None and before.status == "FINISHED":  # it was killed while it was sent
        before.mlflow = before.mlflow.to(config.common.tracking.uri, config.outputs)
        before.send_to_mlflow_beside()
        if before.mlflow.sent:
            say(f"{run_dir} had finished and is now sent to MLflow")
        return
    experiment.run(config, run_dir, before)


def _parsed(words: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The run directory of a command line, and its other keys with their values."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    (first, *_), others = [word for word in words if _key(word) == "resume"], [w for w in words if _key(w) != "resume"]
    name = first.partition("=")[2]
    if not name or len(others) + 1 < len(words) or not {*map(_key, others)} <= {*_TYPED}:
        raise ConfigError(
            f"resume: got {' '.join(words)}; allowed: resume=DIR, and {', '.join(_TYPED)}; all other keys keep their "
            "values"
        )
    parsed = OverridesParser.create().parse_overrides(others)
    return name, {override.get_key_element(): override.value() for override in parsed}


def _key(word: str) -> str:
    return word.lstrip("+").partition("=")[0]


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

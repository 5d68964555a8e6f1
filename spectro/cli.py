"""The command line around a run: what Hydra is taught, help, and one message for what a user can mend."""

import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from spectro.errors import ConfigError, SpectroError
from spectro.paths import CONF

if TYPE_CHECKING:
    from spectro.config import Config

_claimed: dict[str, str] = {}


def free_dir(wanted: str) -> str:
    """A folder of this name that nobody has, made at once: a second run of the same second gets ``name_2``."""
    if wanted not in _claimed:
        for number in range(1, 10_000):
            path = Path(wanted if number == 1 else f"{wanted}_{number}")
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                continue
            _claimed[wanted] = str(path)
            break
    return _claimed[wanted]


def teach_hydra() -> None:
    """Registers the resolver of run directories and the open ``stages`` node, before Hydra composes anything."""
    from hydra.core.config_store import ConfigStore

    OmegaConf.register_resolver("free_dir", free_dir, replace=True)
    # Any knob may stand below a stage; which ones do is checked with the family's own schema.
    stages = OmegaConf.create({"stages": {"easy": {}, "hard": {}}})
    for node in (stages.stages, stages.stages.easy, stages.stages.hard):
        OmegaConf.set_struct(node, False)
    ConfigStore.instance().store(name="stages", node=stages)


def main(hydra_main: Callable[[], Any]) -> None:
    """Runs Hydra's entry point for a person: help, checks, exit codes.

    Exit codes: 0 done; 2 something that the user can mend, one message; 130 interrupted; 1 anything else, with a
    traceback. With ``HYDRA_FULL_ERROR=1`` everything comes with its traceback.
    """
    arguments = sys.argv[1:]
    if {"--help", "-h"} & set(arguments):
        from spectro.help import help_text

        print(help_text([a for a in arguments if not a.startswith("-")]))
        return
    full_error = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    teach_hydra()

    def checked() -> None:
        if not any(a.startswith("-") for a in arguments):
            _check_before_hydra_makes_folders(arguments)
        hydra_main()
        if _failures:
            raise _failures[0]

    guard(checked, arguments, full_error=full_error)


def guard(work: Callable[[], None], arguments: list[str], *, full_error: bool = False) -> None:
    """Does ``work`` with progress bars, and ends the process with one message where the user can mend something."""
    from spectro import terminal

    terminal.set_up()
    # A cluster's polite kill ends a run the way Ctrl-C does: it is recorded as killed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        work()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        message = explain(error, arguments)
        if full_error or message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)


def composed(overrides: list[str]) -> "Config":
    """The checked configuration for some overrides, for scripts beside train.py."""
    from hydra import compose, initialize_config_dir

    from spectro.config import check

    teach_hydra()
    with initialize_config_dir(str(CONF)):
        return check(compose("config", overrides=overrides))


_failures: list[SpectroError] = []


def job(cfg: DictConfig) -> float | None:
    """One run: checks the composed configuration, runs it, returns the objective."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra = HydraConfig.get()
    run_dir = Path(hydra.runtime.output_dir)
    try:
        from spectro.config import check

        config = check(cfg)
        from spectro.experiment import run

        return run(config, run_dir)
    except SpectroError as error:
        _remove_if_unused(run_dir)
        if hydra.mode == RunMode.MULTIRUN:
            raise
        # Hydra would print a line of its own before the message.
        _failures.append(error)
        return None


def _remove_if_unused(run_dir: Path) -> None:
    """Takes back the folder of a run that never started: only what Hydra itself wrote, nothing else."""
    names = {path.name for path in run_dir.iterdir()} if run_dir.is_dir() else set()
    if names <= {".hydra", "train.log"}:
        import shutil

        shutil.rmtree(run_dir, ignore_errors=True)


def _check_before_hydra_makes_folders(arguments: list[str]) -> None:
    composed(arguments)
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key == "hydra.run.dir" and (Path(value) / "run.json").exists():
            raise ConfigError(f"hydra.run.dir: found {value!r}, which holds a run; allowed: a new folder")


def explain(error: Exception, arguments: list[str]) -> str | None:
    """The message for an error that the user can mend; None for any other."""
    if isinstance(error, SpectroError):
        return str(error)
    if not type(error).__module__.startswith(("hydra.", "omegaconf.")):
        return None
    text = str(error).strip()
    if unknown := re.match(r"Could not override '([^']+)'", text):
        return _unknown_key(unknown[1].lstrip("+~"), arguments)
    missing = r"Could not find '([^']+)'\s+Available options in '[^']+':\s+(.*?)(?:\nConfig|$)"
    if option := re.search(missing, text, re.DOTALL):
        group, _, name = option[1].rpartition("/")
        return f"{group}: found {name!r}; allowed: {', '.join(option[2].split())}"
    if isinstance(error, OmegaConfBaseException):
        return f"{error.full_key or 'config'}: {text.splitlines()[0]}"
    return " ".join(text.splitlines()[:2])


def _unknown_key(key: str, arguments: list[str]) -> str:
    """What to say of a key that the composed configuration does not have."""
    import difflib

    from hydra import compose, initialize_config_dir

    value = next((a.partition("=")[2] for a in arguments if a.lstrip("+~").startswith(f"{key}=")), "")
    kept = [a for a in arguments if not a.startswith("-") and not a.lstrip("+~").startswith(f"{key}=")]
    try:
        with initialize_config_dir(str(CONF)):
            here: Any = compose("config", overrides=kept)
    except Exception:
        # Something else is wrong as well; this key is still worth naming.
        return f"{key}: unknown key (found {value})"
    model, parent = here.model.name, []
    for part in key.split("."):
        if not isinstance(here, DictConfig) or part not in here:
            break
        here = here[part]
        parent.append(part)
    allowed = sorted(str(k) for k in here) if isinstance(here, DictConfig) else []
    wrong = key.split(".")[len(parent)]
    close = difflib.get_close_matches(wrong, allowed, n=1, cutoff=0.5)
    hint = f"; did you mean {'.'.join([*parent, close[0]])}?" if close else ""
    owners = [p.stem for p in sorted((CONF / "model").glob("*.yaml")) if not parent and wrong in OmegaConf.load(p)]
    if owners:
        hint = f"; {wrong} belongs to model={' or model='.join(owners)}"
    return f"{key}: unknown key under model={model} (found {value}); allowed: {', '.join(allowed) or 'none'}{hint}"

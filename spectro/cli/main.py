"""The command line around a run: what Hydra is taught, help, and one message for what a user can mend."""

import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf, open_dict

from spectro import interrupt
from spectro.cli.explain import explain
from spectro.cli.resume import asks_for_it, resume
from spectro.errors import ConfigError, SpectroError
from spectro.paths import CONF, cores

if TYPE_CHECKING:
    from spectro.config.check import Config

_claimed: dict[str, str] = {}
_failures: list[SpectroError] = []
# Folders of the plain multiruns that this process has had jobs of, and the process that the command is.
_multiruns: set[Path] = set()
_command_pid: int | None = None


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
    """Registers the resolver of run directories, the open ``stages`` node and the sweeper, before Hydra composes."""
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins

    from spectro.sweeps.sweeper import StudySweeper

    OmegaConf.register_resolver("free_dir", free_dir, replace=True)
    OmegaConf.register_resolver("or_cores", lambda number: number or cores(), replace=True)
    # Any knob may stand below a stage; which ones do is checked with the family's own schema.
    stages = OmegaConf.create({"stages": {"easy": {}, "hard": {}}})
    for node in (stages.stages, stages.stages.easy, stages.stages.hard):
        OmegaConf.set_struct(node, False)
    ConfigStore.instance().store(name="stages", node=stages, replace=True)
    Plugins.instance().register(StudySweeper)


def main(hydra_main: Callable[[], Any]) -> None:
    """Runs Hydra's entry point for a person: help, checks, exit codes.

    Exit codes: 0 done; 2 something that the user can mend, one message; 130 interrupted; 1 anything else, with a
    traceback. With ``HYDRA_FULL_ERROR=1`` everything comes with its traceback.
    """
    global _command_pid
    _command_pid = os.getpid()
    # No shell opens a tilde behind data.root=, and Hydra's grammar does not know it.
    sys.argv[1:] = arguments = [re.sub(r"=~(?=/|$)", f"={Path.home()}", a, count=1) for a in sys.argv[1:]]
    if {"--help", "-h"} & set(arguments):
        from spectro.cli.help import help_text

        # Whoever reads only the first lines closes the pipe.
        with suppress(BrokenPipeError):
            print(help_text([a for a in arguments if not a.startswith("-")]))
        return
    full_error = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    teach_hydra()

    def checked() -> None:
        flags = {a for a in arguments if a.startswith("-")}
        if not flags:
            _check_before_hydra_makes_folders(arguments)
        elif flags <= {"-m", "--multirun"}:
            _check_sweep([a for a in arguments if a not in flags])
        try:
            hydra_main()
        except BaseException as error:
            was_stopped = interrupt.caused(error)
            _end_multiruns("KILLED" if was_stopped else "FAILED", "interrupted" if was_stopped else "a job failed")
            raise
        _end_multiruns("FINISHED")
        if _failures:
            raise _failures[0]

    guard((lambda: resume(arguments)) if asks_for_it(arguments) else checked, arguments, full_error=full_error)


def guard(work: Callable[[], None], arguments: list[str], *, full_error: bool = False) -> None:
    """Does ``work`` with progress bars, and ends the process with one message where the user can mend something."""
    from spectro.runs import terminal

    terminal.set_up()
    interrupt.listen()
    try:
        work()
    except BaseException as error:
        if interrupt.caused(error):
            print("interrupted", file=sys.stderr, flush=True)
            # Not sys.exit: it would wait for threads that an interrupt may have left waiting for ever.
            os._exit(130)
        if not isinstance(error, Exception):
            raise
        message = explain(error, arguments)
        if full_error or message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)


def composed(overrides: list[str]) -> "Config":
    """The checked configuration for some overrides, for scripts beside train.py."""
    from hydra import compose, initialize_config_dir

    from spectro.config.check import check

    teach_hydra()
    with initialize_config_dir(str(CONF)):
        return check(compose("config", overrides=overrides))


def job(cfg: DictConfig) -> float | None:
    """One run: checks the composed configuration, runs it, returns the objective."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra = HydraConfig.get()
    run_dir = Path(hydra.runtime.output_dir)
    try:
        from spectro.config.check import check

        if "trial" in cfg:
            from spectro.sweeps.trial import TrialSpec, run_submitted_trial

            spec = TrialSpec.read(cfg.trial)
            with open_dict(cfg):
                del cfg["trial"]
            run_submitted_trial(spec, cfg, run_dir)
            return None
        if (run_dir / "run.json").exists():
            raise ConfigError(f"{run_dir}: holds a run already; allowed: a new folder")
        config = check(cfg)
        if config.common.sweep is not None:
            raise ConfigError("sweeper: got one in a single run; allowed: with --multirun")
        from spectro.runs.run import run

        belonging = _belonging(hydra, config, run_dir)
        value = run(config, run_dir, belonging=belonging)
        if belonging and _command_pid != os.getpid():
            # A launcher's process: the command that waits for it does not know of the folder.
            _end_multiruns("FINISHED")
        return value
    except BaseException as error:
        _remove_if_unused(run_dir)
        if not isinstance(error, SpectroError):
            raise
        if hydra.mode == RunMode.MULTIRUN:
            raise
        # Hydra would print a line of its own before the message.
        _failures.append(error)
        return None


def _belonging(hydra: Any, config: "Config", run_dir: Path) -> dict[str, Any]:
    """What a job of a plain multirun says besides: whose folder it lies in. The first one makes that a run as well."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.types import RunMode

    folder = Path(hydra.sweep.dir).absolute()
    if hydra.mode != RunMode.MULTIRUN or run_dir.absolute().parent != folder:
        return {}
    from spectro.cli.multirun import open_parent

    plan = folder / "multirun.yaml"
    words = [str(word) for word in OmegaConf.load(plan).hydra.overrides.task] if plan.exists() else []
    parsed = OverridesParser.create().parse_overrides(words)
    open_parent(folder, config, words, [w for w, one in zip(words, parsed, strict=True) if one.is_sweep_override()])
    _multiruns.add(folder)
    return {"parent": ".."}


def _end_multiruns(status: str, reason: str | None = None) -> None:
    from spectro.cli.multirun import end_parent

    for folder in _multiruns:
        end_parent(folder, status, reason)


def _remove_if_unused(run_dir: Path) -> None:
    """Takes back the folder of a run that never started: only what Hydra itself wrote, nothing else."""
    names = {path.name for path in run_dir.iterdir()} if run_dir.is_dir() else set()
    if names <= {".hydra", "train.log"}:
        import shutil

        shutil.rmtree(run_dir, ignore_errors=True)


def _check_before_hydra_makes_folders(arguments: list[str]) -> None:
    outputs = Path(composed(arguments).common.outputs)
    try:
        outputs.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=outputs).close()
    except OSError as error:
        raise ConfigError(f"outputs: cannot write to {str(outputs)!r} ({error.strerror})") from error
    _refuse_used(arguments, "run", "run.json")


def _check_sweep(arguments: list[str]) -> None:
    """Checks jobs of a plain sweep that between them have every value once, of long lists the ends."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if any(a.startswith(("sweeper=", "hydra/sweeper=")) and a != "sweeper=none" for a in arguments):
        return  # a search may leave out what does not go together
    values = []
    for argument, override in zip(arguments, OverridesParser.create().parse_overrides(arguments), strict=True):
        here = [argument]
        if override.is_sweep_override():
            if not override.is_discrete_sweep():
                return
            here = [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
        values.append(here if len(here) <= 10 else [here[0], here[-1]])
    first = [here[0] for here in values]
    for job in [first, *([*first[:i], v, *first[i + 1 :]] for i, here in enumerate(values) for v in here[1:])]:
        try:
            composed(job)
        except Exception as error:
            told = explain(error, job)
            if told is None:
                raise
            raise ConfigError(told) from error
    _refuse_used(first, "sweep", "*/run.json")


def _refuse_used(arguments: list[str], mode: str, sign: str) -> None:
    """Refuses a folder of the user's choice that has results in it, before Hydra writes anything there."""
    if any(a.lstrip("+").startswith(f"hydra.{mode}.dir=") for a in arguments):
        from hydra import compose, initialize_config_dir

        with initialize_config_dir(str(CONF)):
            folder = Path(compose("config", overrides=arguments, return_hydra_config=True).hydra[mode].dir)
        if any(folder.glob(sign)):
            raise ConfigError(f"hydra.{mode}.dir: got {str(folder)!r}, which holds a run; allowed: a new folder")

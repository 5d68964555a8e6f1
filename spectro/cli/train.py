"""Trains and evaluates one configuration, or searches for one: ``spectro train --help`` shows every group and knob."""

import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, open_dict

from spectro import __version__
from spectro.cli.main import guard
from spectro.errors import ConfigError, SpectroError
from spectro.paths import CONF, new_folder

if TYPE_CHECKING:
    from spectro.config.check import Config
    from spectro.config.groups import Groups


def main() -> None:
    """Entry point of ``spectro train`` and ``python train.py``."""
    from hydra._internal.utils import get_args_parser

    from spectro.config.groups import CONFIG, Groups, search_path

    if "--version" in sys.argv:
        print(f"spectro {__version__}")
        return
    parser = get_args_parser()
    args = parser.parse_intermixed_args()
    # No shell expands a tilde behind data.root=, and Hydra's grammar has none.
    args.overrides = words = [re.sub(r"=~(?=/|$)", f"={Path.home()}", word, count=1) for word in args.overrides]
    if args.shell_completion and (
        typed := re.search(r"(?:--config-dir|-cd)[= ](\S+)", os.environ.get("COMP_LINE", ""))
    ):
        args.config_dir = typed[1]
    groups = Groups(search_path(words, args.config_dir, args.config_path), args.config_name or CONFIG)
    if args.help:
        from spectro.cli.help import help_text

        # A reader that takes only the first lines closes the pipe.
        with suppress(BrokenPipeError):
            print(help_text(words, groups))
        return

    def run_hydra(task: Callable[[DictConfig], Any], *overrides: str) -> None:
        from hydra._internal.utils import _run_hydra
        from hydra.core.plugins import Plugins

        from spectro.sweeps.sweeper import StudySweeper

        Plugins.instance().register(StudySweeper)
        # Without it Hydra prints errors itself and ends the process.
        os.environ["HYDRA_FULL_ERROR"] = "1"
        args.overrides = [*words, *overrides]
        _run_hydra(args=args, args_parser=parser, task_function=task, config_path=str(CONF), config_name=CONFIG)

    if args.shell_completion:
        # At every press of the tab key: without the libraries of a run.
        run_hydra(job)
        return

    def work() -> None:
        from spectro.cli.multirun import multirun
        from spectro.cli.resume import resume

        if args.config_dir and not Path(args.config_dir).is_dir():
            raise ConfigError(f"--config-dir: got {args.config_dir!r}, which is no folder")
        if any(word.lstrip("+").startswith("resume=") for word in words):
            resume(words)
        elif args.cfg or args.info or args.hydra_help or args.experimental_rerun:
            run_hydra(job)
        elif args.multirun or "hydra.mode=MULTIRUN" in words:
            multirun(groups, words, run_hydra)
        else:
            run(groups, words, run_hydra)

    guard(work, words, groups)


def job(cfg: DictConfig) -> float | None:
    """The task that Hydra runs: one run, which returns its objective, or one trial of a search."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from spectro.config.check import check
    from spectro.runs import run as experiment

    hydra = HydraConfig.get()
    run_dir = Path(hydra.runtime.output_dir)
    try:
        if "trial" in cfg:
            from spectro.sweeps.trial import TrialSpec, run_submitted_trial

            spec = TrialSpec.read(cfg.trial)
            with open_dict(cfg):
                del cfg["trial"]
            run_submitted_trial(spec, cfg, run_dir)
            return None
        if (run_dir / "run.json").exists():
            raise ConfigError(f"{run_dir}: expected a new folder, got one that holds a run")
        is_part = hydra.mode == RunMode.MULTIRUN and (run_dir.parent / "run.json").exists()
        return experiment.run(check(cfg), run_dir, parent=".." if is_part else None)
    except BaseException:
        # A run that has not started leaves nothing behind: in its folder are Hydra's files only.
        if run_dir.is_dir() and {path.name for path in run_dir.iterdir()} <= {".hydra", "train.log"}:
            shutil.rmtree(run_dir, ignore_errors=True)
        raise


def run(groups: "Groups", words: Sequence[str], run_hydra: Callable[..., None]) -> None:
    """One run.

    Args:
        groups: The configuration groups.
        words: The overrides of the command line.
        run_hydra: Runs Hydra with a task function and further overrides.

    Raises:
        ConfigError: The configuration is not valid; nothing was written.
    """
    cfg, config = checked(groups, words)
    if config.common.sweep is not None:
        sweeper = f"sweeper={cfg.hydra.runtime.choices.sweeper}"
        raise ConfigError(f"{sweeper} needs --multirun (-m): spectro train --multirun {' '.join(words)}")
    config.estimator().prepare()  # finds missing weights before anything is written
    _, override = result_folder(cfg, "run", words)
    errors: list[SpectroError] = []

    def task(cfg: DictConfig) -> None:
        try:
            job(cfg)
        except SpectroError as error:
            errors.append(error)  # before the message, Hydra would print another line

    run_hydra(task, override)
    if errors:
        raise errors[0]


def checked(groups: "Groups", words: Sequence[str]) -> tuple[DictConfig, "Config"]:
    """The composed and the valid configuration of one job.

    Raises:
        ConfigError: It cannot be composed, or is not valid.
    """
    from spectro.cli.explain import explained
    from spectro.config.check import check

    with explained(words, groups):
        cfg = groups.compose(words)
        option = cfg.hydra.runtime.choices.get("model")
        if option and cfg.model.name != option:
            raise ConfigError(f"model.name: got {cfg.model.name!r}; allowed with model={option}: {option}")
        return cfg, check(cfg, groups)


def result_folder(cfg: DictConfig, mode: str, words: Sequence[str]) -> tuple[Path, str]:
    """Makes the folder of a run or multirun: the user's choice, or a new one that no other process has.

    Args:
        cfg: The composed configuration.
        mode: ``run`` or ``sweep``.
        words: The overrides of the command line.

    Returns:
        The folder, and the override by which Hydra takes it.

    Raises:
        ConfigError: The user's choice holds results, or nothing can be written.
    """
    from hydra.core.override_parser.types import Quote, QuotedString

    outputs, folder = Path(cfg.outputs), Path(cfg.hydra[mode].dir)
    try:
        outputs.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=outputs).close()
        if not any(word.lstrip("+").startswith(f"hydra.{mode}.dir=") for word in words):
            folder = new_folder(folder)
        elif any(folder.glob("run.json" if mode == "run" else "*/run.json")):
            raise ConfigError(f"hydra.{mode}.dir: got {str(folder)!r}, which holds a run; expected a new folder")
        else:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"outputs: cannot write to {str(outputs)!r} ({error.strerror})") from error
    return folder, f"hydra.{mode}.dir={QuotedString(str(folder), Quote.double).with_quotes()}"

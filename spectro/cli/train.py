"""Trains and evaluates one configuration, or searches for one: ``spectro train --help`` shows every group and knob."""

import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from spectro import __version__, beside
from spectro.cli.job import job, run
from spectro.cli.main import guard
from spectro.errors import ConfigError
from spectro.paths import CONF


def main() -> None:
    """Entry point of ``spectro train`` and ``python train.py``."""
    from hydra._internal.utils import get_args_parser

    from spectro.config.groups import CONFIG, groups_on, search_path

    if "--version" in sys.argv:
        print(f"spectro {__version__}")
        return
    parser = get_args_parser()
    # Argparse would take -model=embed for -m.
    flags = parser._option_string_actions
    typed_words = [f"-{w}" if re.match(r"-\w\w", w) and w.split("=")[0] not in flags else w for w in sys.argv[1:]]
    args, unknown = parser.parse_known_intermixed_args(typed_words)
    # No shell expands a tilde behind data.root=, and Hydra's grammar has none.
    args.overrides = words = [re.sub(r"=~(?=/|$)", f"={Path.home()}", word, count=1) for word in args.overrides]
    if args.shell_completion and (
        typed := re.search(r"(?:--config-dir|-cd)[= ](\S+)", os.environ.get("COMP_LINE", ""))
    ):
        args.config_dir = typed[1]
    path = search_path(words, args.config_dir, args.config_path)
    groups = groups_on(*path, name=args.config_name or CONFIG)
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
        if unknown:
            from spectro.cli.near_miss import unknown_flag

            flag = next(word for word in sys.argv if word.lstrip("-") == unknown[0].lstrip("-"))
            raise ConfigError(unknown_flag(flag, sys.argv, flags, groups))
        if any(word.lstrip("+").startswith("resume=") for word in words):
            resume(words, groups)
        elif args.cfg or args.info or args.hydra_help or args.experimental_rerun:
            run_hydra(job)
        elif args.multirun or "hydra.mode=MULTIRUN" in words:
            multirun(groups, words, run_hydra)
        else:
            run(groups, words, run_hydra, ["--config-dir", args.config_dir] if args.config_dir else [])

    # What ends a run takes long to import: beside what begins it.
    beside.start(
        beside.load,
        [*beside.MLFLOW * ("tracking.uri=null" not in words), *beside.MATPLOTLIB * ("figures=none" not in words)],
    )
    guard(work, words, groups)

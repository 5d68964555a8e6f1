"""What all commands share: progress bars, exit codes, one message for a user error, a checked configuration."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spectro import beside, interrupt
from spectro.paths import mlflow_database

if TYPE_CHECKING:
    from spectro.config.check import Config
    from spectro.config.groups import Groups


def guard(
    work: Callable[[], None],
    overrides: Sequence[str] = (),
    groups: "Groups | None" = None,
    plugins: Sequence[str] | None = None,
) -> None:
    """Does the work of a command and ends the process where it fails; overrides and groups are for messages.

    ``plugins`` are the values of ``--plugin``, imported first, with the installed ones; None: the work does that.

    Exit codes: 0 done; 2 user error, one message; 130 interrupted; 1 anything else, with a traceback. With
    ``HYDRA_FULL_ERROR=1`` every error has its traceback.
    """
    from spectro.runs import terminal

    has_traceback = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")
    terminal.set_up()
    logging.raiseExceptions = False  # a log file on a full disk: one message, not a traceback for each line
    interrupt.listen()
    try:
        if plugins is not None:
            from spectro.plugins import load_plugins

            load_plugins(plugins)
        work()
    except BaseException as error:
        if interrupt.caused(error):
            print("interrupted", file=sys.stderr, flush=True)
            # Not sys.exit: it would wait for threads that an interrupt may have left waiting for ever.
            beside.stop()
            os._exit(130)
        if has_traceback or not isinstance(error, Exception):
            raise
        from spectro.cli.explain import explain

        message = explain(error, overrides, groups)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)
    finally:
        beside.stop()


def add_plugin_option(parser: argparse.ArgumentParser) -> None:
    """The option ``--plugin`` of commands that read runs and models, which name modules that are not imported."""
    about = "a module of yours that registers the model's family, a metric, or has an augmentation; may be repeated"
    parser.add_argument("--plugin", action="append", default=[], metavar="MODULE", help=about)


def store_of(uri: str | None, outputs: Path) -> str:
    """The MLflow store that is asked: the one on the command line, ``MLFLOW_TRACKING_URI``, or that of ``outputs``."""
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or mlflow_database(outputs)


def composed(overrides: Sequence[str]) -> "Config":
    """The checked configuration of some overrides.

    Raises:
        ConfigError: It is not valid.
        HydraException: It cannot be composed.
    """
    from spectro.config.check import check
    from spectro.config.groups import groups_on, search_path

    groups = groups_on(*search_path(overrides))
    return check(groups.compose(overrides), groups)


def parse_with_overrides(parser: argparse.ArgumentParser, help: str) -> argparse.Namespace:
    """The arguments of a command that takes ``overrides``, in any order; ``--config-dir`` becomes one of them."""
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="a folder with configuration groups of your own")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=help)
    arguments = parser.parse_intermixed_args()
    if arguments.config_dir is not None:
        arguments.overrides.append(f"hydra.searchpath=['{arguments.config_dir.absolute()}']")
    return arguments

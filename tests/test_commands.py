"""The console script ``spectro``: its commands, and that the scripts are the same."""

import runpy
from importlib import import_module

import pytest

from spectro import __version__
from spectro.cli import commands
from spectro.paths import CONF

HOME = CONF.parent


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_has_a_line_for_each_command(spectro, arguments: tuple[str, ...]) -> None:
    """Nobody finds a command that the help leaves out."""
    done = spectro(*arguments)
    assert done.returncode == 0
    assert {line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")} == set(commands.COMMANDS)


@pytest.mark.parametrize("arguments", [("--version",), ("train", "--version")])
def test_version(spectro, arguments: tuple[str, ...]) -> None:
    """The version of the package, not Hydra's."""
    done = spectro(*arguments)
    assert (done.returncode, done.stdout) == (0, f"spectro {__version__}\n")


def test_an_unknown_command_is_an_error_that_names_the_others(spectro) -> None:
    """A typing error must not end in a traceback."""
    done = spectro("trian")
    assert done.returncode == 2
    assert all(name in done.stderr for name in ("trian", "did you mean train?", *commands.COMMANDS))
    assert spectro("seed=1").stderr.endswith("did you mean spectro train seed=1?\n")


@pytest.mark.parametrize("name", [name for name in commands.COMMANDS if name != "train"])
def test_help_of_a_command_names_it(spectro, name: str) -> None:
    """People copy the usage line."""
    done = spectro(name, "--help")
    assert (done.returncode, done.stdout.startswith(f"usage: spectro {name} ")) == (0, True)


def test_scripts_are_the_same_commands() -> None:
    """A script that is more than a wrapper would not be there in an installed package."""
    scripts = [HOME / "train.py", *(HOME / "scripts").glob("*.py")]
    assert {script.stem for script in scripts} == {module for module, _ in commands.COMMANDS.values()}
    for script in scripts:
        assert runpy.run_path(str(script))["main"] is import_module(f"spectro.cli.{script.stem}").main

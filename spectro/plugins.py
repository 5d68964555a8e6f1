"""Modules outside the package that add model families, metrics or augmentations."""

import importlib
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from spectro.errors import ConfigError

GROUP = "spectro.plugins"
# Modules that the user named, and installed plugins, in their order.
loaded: dict[str, None] = {}


def load_plugins(modules: Iterable[str] = (), *, is_here: bool = True) -> None:
    """Imports the installed plugins (entry points of the group ``spectro.plugins``) and further modules.

    A plugin registers what it adds while it is imported, e.g. with ``@register_family("forest")``. A module is imported
    once, however often this is called.

    Args:
        modules: Names of Python modules that the user named, such as ``my_package.forest``; never those that only a
            received file names, as importing a module runs it.
        is_here: Whether they may be in the current folder.

    Raises:
        ConfigError: A module cannot be imported.
    """
    modules = list(modules)
    for module in [*installed(), *modules]:
        try:
            if module in modules and is_here:
                find_here(module)
            importlib.import_module(module)
            loaded[module] = None
        except Exception as error:
            reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise ConfigError(f"plugins: got {module!r}; cannot be imported ({reason})") from error


def find_here(module: str) -> None:
    """Adds the current folder to the path of imports where a module that the user named is nowhere else.

    Behind everything else: a file of the current folder must not shadow a library.
    """
    if find_spec(module.partition(".")[0]) is None and (folder := str(Path.cwd())) not in sys.path:
        sys.path.append(folder)


@cache
def installed() -> list[str]:
    """The modules of the entry points; looked up before the current folder, which may hold metadata, is on the path."""
    return [entry.module for entry in entry_points(group=GROUP)]

"""Modules outside the package that add model families, metrics or augmentations."""

import importlib
import sys
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path

from spectro.errors import ConfigError

GROUP = "spectro.plugins"
# Modules that were asked for, in their order.
loaded: dict[str, None] = {}


def load_plugins(modules: Iterable[str] = ()) -> None:
    """Imports the installed plugins (entry points of the group ``spectro.plugins``) and further modules.

    A plugin registers what it adds while it is imported, e.g. with ``@register_family("forest")``. Modules in the
    current folder are found too. A module is imported once, however often this is called.

    Args:
        modules: Names of Python modules, such as ``my_package.forest``.

    Raises:
        ConfigError: A module cannot be imported.
    """
    # Behind everything else: a file of the current folder must not shadow a library.
    if (folder := str(Path.cwd())) not in sys.path:
        sys.path.append(folder)
    installed = [entry.module for entry in entry_points(group=GROUP)]
    for module in [*installed, *modules]:
        try:
            importlib.import_module(module)
            loaded[module] = None
        except Exception as error:
            reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise ConfigError(f"plugins: got {module!r}; cannot be imported ({reason})") from error

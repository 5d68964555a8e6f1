"""Every figure."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

# A function of this package that draws, its arguments but for the path, and the path.
Job = tuple[Callable[..., Path], Mapping[str, Any], Path]


def draw(jobs: Sequence[Job]) -> list[str]:
    """Draws figures, and returns a line for each that failed."""
    failed = []
    for function, arguments, path in jobs:
        try:
            function(path=path, **arguments)
        except Exception as error:  # a figure is not worth a run
            failed.append(f"figure {path.name} was not drawn ({type(error).__name__}: {error})")
    return failed

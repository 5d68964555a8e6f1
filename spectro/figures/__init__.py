"""Every figure."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spectro import beside

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


def draw_beside(work: Callable[..., list[str]], *arguments: Any) -> Callable[[], list[str]]:
    """Starts `draw`, or a function that ends with it, in the second process.

    Returns:
        What waits until all is drawn, and returns a line for each figure that could not be.
    """
    drawn = beside.start(work, *arguments)

    def wait() -> list[str]:
        try:
            return drawn()
        except RuntimeError as error:  # it was killed, or what a figure shows could not be computed
            return [f"figures were not drawn ({error})"]

    return wait

"""Progress bars, or lines in a log where the output is no terminal; off until an entry point enables them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

_console: Console | None = None
_log: Console | None = None


def enable(console: Console) -> None:
    """Shows bars on ``console`` from now on, or writes lines to it if it is no terminal."""
    global _console, _log
    _console, _log = (console, None) if console.is_terminal else (None, console)


def say(text: str) -> None:
    """Prints a line, above the bars if there are any."""
    (_console or Console()).print(text, highlight=False, soft_wrap=True)


@contextmanager
def status(description: str) -> Iterator[None]:
    """Shows a description during some work; bars of its parts appear below it."""
    if _console is None:
        yield
        return
    with _console.status(description):
        yield


@contextmanager
def progress(description: str, total: int, *, log: bool = False) -> Iterator[Callable[..., None]]:
    """A bar for a job of ``total`` steps.

    Args:
        log: Whether every new description is a line of the log where there is no terminal.

    Yields:
        A function of the number of further steps that are done and, optionally, a new description.
    """
    if _console is None or total == 0:
        yield lambda steps, now=None: _log.print(now, highlight=False, soft_wrap=True) if log and now and _log else None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_console, transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda steps, now=None: bar.update(task, advance=steps, description=now)

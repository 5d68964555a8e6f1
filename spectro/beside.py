"""A second process beside the first: what takes seconds to import works there while the first goes on.

It draws and talks to MLflow. It lives as long as the first, so that the runs of a command pay for imports once. What it
warns of on the logger `spectro` is logged by the first.
"""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cache
from multiprocessing import get_context, parent_process
from typing import Any, ParamSpec, TypeVar

from spectro import plugins

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger("spectro")
# What MLflow's pages and figures need.
MLFLOW = [
    "spectro.tracking",
    "mlflow.tracking",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.artifact.artifact_repo",
]
MATPLOTLIB = ["matplotlib.backends.backend_agg", "matplotlib.figure", "PIL.PngImagePlugin"]


def start(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Callable[[], T]:
    """Calls a function in the second process, after what was started before.

    Args:
        work: A function of a module; it, its arguments and its result can be pickled.
        args: Its arguments; paths are absolute.
        kwargs: Likewise.

    Returns:
        What waits for the end of the call and returns its result, or raises its error. A process that was killed is a
        `BrokenProcessPool`.
    """
    try:
        pool = _pool()  # what multiprocessing starts for it lets interrupts through again
        with _without_interrupts():
            future = pool.submit(_call, list(plugins.loaded), work, args, kwargs)
    except AssertionError:  # a daemonic process, as launchers start them, may have no child
        result = work(*args, **kwargs)
        return lambda: result

    def wait() -> T:
        try:
            value, messages = future.result()
        except BrokenProcessPool:
            _pool.cache_clear()
            raise
        for message in messages:
            _log.warning(message)
        return value

    return wait


def load(modules: Iterable[str]) -> None:
    """Imports modules, for the calls to come."""
    for name in modules:
        __import__(name)


def stop() -> None:
    """Ends the second process, whatever it is at."""
    if _pool.cache_info().currsize:
        pool: Any = _pool()
        _pool.cache_clear()
        for process in (pool._processes or {}).values():
            process.kill()
        pool.shutdown(wait=False, cancel_futures=True)


@cache
def _pool() -> ProcessPoolExecutor:
    # A fork would copy locks that this process's threads hold.
    return ProcessPoolExecutor(1, get_context("spawn"), _end_with_parent)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """A process that is started inside never gets SIGINT or SIGTERM; those of this process come afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent() -> None:
    """Ends this process when its parent was killed; its pool would wait for ever."""

    def watch() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class _Messages(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def _call(modules: list[str], work: Callable[..., T], args: tuple, kwargs: dict) -> tuple[T, list[str]]:
    """The result of a call and what it warned of."""
    plugins.load_plugins(modules)
    messages = _Messages()
    _log.addHandler(messages)
    try:
        return work(*args, **kwargs), messages.texts
    finally:
        _log.removeHandler(messages)

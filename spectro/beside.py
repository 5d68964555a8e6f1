"""A second process beside the first: what takes seconds to import works there while the first goes on.

It draws and talks to MLflow. It lives as long as the first, so that the runs of a command pay for imports once. What it
warns of on the logger `spectro` is logged by the first.
"""

import atexit
import gc
import logging
import pickle
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing import current_process, get_context, resource_tracker
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

from spectro import plugins
from spectro.errors import ConfigError
from spectro.imports import quick_imports

P = ParamSpec("P")
T = TypeVar("T")

# What MLflow and figures need.
MLFLOW = ["spectro.tracking", "mlflow.tracking", "mlflow.store.tracking.sqlalchemy_store"]
MATPLOTLIB = ["matplotlib.backends.backend_agg", "matplotlib.figure", "PIL.PngImagePlugin"]
_log = logging.getLogger("spectro")


class KilledError(RuntimeError):
    """The second process was killed before it had a result."""


def start(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Callable[[], T]:
    """Calls a function in the second process, after what was started before.

    Args:
        work: A function of a module; it, its arguments and its result can be pickled.
        args: Its arguments; paths are absolute.
        kwargs: Likewise.

    Returns:
        What waits for the end of the call and returns its result, or raises its error or a `KilledError`.
    """
    if current_process().name != "MainProcess":  # a worker of a launcher: it may have no child, or would wait for it
        result = work(*args, **kwargs)
        return lambda: result
    second = _second()
    future = second.thread.submit(second.call, work, args, kwargs)

    def wait() -> T:
        value: T
        value, messages = future.result()
        for message in messages:
            _log.warning(message)
        return value

    return wait


def load(modules: Iterable[str]) -> None:
    """Imports modules, for the calls to come."""
    if new := [name for name in modules if name not in sys.modules]:
        with quick_imports():
            for name in new:
                __import__(name)
        gc.freeze()  # collections pass over what stays: drawing takes a quarter less time


@atexit.register
def stop() -> None:
    """Ends the second process, whatever it is at."""
    if _second.cache_info().currsize:
        second = _second()
        _second.cache_clear()
        second.process.kill()
        second.thread.shutdown(wait=False, cancel_futures=True)


class _Second:
    """The process, and a thread that waits for one call after the other."""

    def __init__(self) -> None:
        context = get_context("spawn")  # a fork would copy locks that this process's threads hold
        self._connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,))
        resource_tracker.ensure_running()  # its start lets interrupts through again
        # The new process would import the main module: a script without a guard would run again.
        main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
        try:
            with _without_interrupts():
                self.process.start()
        finally:
            sys.modules["__main__"] = main
        theirs.close()
        self.thread = ThreadPoolExecutor(1, "beside")

    def call(self, work: Callable[..., Any], args: tuple, kwargs: dict) -> tuple[Any, list[str]]:
        try:
            self._connection.send_bytes(pickle.dumps((list(plugins.loaded), work, args, kwargs)))
            error, value, messages = pickle.loads(self._connection.recv_bytes())
        except (EOFError, OSError) as reason:
            _second.cache_clear()
            raise KilledError("the process for figures and MLflow was killed") from reason
        if error is not None:
            raise error
        return value, messages


_second = cache(_Second)


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


class _Messages(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def _serve(connection: Any) -> None:
    """The second process: answers calls until the first one is gone."""
    while True:
        try:
            request = connection.recv_bytes()
        except EOFError:
            return
        messages = _Messages()
        _log.addHandler(messages)
        try:
            modules, work, args, kwargs = pickle.loads(request)
            with suppress(ConfigError):  # a folder of the first process only
                plugins.load_plugins(modules)
            answer = pickle.dumps((None, work(*args, **kwargs), messages.texts))
        except Exception as error:
            answer = pickle.dumps((RuntimeError(f"{type(error).__name__}: {error}"), None, []))
        _log.removeHandler(messages)
        try:
            connection.send_bytes(answer)
        except OSError:
            return

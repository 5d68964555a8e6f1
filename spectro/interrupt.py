"""SIGINT and SIGTERM handling: both are recorded, since libraries may turn the interrupt into another error."""

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

# Seconds until an interrupt that Python dropped is raised again.
_AGAIN_S = 0.05
_happened = False


def listen() -> None:
    """Makes SIGINT and SIGTERM, which schedulers send, raise KeyboardInterrupt, and records them."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _raise)
    sys.unraisablehook = _raise_again


def happened() -> bool:
    """Whether this process was asked to stop."""
    return _happened


def caused(error: BaseException) -> bool:
    """Whether an error is an interrupt, itself or as an error that a library made of it."""
    return happened() or isinstance(error, KeyboardInterrupt)


def _raise(number: int, frame: FrameType | None) -> None:
    global _happened
    _happened = True
    raise KeyboardInterrupt


def _raise_again(lost: Any) -> None:
    """Raises an interrupt again, a little later, that Python dropped since it came during garbage collection."""
    if isinstance(lost.exc_value, KeyboardInterrupt):
        threading.Timer(_AGAIN_S, os.kill, (os.getpid(), signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(lost)

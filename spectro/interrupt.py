"""Ctrl-C and a polite kill: remembered, since libraries may turn the interrupt into an error of their own."""

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

# Until Python has left the place where it could not pass an interrupt on.
_AGAIN_S = 0.05
_happened = False


def listen() -> None:
    """From now on SIGINT and SIGTERM (a cluster's polite kill) both raise KeyboardInterrupt and are remembered."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _raise)
    sys.unraisablehook = _raise_again


def happened() -> bool:
    """Whether this process was asked to stop."""
    return _happened


def caused(error: BaseException) -> bool:
    """Whether an error is a request to stop, itself or in the form that a library has given it."""
    return happened() or isinstance(error, KeyboardInterrupt)


def _raise(number: int, frame: FrameType | None) -> None:
    global _happened
    _happened = True
    raise KeyboardInterrupt


def _raise_again(lost: Any) -> None:
    """Python drops what is raised while it tidies up: an interrupt of that moment comes once more, a little later."""
    if isinstance(lost.exc_value, KeyboardInterrupt):
        threading.Timer(_AGAIN_S, os.kill, (os.getpid(), signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(lost)

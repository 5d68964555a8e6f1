"""Ctrl-C and a polite kill: remembered, since libraries may turn the interrupt into an error of their own."""

import signal
from types import FrameType

_happened = False


def listen() -> None:
    """From now on SIGINT and SIGTERM (a cluster's polite kill) both raise KeyboardInterrupt and are remembered."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _raise)


def happened() -> bool:
    """Whether this process was asked to stop."""
    return _happened


def _raise(number: int, frame: FrameType | None) -> None:
    global _happened
    _happened = True
    raise KeyboardInterrupt

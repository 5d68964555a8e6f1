"""Imports of large libraries in less time."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports(*without: str) -> Iterator[None]:
    """Inside, imports take less time.

    There is no garbage collection: nearly all that an import makes stays, and every collection goes over all of it,
    which takes a fifth of the time.

    Args:
        without: Libraries that are optional there and not needed. Where they are not imported yet, importing them is an
            ImportError inside.
    """
    absent = [name for name in without if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None makes an import an error
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
        for name in absent:
            sys.modules.pop(name, None)

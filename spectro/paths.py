"""Where things lie, and how a place is shown."""

import os
from pathlib import Path

CONF = Path(__file__).parent.parent / "conf"


def short(path: Path) -> str:
    """A path relative to where one stands, if it lies below."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

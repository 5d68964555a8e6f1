"""Where things lie, and how a place is shown."""

import os
import re
from pathlib import Path

CONF = Path(__file__).parent.parent / "conf"


def short(path: Path) -> str:
    """A path relative to where one stands, if it lies below."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def redact(text: str) -> str:
    """Text without the users and passwords of the addresses in it."""
    text = re.sub(r"://[^\s'\"]*@", "://***@", text)
    return re.sub(r"([?&](?:user|password)=)[^&\s'\"]+", r"\1***", text)

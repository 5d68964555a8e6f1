"""What the benchmarks share."""

import time
from collections.abc import Callable
from pathlib import Path

HOME = Path(__file__).resolve().parents[2]
TRAIN = HOME / "train.py"


def seconds(work: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start

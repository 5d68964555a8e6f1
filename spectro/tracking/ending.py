"""How a run ended, also one whose process was killed. Imports no mlflow."""

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def ending(run_dir: Path, run: Mapping[str, Any]) -> tuple[str, str | None, float]:
    """Status, reason and end (Unix seconds) of a run; one that is marked RUNNING without a process was killed."""
    status, reason = run["status"], run.get("reason")
    if status == "PRUNED":
        status = "KILLED"  # MLflow has no such status
    if status == "RUNNING":
        if is_alive(run):
            raise RuntimeError(f"the run is still going in process {run['pid']}")
        status, reason = "KILLED", reason or "the process ended without reporting a result"
    files = (path.stat().st_mtime for path in run_dir.rglob("*") if path.is_file() and path.name != "run.json")
    return status, reason, run.get("ended_at") or max(files, default=run["started_at"])


def is_alive(run: Mapping[str, Any]) -> bool | None:
    """Whether the process of a run still exists; None where that is unknown on this machine."""
    pid = run.get("pid")
    if not isinstance(pid, int) or run.get("host", socket.gethostname()) != socket.gethostname() or os.name == "nt":
        return None
    try:
        os.kill(pid, 0)
        # The number may have been given to another process since: that one started after the run.
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if state[0] == "Z":
            return False  # a zombie
        ticks = int(state[19])
        boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        return boot + ticks / os.sysconf("SC_CLK_TCK") < run["started_at"] + 5
    except ProcessLookupError:
        return False
    except (OSError, AttributeError, IndexError, ValueError):
        return True  # it exists, and more is unknown

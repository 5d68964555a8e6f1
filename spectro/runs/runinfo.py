"""The files of a run directory that are not a model or a figure. Each is written whole or not at all."""

import csv
import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from spectro import __version__
from spectro.paths import redact
from spectro.progress import status

_VERSIONS_OF = ("numpy", "scikit-learn", "pillow", "torch", "timm", "mlflow", "hydra-core")


class RunInfo:
    """``run.json``: what a run is, how it went, and where it stands in MLflow.

    Attributes:
        path: The file.
        content: What it holds; call `write` after changing it.
    """

    def __init__(self, run_dir: Path, content: dict[str, Any], before: Mapping[str, Any] | None = None):
        """``before`` is the info of the same run when it was killed."""
        self.path = run_dir / "run.json"
        self.content = {
            "status": "RUNNING",
            "reason": None,
            "started_at": time.time(),
            "ended_at": None,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            **content,
            "versions": {"python": platform.python_version(), **_versions()},
            "command": [Path(sys.argv[0]).name, *map(redact, sys.argv[1:])],
            "wall_s": {},
            "peak_memory_mb": None,
            "warnings": [],
        }
        if before is not None:
            # MLflow knows the run by its start, and by its id.
            self.content |= {key: before[key] for key in ("started_at", "mlflow", "wall_s")}
            self.content["resumed_at"] = [*before.get("resumed_at", []), time.time()]

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Counts the seconds of a part of a run as ``wall_s[name]``, and says on the terminal that it is under way."""
        start = time.perf_counter()
        try:
            with status(name.replace("_", " ")):
                yield
        finally:
            so_far = self.content["wall_s"].get(name, 0.0)
            self.content["wall_s"][name] = round(so_far + time.perf_counter() - start, 3)

    def add_cost(self, predict_records_per_s: float | None) -> None:
        """Puts together what the run cost: seconds of the fit, records per second, trained parameters, memory.

        Trained parameters are those of the networks, all stages together; None for models that are none.
        """
        networks = (self.content.get("networks") or {}).values()
        self.content["cost"] = {
            "fit_s": self.content["wall_s"].get("fit"),
            "predict_records_per_s": predict_records_per_s,
            "trainable_parameters": sum(own["parameters"]["trainable"] for own in networks) if networks else None,
            "peak_memory_mb": peak_memory_mb(),
        }

    def end(self, status: str, reason: str | None = None) -> None:
        """Closes the run and writes the file."""
        self.content |= {"status": status, "reason": reason, "ended_at": time.time()}
        self.content["peak_memory_mb"] = peak_memory_mb()
        self.write()

    def write(self) -> None:
        """Writes the file."""
        write_json(self.path, self.content)

    def reload_mlflow(self) -> None:
        """Takes over the MLflow entry that tracking wrote into the file."""
        self.content["mlflow"] = json.loads(self.path.read_text(encoding="utf-8"))["mlflow"]


def write_json(path: Path, content: Any) -> None:
    """Writes JSON under a temporary name and renames it."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes text under a temporary name and renames it."""
    draft = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def read_json(path: Path) -> Any:
    """What a JSON file holds; None where it is not there."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a table under a temporary name and renames it; numbers with all their digits."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([[repr(float(v)) if isinstance(v, np.floating) else v for v in row] for row in rows])
    draft.replace(path)


@cache
def git_commit(folder: Path) -> str | None:
    """The commit that ``folder`` stands at, ``-dirty`` behind it where tracked files differ; None outside git."""
    try:
        ask = ["git", "-C", str(folder)]
        commit = subprocess.run([*ask, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10)
        changed = subprocess.run(
            [*ask, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() + ("-dirty" if changed.stdout.strip() else "")


def peak_memory_mb() -> float | None:
    """The most memory that this process has had resident, in megabytes; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)


@cache
def _versions() -> dict[str, str]:
    return {"spectro": __version__, **{name: version(name) for name in _VERSIONS_OF}}

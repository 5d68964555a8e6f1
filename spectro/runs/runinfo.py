"""``run.json``: what a run is, how it went, what it cost, and where it is in MLflow."""

import json
import logging
import os
import platform
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError

from spectro import __version__, beside, tracking
from spectro.config.check import Config
from spectro.data import Dataset
from spectro.errors import DataError
from spectro.files import remove_drafts, sha256_of, write_json
from spectro.paths import redact, setting
from spectro.progress import status
from spectro.runs.task import data_name, experiment_of
from spectro.tracking import MlflowEntry

_log = logging.getLogger("spectro")
# Looked up before any configuration is read, which may set PATH.
_GIT = shutil.which("git") or "git"
# What a comparison reads.
_TABLES = ("metrics.json", "predictions.csv", "oof_predictions.csv", "records.csv")
# Settings in the name of a run.
_MAX_CHANGES = 3
_VERSIONS_OF = ("numpy", "scikit-learn", "pillow", "torch", "timm", "mlflow", "hydra-core")


@dataclass(kw_only=True)
class DataInfo:
    """The data set of a run.

    Attributes:
        name: The folder's name, or the set of the demo data.
        root: The folder.
        table: The table that lists the records; empty for a folder tree.
        fingerprint: Identifies the images, labels and splits.
        records: Split -> class -> number of records.
        split_here: Whether the splits were drawn by the run and not found on disk.
        ignored: Number of entries that are no images.
        copies: Number of mirrored copies on disk that were left out.
        left_out: Bad file -> reason.
    """

    name: str
    root: str = ""
    table: str = ""
    fingerprint: str = ""
    records: dict[str, dict[str, int]] = field(default_factory=dict)
    split_here: bool = False
    ignored: int = 0
    copies: int = 0
    left_out: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Config, dataset: Dataset) -> Self:
        """The data set of a configuration."""
        return cls(
            name=data_name(config),
            root=str(dataset.root),
            table=str(dataset.table or ""),
            fingerprint=dataset.fingerprint,
            records=dataset.counts(),
            split_here=dataset.split_here,
            ignored=len(dataset.ignored),
            copies=dataset.copies,
            left_out=dict(dataset.left_out),
        )


@dataclass(kw_only=True)
class Cost:
    """What a run cost.

    Attributes:
        fit_s: Seconds of the fit.
        predict_records_per_s: Records per second, from file to probabilities.
        trainable_parameters: Of the networks of all stages together; None without a network.
        peak_memory_mb: Peak resident memory of the process, in megabytes.
    """

    fit_s: float | None = None
    predict_records_per_s: float | None = None
    trainable_parameters: int | None = None
    peak_memory_mb: float | None = None


@dataclass(kw_only=True)
class RunInfo:
    """The content of ``run.json``; call `write` after changing it.

    Attributes:
        folder: The run directory; not a part of the content.
        run_name: Name, also in MLflow.
        experiment: MLflow's experiment: the data set and the mapping.
        status: ``RUNNING``, ``FINISHED``, ``FAILED``, ``KILLED`` or ``PRUNED``.
        started_at: Unix seconds; ``ended_at`` likewise, and ``resumed_at`` for each resumption.
        pid: The process that the run has, on ``host``.
        parent: The folder of the run that this one is a part of, relative to its own.
        data: The data set; None for a run that has none of its own, such as a trial of a search.
        mlflow: Where the run is in MLflow.
        command: The command line, without passwords.
        wall_s: Phase -> seconds.
        networks: Stage -> facts of a network: parameters, weights, epochs, device.
        temperature: Stage -> temperature of its probabilities.
        study_id: Identifies the study of a search.
        files: SHA-256 of the tables of a finished run.
    """

    folder: Path
    run_name: str
    experiment: str
    status: str = "RUNNING"
    reason: str | None = None
    started_at: float
    ended_at: float | None = None
    resumed_at: list[float] = field(default_factory=list)
    pid: int | None = None
    host: str | None = None
    parent: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    git_commit: str | None = None
    data: DataInfo | None = None
    mlflow: MlflowEntry
    versions: dict[str, str] = field(default_factory=dict)
    command: list[str] = field(default_factory=list)
    wall_s: dict[str, float] = field(default_factory=dict)
    peak_memory_mb: float | None = None
    networks: dict[str, dict[str, Any]] = field(default_factory=dict)
    temperature: dict[str, float] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)
    warnings: list[str] = field(default_factory=list)
    study_id: str | None = None
    files: dict[str, str] = field(default_factory=dict)

    @classmethod
    def start(cls, folder: Path, *, before: Self | None = None, **content: Any) -> Self:
        """A run that starts in this process; what a killed one left under temporary names is removed.

        Args:
            folder: The run directory.
            before: The same run when it was killed: its start and seconds stay; its MLflow entry too in the same store.
            content: Further attributes.
        """
        remove_drafts(folder)
        commit = git_commit(Path(__file__).parent)
        process: dict[str, Any] = {
            "started_at": time.time(),
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "git_commit": commit,
            "versions": _versions(),
            "command": [Path(sys.argv[0]).name, *map(redact, sys.argv[1:])],
        }
        info = cls(folder=folder, **{**process, **content})
        info.tags = {"git_commit": commit or "unknown", **info.tags}
        if before is not None:
            info.started_at, info.wall_s = before.started_at, before.wall_s
            info.resumed_at = [*before.resumed_at, time.time()]
            if info.mlflow.tracking_uri == before.mlflow.tracking_uri:
                ids = before.mlflow.run_id, before.mlflow.experiment_id
                info.mlflow = replace(info.mlflow, run_id=ids[0], experiment_id=ids[1])
        return info

    @classmethod
    def of(cls, config: Config, folder: Path, /, *, before: Self | None = None, **content: Any) -> Self:
        """The run of a configuration that starts in this process, before its data are read.

        Arguments are those of `start`; ``tags`` are added to those of the configuration.
        """
        common, uri = config.common, config.common.tracking.uri
        sections = [value for value in config.raw.values() if isinstance(value, dict)]
        backbones = [str(section["backbone"]) for section in sections if "backbone" in section]
        described: dict[str, Any] = {
            "run_name": content.get("run_name") or common.name or _run_name(config),
            "experiment": experiment_of(config),
            "config": {**config.raw, "tracking": {**config.raw["tracking"], "uri": uri and redact(uri)}},
            "seed": common.seed,
            "mlflow": MlflowEntry.new(uri, Path(common.outputs)),
            **content,
            "tags": {
                "model": common.model.name,
                "stage": config.stage,
                "data": data_name(config),
                "mapping": common.mapping.name,
                **({"backbone": ", ".join(backbones)} if backbones else {}),
                "augmentation": common.augmentation.label,
                "seed": str(common.seed),
                **content.get("tags", {}),
            },
        }
        return cls.start(folder, before=before, **described)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Reads ``run.json``.

        Raises:
            DataError: It does not exist or is damaged.
        """
        path = folder / "run.json"
        try:
            return TypeAdapter(cls).validate_python({**json.loads(path.read_text(encoding="utf-8")), "folder": folder})
        except ValidationError as error:
            problems = (f"{'.'.join(map(str, e['loc']))}: {e['msg'].lower()}" for e in error.errors())
            raise DataError(f"{path}: damaged ({'; '.join(problems)})") from error
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise DataError(f"{path}: damaged or not there ({error})") from error

    def content(self) -> dict[str, Any]:
        """The JSON values of ``run.json``."""
        return {key: value for key, value in asdict(self).items() if key != "folder"}

    def write(self) -> None:
        """Writes ``run.json``."""
        write_json(self.folder / "run.json", self.content())

    def warn(self, lines: Iterable[str]) -> None:
        """Adds lines to ``warnings``, each once."""
        self.warnings = list(dict.fromkeys([*self.warnings, *lines]))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Adds the seconds of a part of the run to ``wall_s[name]``, and shows its name on the terminal meanwhile."""
        start = time.perf_counter()
        try:
            with status(name.replace("_", " ")):
                yield
        finally:
            self.wall_s[name] = round(self.wall_s.get(name, 0.0) + time.perf_counter() - start, 3)

    def end(self, status: str, reason: str | None = None) -> None:
        """Sets how and when the run ended, and writes the file."""
        self.status, self.reason, self.ended_at = status, reason, time.time()
        self.peak_memory_mb = peak_memory_mb()
        if status == "FINISHED":
            self.files = {name: sha256_of(self.folder / name) for name in _TABLES if (self.folder / name).exists()}
        self.write()

    def check_files(self) -> None:
        """Compares the tables of a finished run with their SHA-256.

        Raises:
            DataError: One is damaged or missing.
        """
        for name, digest in self.files.items():
            try:
                if sha256_of(self.folder / name) != digest:
                    raise DataError(f"{name}: damaged: its SHA-256 is not the one in run.json")
            except OSError as error:
                raise DataError(f"{name}: damaged or not there ({error.strerror})") from error

    def open_in_mlflow_beside(self) -> Callable[[], None]:
        """Creates the run in MLflow, in the second process; returns what waits for it and writes its id.

        Without a store a warning is logged.
        """
        return self._beside(tracking.open_run)

    def send_to_mlflow(self) -> None:
        """Copies the run directory into MLflow and writes whether all of it was sent; logs a warning if not."""
        self.mlflow = tracking.send(self.folder, self.content())
        self.write()

    def send_to_mlflow_beside(self) -> None:
        """`send_to_mlflow` in the second process, after what that is at."""
        self._beside(tracking.send)()

    def _beside(self, action: Callable[[Path, dict[str, Any]], MlflowEntry]) -> Callable[[], None]:
        if self.mlflow.tracking_uri is None:
            return self.write
        result = beside.start(action, self.folder.absolute(), self.content())

        def wait() -> None:
            try:
                self.mlflow = result()
            except beside.KilledError:
                reason = "MLflow did not take the run (its process was killed). Nothing is lost; send it later:"
                _log.warning("%s spectro resend %s", reason, shlex.quote(str(self.folder)))
            self.write()

        return wait


def _run_name(config: Config) -> str:
    """Model, stage and seed, and up to three settings that are no defaults: ``hog_svm flat (cell_px=32) seed 0``."""
    changes = [setting(key, value) for key, value in config.changes.items()]
    more = [f"{len(changes) - _MAX_CHANGES} more"] if len(changes) > _MAX_CHANGES else []
    shown = f" ({', '.join([*changes[:_MAX_CHANGES], *more])})" if changes else ""
    return f"{config.model} {config.stage}{shown} seed {config.seed}"


@cache
def git_commit(folder: Path) -> str | None:
    """The commit of a checkout, with ``-dirty`` appended where tracked files differ; None outside git.

    Git runs programs that its configuration or environment names: it gets none of the environment, and no hooks.
    """

    def git(*arguments: str) -> str:
        settings = ("core.fsmonitor=", "core.hooksPath=/dev/null", "safe.directory=*")
        command = [_GIT, *(word for setting in settings for word in ("-c", setting)), "-C", str(folder), *arguments]
        environment = {"PATH": os.defpath, "HOME": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_OPTIONAL_LOCKS": "0"}
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10, env=environment)
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def peak_memory_mb() -> float | None:
    """Peak resident memory of this process, in megabytes; None where the system does not report it."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)


@cache
def _versions() -> dict[str, str]:
    libraries = {name: version(name) for name in _VERSIONS_OF}
    return {"python": platform.python_version(), "spectro": __version__, **libraries}

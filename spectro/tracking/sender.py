"""Sending a run directory to MLflow: opened when the run starts, sent when it ends, or later."""

import hashlib
import logging
import math
import os
import re
import shlex
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from spectro.errors import SpectroError
from spectro.files import WAIT_S, as_json, is_draft, link, locked, read_json, remove_drafts
from spectro.paths import mlflow_database, redact, sqlite_path
from spectro.tracking import store
from spectro.tracking.models import has_model, local_folder, log_model
from spectro.tracking.notes import note_tags
from spectro.tracking.values import cut, flatten_metrics, flatten_params, read_history, tags_of

_log = logging.getLogger("spectro")
# When the last warning about a run or a sweep was given, in seconds of the monotonic clock.
_warned: dict[Path, float] = {}
# After a failure the other runs of a sweep do not wait for the store for so long.
_AWAY_S = 60
MLFLOW_ID = re.compile(r"[0-9a-f]{32}")
_KEY = "mlflow.spectro.key"  # the tag by which a run is found again; the pages hide MLflow's own tags
# Large, and of use only where the run lies; what a scheduler's processes were given.
_NOT_SENT = ("checkpoints", ".submitit")


@dataclass(frozen=True, kw_only=True)
class MlflowEntry:
    """The entry ``mlflow`` of a run.json: where the run is in MLflow.

    Attributes:
        tracking_uri: The store; None for none.
        artifact_location: Where a database's experiments keep files; None for a server, which has a place of its own.
        run_id: The run's id; None while it is not in MLflow.
        experiment_id: Its experiment's id.
        sent: Whether MLflow has everything that the run directory holds.
    """

    tracking_uri: str | None
    artifact_location: str | None = None
    run_id: str | None = None
    experiment_id: str | None = None
    sent: bool = False

    @classmethod
    def new(cls, uri: str | None, outputs: Path) -> "MlflowEntry":
        """The entry of a run that is not in MLflow yet, with absolute addresses; files of a database go to outputs."""
        database = sqlite_path(uri)
        # A database has no place for files; a server has.
        is_database = re.match(r"(sqlite|postgresql|mysql|mssql)(\+\w+)?:", uri or "") is not None
        return cls(
            tracking_uri=uri if database is None else f"sqlite:///{database}",
            artifact_location=(outputs.absolute() / "mlartifacts").as_uri() if is_database else None,
        )

    def to(self, uri: str | None, outputs: Path) -> "MlflowEntry":
        """The entry of the same run for a store; of a run.json, which may be anybody's, only the ids are taken.

        Without ``uri`` the store is the database of ``outputs``, or ``MLFLOW_TRACKING_URI``.

        Raises:
            SpectroError: No store was named, and the entry's is another one.
        """
        default = mlflow_database(outputs)
        allowed = [uri] if uri is not None else [default, os.environ.get("MLFLOW_TRACKING_URI")]
        entries = [MlflowEntry.new(address, outputs) for address in allowed if address]
        same = next((entry for entry in entries if entry.tracking_uri == self.tracking_uri), None)
        if same is not None:
            return replace(same, run_id=self.run_id, experiment_id=self.experiment_id, sent=self.sent)
        if uri is None:
            raise SpectroError(
                f"run.json names the MLflow store {redact(str(self.tracking_uri))}, which is not contacted unless it "
                f"is named on the command line; allowed without: {redact(default)}, MLFLOW_TRACKING_URI"
            )
        return entries[0]


def page_of(entry: MlflowEntry) -> str | None:
    """The address of the page that shows a run beside the others of its experiment; None where it was not sent.

    A database's pages are where `mlflow ui` puts them.
    """
    if entry.experiment_id is None or entry.tracking_uri is None:
        return None
    is_server = entry.tracking_uri.startswith("http")
    server = redact(entry.tracking_uri).rstrip("/") if is_server else "http://127.0.0.1:5000"
    # Without the kind of work in the address, MLflow opens its pages for language models.
    query = f"workflowType=machine_learning&viewStateShareKey={store.VIEW}"
    return f"{server}/#/experiments/{entry.experiment_id}/runs?{query}"


def open_run(run_dir: Path, run: Mapping[str, Any]) -> MlflowEntry:
    """Creates the MLflow run of a run directory, whose run.json holds ``run``: status RUNNING, tags and parameters.

    Returns:
        The new entry ``mlflow`` of run.json; the present one if the store could not be used, after a warning on the
        logger `spectro`.
    """
    return _attempt(lambda run_dir, run: _open(run_dir, run)[2], run_dir, run)


def send(run_dir: Path, run: Mapping[str, Any]) -> MlflowEntry:
    """Sends everything that a run directory holds and ends its MLflow run; sending again duplicates nothing.

    A run that is still marked RUNNING ends as KILLED if its process is gone, and is not sent if it lives.

    Returns:
        The new entry ``mlflow`` of run.json, with ``sent`` false if something could not be sent; at most one warning
        per process and run, or sweep, gives the reason.
    """
    return _attempt(send_now, run_dir, run)


def send_now(run_dir: Path, run: Mapping[str, Any]) -> MlflowEntry:
    """`send` that raises whatever MLflow raises."""
    status, reason, ended_at = _ending(run_dir, run)
    client, stored, entry = _open(run_dir, run)
    entry = replace(entry, sent=True)
    run_id, ended_ms = stored.info.run_id, int(ended_at * 1000)
    with store.settings(store.PATIENT):
        from mlflow.entities import Metric, RunTag

        scores = read_json(run_dir / "metrics.json") or {}
        # The time is the run's, not now: equal points sent again are then the same points to MLflow.
        metrics = [Metric(name, value, ended_ms, 0) for name, value in flatten_metrics(scores, run).items()]
        metrics += [Metric(name, v, ended_ms, epoch) for name, v, epoch in read_history(run_dir / "history.csv")]
        figures = [f"figures/{path.name}" for path in (run_dir / "figures").glob("*.png")]
        tags = tags_of({**run["tags"], "reason": reason})
        table = run_dir / "table.md"  # of a comparison: its first section, without the figure, which follows
        summary = table.read_text(encoding="utf-8").split("\n## ")[0] if table in files_of(run_dir) else ""
        summary = re.sub(r"!\[\]\(.*?\)\n*", "", summary)
        tags |= note_tags(run, scores, figures, run_id, stored.data.tags, summary)
        client.log_batch(run_id, metrics=metrics, tags=[RunTag(name, value) for name, value in tags.items()])
        if reason is None and "reason" in stored.data.tags:
            client.delete_tag(run_id, "reason")
        if run["data"]:
            store.log_dataset(client, run_id, run["data"])
        is_logged = has_model(run, run_dir)
        if is_logged:
            log_model(client, stored, run_dir, run, files_of(run_dir))
        _send_files(client, stored, run_dir, is_logged)
        client.log_text(run_id, as_json({**run, "mlflow": asdict(entry)}), "run.json")
        client.set_terminated(run_id, status=status, end_time=ended_ms)
    return entry


def is_alive(run: Mapping[str, Any]) -> bool | None:
    """Whether the process of a run (its ``pid``, ``host``, ``started_at``) exists; None where that is unknown here."""
    if run["pid"] is None or run["host"] != socket.gethostname() or os.name == "nt":
        return None
    try:
        os.kill(run["pid"], 0)
        # The number may have been given to another process since: that one started after the run.
        state = Path(f"/proc/{run['pid']}/stat").read_text().rpartition(")")[2].split()
        started_at = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + int(state[19]) / os.sysconf("SC_CLK_TCK")
    except ProcessLookupError:
        return False
    except (OSError, AttributeError):
        return True  # it exists, and more is unknown
    return state[0] != "Z" and started_at < run["started_at"] + 5  # Z: a zombie


def reason_of(error: BaseException) -> str:
    """The first line of the error at the root: the outer ones are long and say that a request failed."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    lines = str(error).strip().splitlines() or [""]
    return redact(cut(f"{type(error).__name__}: {lines[0]}", 250))


def _attempt(
    action: Callable[[Path, Mapping[str, Any]], MlflowEntry], run_dir: Path, run: Mapping[str, Any]
) -> MlflowEntry:
    entry = MlflowEntry(**run["mlflow"])
    if entry.tracking_uri is None:
        return entry
    # A sweep, or one run; where the sweep itself could not be opened, another process has given its warning.
    whole, is_part = (run_dir / (run["parent"] or ".")).resolve(), run["parent"] is not None
    if is_part and time.monotonic() - _warned.get(whole, -math.inf) < _AWAY_S:
        return replace(entry, sent=False)
    is_known = whole in _warned or (
        is_part and ((read_json(whole / "run.json") or {}).get("mlflow") or {}).get("run_id") is None
    )
    try:
        return action(run_dir, run)
    except Exception as error:  # mlflow lets through what its stores, drivers and servers raise: any type
        _warned[whole] = time.monotonic()
        if not is_known:
            _log.warning(
                "MLflow at %s did not take the run (%s). Nothing is lost; send it later: spectro resend %s",
                redact(entry.tracking_uri),
                reason_of(error),
                shlex.quote(str(whole if is_part else run_dir)),
            )
        return replace(entry, sent=False)


def _open(run_dir: Path, run: Mapping[str, Any]) -> tuple[Any, Any, MlflowEntry]:
    """Finds or creates the MLflow run; returns the client, the run and its entry."""
    entry, name = MlflowEntry(**run["mlflow"]), run["run_name"]
    key = hashlib.sha256(f"{run_dir.resolve().name}|{name}|{run['started_at']}".encode()).hexdigest()[:16]
    with store.settings(store.PROBE):
        from mlflow.entities import Param, ViewType

        client = store.connect(str(entry.tracking_uri))
        stored = store.found(client.get_run, entry.run_id) if entry.run_id else None
        if stored is None or stored.info.lifecycle_stage == "deleted":
            experiment = store.experiment_id(client, run["experiment"], entry.artifact_location)
            # The run may be there without its id here: the answer was lost, or run.json was written over.
            same = client.search_runs([experiment], f"tags.`{_KEY}` = '{key}'", run_view_type=ViewType.ALL)
            if same:
                stored = same[0]
            else:
                tags = {**tags_of(run["tags"]), **_parent(run_dir, run), _KEY: key}
                stored = client.create_run(experiment, int(run["started_at"] * 1000), tags, name)
            if stored.info.lifecycle_stage == "deleted":
                client.restore_run(stored.info.run_id)
    with store.settings(store.PATIENT):
        # MLflow refuses to change a parameter: those that are there are left alone.
        params = flatten_params(run["config"])
        new = [Param(name, value) for name, value in params.items() if name not in stored.data.params]
        client.log_batch(stored.info.run_id, params=new)
    return client, stored, replace(entry, run_id=stored.info.run_id, experiment_id=stored.info.experiment_id)


def _send_files(client: Any, stored: Any, run_dir: Path, is_logged: bool) -> None:
    """Files of a run directory as artifacts; where these are files of this machine they are the same files.

    To another machine the files of a model go once: those of one that is logged are there.
    """
    folder = local_folder(stored.info.artifact_uri)
    if folder is not None:
        remove_drafts(folder)
    for file in files_of(run_dir):
        name = file.relative_to(run_dir)
        if folder is not None:
            link(file, folder / name)
        elif not is_logged or name.parts[0] != "model":
            client.log_artifact(stored.info.run_id, str(file), None if len(name.parts) == 1 else name.parent.as_posix())


def files_of(run_dir: Path) -> list[Path]:
    """The files of a run directory that are sent: regular ones, as a link may lead to any file of this machine."""
    files: list[Path] = []
    for path in sorted(run_dir.iterdir()):
        if path.name in (*_NOT_SENT, "run.json") or path.suffix == ".lock" or (path / "run.json").exists():
            continue
        inside = [path] if path.is_file() else sorted(path.rglob("*"))
        files += [
            file
            for file in inside
            if file.is_file()
            and not any(part.is_symlink() for part in (file, *file.parents) if part.is_relative_to(path))
            and not is_draft(file)
            # A configuration that names an address with a password stays where it is.
            and not (file.suffix == ".yaml" and redact(text := file.read_text(encoding="utf-8")) != text)
        ]
    return files


def _parent(run_dir: Path, run: Mapping[str, Any]) -> dict[str, str]:
    """The tag that puts a run below the one whose folder it names, which is opened if it has to be."""
    if run["parent"] is None:
        return {}
    folder = run_dir / run["parent"]
    parent = read_json(folder / "run.json")
    run_id = parent["mlflow"]["run_id"]
    if run_id is None:
        # Several processes may come back to a store that was away, each with a child: the first makes the parent.
        with locked(folder / "mlflow.lock", WAIT_S):
            run_id = _open(folder, parent)[2].run_id
    return {"mlflow.parentRunId": run_id}


def _ending(run_dir: Path, run: Mapping[str, Any]) -> tuple[str, str | None, float]:
    """Status, reason and end (Unix seconds) of a run; one that is marked RUNNING without a process was killed."""
    status, reason = run["status"], run["reason"]
    if status == "PRUNED":
        status = "KILLED"  # MLflow has no such status
    if status == "RUNNING":
        if is_alive(run):
            raise RuntimeError(f"the run is still going in process {run['pid']}")
        status, reason = "KILLED", reason or "the process ended without reporting a result"
    files = (path.stat().st_mtime for path in run_dir.rglob("*") if path.is_file() and path.name != "run.json")
    return status, reason, run["ended_at"] or max(files, default=run["started_at"])

"""Copies run directories into MLflow; the only part of spectro that imports mlflow.

The run directory is the truth and is complete before anything is sent. A live run and a later resend take the same
path, so a store that is away costs one warning and no result. Nothing stays open here: no active run, no thread.
"""

import hashlib
import json
import logging
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spectro.paths import redact
from spectro.runs.runinfo import write_json
from spectro.tracking import _store
from spectro.tracking._ending import ending, is_alive
from spectro.tracking._pages import note_tags, view_address
from spectro.tracking._values import cut, flatten_metrics, flatten_params, read_history, safe_name, safe_names, tags_of

__all__ = [
    "flatten_metrics",
    "flatten_params",
    "is_alive",
    "new_entry",
    "open_run",
    "page_of",
    "redact",
    "resend",
    "safe_name",
    "safe_names",
    "send",
]

_log = logging.getLogger("spectro")
_warned: set[Path] = set()
_KEY = "mlflow.spectro.key"  # the tag by which a run is found again; the pages hide MLflow's own tags
# Large, and of use only where the run lies; what a scheduler's processes were given.
_NOT_SENT = ("checkpoints", ".submitit")


def new_entry(uri: str | None, outputs: Path) -> dict[str, Any]:
    """The "mlflow" entry of a run.json that nothing has been sent of.

    A database is given an absolute address and a place for files: it says nothing of them, and MLflow would put them
    where one stands. A server keeps its own.

    Args:
        uri: The store; None for none.
        outputs: The folder that holds the runs.
    """
    local = uri.removeprefix("sqlite:///") if uri is not None and uri.startswith("sqlite:///") else None
    return {
        "tracking_uri": uri if local is None else f"sqlite:///{Path(local).expanduser().absolute()}",
        "artifact_location": (outputs.absolute() / "mlartifacts").as_uri() if _store.is_database(uri) else None,
        "run_id": None,
        "sent": False,
    }


def page_of(entry: Mapping[str, Any]) -> str | None:
    """Returns the address of the page that shows a run beside the others of its experiment.

    Args:
        entry: The "mlflow" entry of a run.json. A database's pages are where `mlflow ui` puts them.

    Returns:
        None where the run has not been sent.
    """
    if entry.get("experiment_id") is None:
        return None
    uri = entry["tracking_uri"]
    server = redact(uri).rstrip("/") if uri.startswith("http") else "http://127.0.0.1:5000"
    return f"{server}/{view_address(entry['experiment_id'], 'results')}"


def open_run(run_dir: Path) -> bool:
    """Creates the MLflow run of a run directory, with status RUNNING, tags and parameters.

    The id is stored in run.json, which must exist; a run that has one already is left as it is.

    Args:
        run_dir: The run directory.

    Returns:
        False if the store could not be used; a warning on the logger `spectro` says why.

    Raises:
        OSError, ValueError, KeyError: run.json is missing or not what it should be.
    """
    run = _read_run(run_dir)
    return _attempt(run_dir, run, lambda: _open(run_dir, run))


def send(run_dir: Path) -> bool:
    """Sends everything that a run directory holds and ends its MLflow run; sending again duplicates nothing.

    A run that is still marked RUNNING ends as KILLED if its process is gone, and is not sent if it lives.

    Args:
        run_dir: The run directory; its run.json holds the final status.

    Returns:
        False if something could not be sent. At most one warning per process and run says why.

    Raises:
        OSError, ValueError, KeyError: run.json is missing or not what it should be.
    """
    run = _read_run(run_dir)
    return _attempt(run_dir, run, lambda: _send(run_dir, run))


def resend(run_dirs: Sequence[Path], *, outputs: Path, uri: str | None = None) -> int:
    """Sends run directories whose copy in MLflow is missing or incomplete, and prints a line for each.

    Args:
        run_dirs: The directories to send; empty for all unsent ones under `outputs`, but for those that may be alive.
        outputs: The folder that holds `runs/`, `sweeps/` and `comparison/`.
        uri: Another store than the one that the runs were meant for, as when a server has moved.

    Returns:
        The exit code: 0 all sent, 1 some not, 2 a path is not a run directory (then nothing is sent).
    """
    strangers = [path for path in run_dirs if not (path / "run.json").is_file()]
    for path in strangers:
        print(f"{path}: not a run directory: expected a folder that holds run.json")
    if strangers:
        return 2
    places = ("runs/*", "sweeps/*", "sweeps/*/*", "comparison/*")
    found = sorted(path.parent for place in places for path in outputs.glob(f"{place}/run.json"))
    if not found and not run_dirs:
        print(f"no runs below {outputs}")
    failures = sent = 0
    for run_dir in run_dirs or found:
        try:
            run = _read_run(run_dir)
            if not run_dirs:
                if run["mlflow"].get("sent") or run["mlflow"]["tracking_uri"] is None:
                    continue
                if run["status"] == "RUNNING" and is_alive(run) is not False:
                    print(f"{run_dir}: may still be running on {run.get('host', 'a host unknown')}: left alone")
                    continue
            if uri is not None:
                _note(run_dir, **new_entry(uri, outputs))
                run = _read_run(run_dir)
            _send(run_dir, run)
            sent += 1
            print(f"{run_dir}: sent to {redact(run['mlflow']['tracking_uri'])}")
        except Exception as error:
            print(f"{run_dir}: not sent: {_reason(error)}")
            failures += 1
    if found and not (run_dirs or sent or failures):
        print(f"nothing to send: MLflow has all {len(found)} runs below {outputs}, or they were not meant for it")
    return 1 if failures else 0


def _attempt(run_dir: Path, run: Mapping[str, Any], action: Callable[[], object]) -> bool:
    if run["mlflow"]["tracking_uri"] is None:
        return True
    try:
        action()
    except Exception as error:  # mlflow lets through what its stores, drivers and servers raise: any type
        if run_dir.resolve() not in _warned:
            _warned.add(run_dir.resolve())
            _log.warning(
                "MLflow at %s did not take the run (%s). Nothing is lost; send it later: python scripts/resend.py %s",
                redact(run["mlflow"]["tracking_uri"]),
                _reason(error),
                shlex.quote(str(run_dir)),
            )
        return False
    return True


def _reason(error: BaseException) -> str:
    """Returns the first line of the error at the root: the outer ones are long and say that a request failed."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    lines = str(error).strip().splitlines() or [""]
    return redact(cut(f"{type(error).__name__}: {lines[0]}", 250))


def _open(run_dir: Path, run: Mapping[str, Any]) -> tuple[Any, Any]:
    """Finds or creates the MLflow run; returns the client and the run."""
    with _store.settings(_store.PROBE):
        entry, key = run["mlflow"], _key(run_dir, run)
        client = _store.connect(entry["tracking_uri"])
        found = _store.find_run(client, entry["run_id"]) if entry.get("run_id") else None
        if found is None or found.info.lifecycle_stage == "deleted":
            experiment = _store.experiment_id(client, run["experiment"], entry.get("artifact_location"))
            # The run may be there without its id here: the answer was lost, or run.json was written over.
            found = _store.search_run(client, experiment, f"tags.`{_KEY}` = '{key}'")
            if found is None:
                tags, started_ms = (
                    {**tags_of(run), **_parent(run_dir, run), _KEY: key},
                    int(run["started_at"] * 1000),
                )
                found = client.create_run(experiment, start_time=started_ms, tags=tags, run_name=run["run_name"])
            if found.info.lifecycle_stage == "deleted":
                client.restore_run(found.info.run_id)
        if found.info.run_id != entry.get("run_id"):
            _note(run_dir, run_id=found.info.run_id, experiment_id=found.info.experiment_id)
    with _store.settings(_store.PATIENT):
        from mlflow.entities import Param

        # MLflow refuses to change a parameter: those that are there are left alone.
        params = flatten_params(run.get("config") or {})
        new = [Param(name, value) for name, value in params.items() if name not in found.data.params]
        client.log_batch(found.info.run_id, params=new)
    return client, found


def _send(run_dir: Path, run: Mapping[str, Any]) -> None:
    status, reason, ended_at = ending(run_dir, run)
    client, found = _open(run_dir, run)
    run_id, ended_ms = found.info.run_id, int(ended_at * 1000)
    with _store.settings(_store.PATIENT):
        from mlflow.entities import Metric, RunTag

        scores = _read_if_there(run_dir / "metrics.json")
        values = flatten_metrics(scores, run)
        # The time is the run's, not now: equal points sent again are then the same points to MLflow.
        metrics = [Metric(name, value, ended_ms, 0) for name, value in values.items()]
        metrics += [Metric(name, v, ended_ms, epoch) for name, v, epoch in read_history(run_dir / "history.csv")]
        tags = tags_of({**run, "tags": {**(run.get("tags") or {}), "reason": reason}})
        figures = [f"figures/{path.name}" for path in (run_dir / "figures").glob("*.png")]
        tags |= note_tags(run, scores, figures, run_id, found.data.tags)
        client.log_batch(run_id, metrics=metrics, tags=[RunTag(name, value) for name, value in tags.items()])
        if reason is None and "reason" in found.data.tags:
            client.delete_tag(run_id, "reason")
        if run.get("data"):
            _store.log_dataset(client, run_id, run["data"])
        for path in sorted(run_dir.iterdir()):
            if path.is_dir() and path.name not in _NOT_SENT and not (path / "run.json").exists():
                client.log_artifacts(run_id, str(path), path.name)
            elif path.is_file() and path.suffix != ".lock" and not _holds_password(path):
                client.log_artifact(run_id, str(path))
        client.set_terminated(run_id, status=status, end_time=ended_ms)
        _note(run_dir, sent=True)
        try:
            client.log_artifact(run_id, str(run_dir / "run.json"))  # the copy too says that all was sent
        except BaseException:
            _note(run_dir, sent=False)
            raise


def _parent(run_dir: Path, run: Mapping[str, Any]) -> dict[str, str]:
    """Returns the tag that puts a run below the one whose folder it names, which is opened if it has to be."""
    if run.get("parent") is None:
        return {}
    folder = run_dir / run["parent"]
    parent = _read_run(folder)
    if not parent["mlflow"].get("run_id"):
        from filelock import FileLock

        # Several processes may come back to a store that was away, each with a child: the first makes the parent.
        with FileLock(folder / "mlflow.lock", timeout=300):
            if not _read_run(folder)["mlflow"].get("run_id"):
                _open(folder, parent)
        parent = _read_run(folder)
    return {"mlflow.parentRunId": parent["mlflow"]["run_id"]}


def _holds_password(path: Path) -> bool:
    """Whether a configuration names an address with a password: then it stays where it is."""
    return path.suffix == ".yaml" and redact(text := path.read_text(encoding="utf-8")) != text


def _key(run_dir: Path, run: Mapping[str, Any]) -> str:
    """Returns the mark by which a run is found again without its id."""
    return hashlib.sha256(f"{run_dir.resolve().name}|{run['run_name']}|{run['started_at']}".encode()).hexdigest()[:16]


def _read_if_there(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _read_run(run_dir: Path) -> dict[str, Any]:
    path = run_dir / "run.json"
    run = json.loads(path.read_text(encoding="utf-8"))
    if missing := {"status", "run_name", "experiment", "started_at", "mlflow"} - set(run):
        raise KeyError(f"{path} lacks {', '.join(sorted(missing))}")
    return run


def _note(run_dir: Path, **entries: Any) -> None:
    """Updates the "mlflow" entry of run.json; a reader sees the old file or the new one, never half of one."""
    run = _read_run(run_dir)
    run["mlflow"].update(entries)
    write_json(run_dir / "run.json", run)

"""Connecting to an MLflow store and creating what is missing, quickly also where there is no store."""

import json
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from spectro.files import WAIT_S, locked
from spectro.paths import sqlite_path
from spectro.tracking.notes import NOTE

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
# MLflow's own defaults retry for minutes. The first question decides whether a store is there, and is short; uploads
# to a store that has answered get more time (seconds). Values that the user has set win over both.
PROBE = {**_QUIET, "MLFLOW_HTTP_REQUEST_TIMEOUT": "4", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
PATIENT = {**_QUIET, "MLFLOW_HTTP_REQUEST_TIMEOUT": f"{WAIT_S}", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
# What these loggers say below their level also arrives as an exception, which becomes our one warning.
_LEVELS = {"mlflow": logging.CRITICAL, "alembic": logging.ERROR, "urllib3.connectionpool": logging.ERROR}
# What the pages of an experiment show first: MLflow reads it where an address has ``viewStateShareKey=<VIEW>``.
VIEW = "spectro"
_VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
_VIEW_STATE = {
    "orderByKey": "metrics.`test/macro_f1`",
    "orderByAsc": False,
    "selectedColumns": [
        *(f"metrics.`{name}`" for name in ("test/macro_f1", "test/macro_f1_ci_low", "test/macro_f1_ci_high")),
        *(f"metrics.`{name}`" for name in ("cv/macro_f1", "val/macro_f1")),
        *(f"tags.`{name}`" for name in ("model", "stage", "backbone", "seed")),
    ],
}
_EXPERIMENT_TAGS = {
    _VIEW_TAG: json.dumps(_VIEW_STATE),
    NOTE: "Runs of one data set and one mapping: they have the same classes.",
    "mlflow.experimentKind": "custom_model_development",  # MLflow then opens its pages for training
}


@contextmanager
def settings(defaults: Mapping[str, str]) -> Iterator[None]:
    """Holds environment defaults (never over what the user has set) and log levels while MLflow works."""
    missing = {key: value for key, value in defaults.items() if key not in os.environ}
    os.environ.update(missing)
    levels: dict[str, int] = {}
    try:
        import mlflow  # noqa: F401  importing it sets the levels of its loggers

        for name, level in _LEVELS.items():
            levels[name] = logging.getLogger(name).level
            logging.getLogger(name).setLevel(level)
        yield
    finally:
        for key in missing:
            os.environ.pop(key, None)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def connect(uri: str) -> Any:
    """An MlflowClient for `uri`; creates the database of a sqlite URI if it is not there.

    Raises:
        Exception: Of any type, where the store cannot be used.
    """
    database = sqlite_path(uri)
    if database is not None:
        _ensure_database(database)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def _ensure_database(path: Path) -> None:
    """Creates an MLflow sqlite database, or finds out at once that the one there is unusable.

    MLflow's migrations take seconds, collide between processes and leave a broken file when interrupted; so one
    process at a time makes the file aside and moves it into place whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if _is_database(path):
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with locked(path.with_name(f"{path.name}.lock"), WAIT_S):
        if not _is_database(path):
            aside = path.with_name(f"{path.name}.new")
            leftovers = (aside, aside.with_name(f"{aside.name}-journal"))
            try:
                for leftover in leftovers:
                    leftover.unlink(missing_ok=True)
                SqlAlchemyStore(f"sqlite:///{aside}", (path.parent / "mlartifacts").as_uri()).engine.dispose()
                aside.replace(path)
            finally:
                for leftover in leftovers:  # of a full disk
                    leftover.unlink(missing_ok=True)


def _is_database(path: Path) -> bool:
    if not path.exists() or path.stat().st_size == 0:
        return False
    # MLflow would ask a file that cannot be read ten times, over more than a minute; this raises at once.
    with closing(sqlite3.connect(path, timeout=WAIT_S)) as connection:
        connection.execute("PRAGMA schema_version")
    return True


def experiment_id(client: Any, name: str, artifact_location: str | None) -> str:
    """The id of the experiment `name`: created if there is none, restored if it was deleted."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifact_location, tags=_EXPERIMENT_TAGS))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(name)  # another process was faster
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    if _VIEW_TAG not in experiment.tags:
        client.set_experiment_tag(experiment.experiment_id, _VIEW_TAG, _EXPERIMENT_TAGS[_VIEW_TAG])
    return str(experiment.experiment_id)


def found(question: Callable[..., Any], *arguments: str) -> Any:
    """What a method of the client returns; None where the store has no such thing."""
    from mlflow.exceptions import MlflowException

    try:
        return question(*arguments)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def log_dataset(client: Any, run_id: str, data: Mapping[str, Any]) -> None:
    """Logs the data set of a run (the entry "data" of run.json) as an input of its MLflow run."""
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.exceptions import MlflowException

    source = json.dumps({"uri": data["root"]}, ensure_ascii=False)
    profile = json.dumps(data["records"], ensure_ascii=False)
    dataset = Dataset(data["name"], data["fingerprint"], "local", source, profile=profile)
    inputs = [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])]
    try:
        client.log_inputs(run_id, datasets=inputs)
    except MlflowException:
        # An experiment keeps one row per data set, and two runs that both add it collide: now it is there.
        client.log_inputs(run_id, datasets=inputs)

"""Finding runs in an MLflow store and fetching their files."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spectro.errors import SpectroError
from spectro.paths import redact, sqlite_path
from spectro.tracking import store
from spectro.tracking.sender import reason_of

_MOST = 50_000  # runs that MLflow gives at a time


def find_runs(uri: str, ids: Iterable[str] = (), experiment: str | None = None) -> dict[str, dict[str, str]]:
    """Runs of a store, or those of an experiment that were not deleted, from the oldest to the newest.

    In the place of a run that has children (a sweep) stand its children. An experiment takes the place of ``ids``.

    Returns:
        Id -> tags of the run.

    Raises:
        SpectroError: The store cannot be asked, an id is unknown, or there is no such experiment.
    """
    with asking(uri) as client:

        def search(experiment_id: str, query: str = "") -> list[Any]:
            order = ["attributes.start_time ASC"]
            return list(client.search_runs([experiment_id], query, order_by=order, max_results=_MOST))

        runs: list[Any] = []
        if experiment is not None:
            known = client.get_experiment_by_name(experiment)
            if known is None:
                names = ", ".join(sorted(e.name for e in client.search_experiments()))
                raise SpectroError(f"MLflow experiment: got {experiment!r}; allowed in {redact(uri)}: {names}")
            runs, ids = search(known.experiment_id), ()
        for run_id in ids:
            run = store.found(client.get_run, run_id)
            if run is None or run.info.lifecycle_stage == "deleted":
                raise SpectroError(f"got MLflow run id {run_id!r}; allowed: the id of a run in {redact(uri)}")
            runs += search(run.info.experiment_id, f"tags.`mlflow.parentRunId` = '{run_id}'") or [run]
    parents = {run.data.tags.get("mlflow.parentRunId") for run in runs}
    return {run.info.run_id: dict(run.data.tags) for run in runs if run.info.run_id not in parents}


def download(uri: str, run_id: str, names: Iterable[str], into: Path) -> Path:
    """Fetches files of a run, named by their paths below its artifacts; one that the run does not have is left out.

    Returns:
        The folder with the files, which is made in the existing folder ``into`` and named after the run.

    Raises:
        SpectroError: The store cannot be asked.
    """
    folder = into / run_id
    folder.mkdir()
    with asking(uri) as client:
        for name in names:
            parent = name.rpartition("/")[0] or None
            if name in {artifact.path for artifact in client.list_artifacts(run_id, parent)}:
                client.download_artifacts(run_id, name, str(folder))
    return folder


@contextmanager
def asking(uri: str) -> Iterator[Any]:
    """A client of a store that is there; an error inside becomes one line."""
    database = sqlite_path(uri)
    if database is not None and not database.is_file():
        raise SpectroError(f"MLflow: got {database}, which does not exist; allowed: --tracking-uri with another store")
    try:
        with store.settings(store.PATIENT):
            yield store.connect(uri)
    except SpectroError:
        raise
    except Exception as error:  # mlflow lets through what its stores, drivers and servers raise: any type
        raise SpectroError(f"MLflow at {redact(uri)} cannot be asked ({reason_of(error)})") from error

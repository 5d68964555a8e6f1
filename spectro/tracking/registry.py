"""Models by name: what ``models:/NAME@ALIAS`` and ids of runs stand for, and the registration of a run's model."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectro.classifiers.manifest import MANIFEST, check_manifest
from spectro.errors import ModelError, SpectroError
from spectro.files import read_json
from spectro.paths import cut, redact
from spectro.tracking import store
from spectro.tracking.lookup import asking
from spectro.tracking.models import INSIDE, has_model, local_folder, log_model, model_of_run
from spectro.tracking.sender import MLFLOW_ID, files_of

_BY_NAME = re.compile(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))")
# Of a version, in MLflow's databases.
_MAX_DESCRIPTION = 5000


@dataclass(frozen=True)
class Version:
    """A registered version of a model: its number, and the run that it comes from."""

    number: str
    run_id: str | None


def is_reference(name: str) -> bool:
    """Whether a name is one that `fetch_model` takes."""
    return name.startswith("models:/") or MLFLOW_ID.fullmatch(name) is not None


def fetch_model(name: str, uri: str, into: Path) -> Path:
    """The ``model/`` folder of a model in MLflow; none of MLflow's code in it is run.

    Args:
        name: ``models:/NAME@ALIAS``, ``models:/NAME/NUMBER``, or the id of a run; of a search it is its final run's.
        uri: The only store that is asked.
        into: An existing folder, for files that are not on this machine.

    Raises:
        ModelError: There is no such model, or its files are not those of its manifest.
        SpectroError: The store cannot be asked.
    """
    with asking(uri) as client:
        location, inside = _location(client, name, uri)
        folder = local_folder(location)
        if folder is not None:
            folder /= inside
        else:
            from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

            folder = Path(get_artifact_repository(location, tracking_uri=uri).download_artifacts(inside, str(into)))
    if not (folder / MANIFEST).is_file():
        raise ModelError(f"MODEL: got {name!r}, which holds no model of spectro; allowed: one that a run was logged as")
    check_manifest(folder)
    return folder


def _location(client: Any, name: str, uri: str) -> tuple[str, str]:
    """The address of the artifacts that hold a model, and its folder in them."""
    match = _BY_NAME.fullmatch(name)
    if name.startswith("models:/") and not match:
        raise ModelError(f"MODEL: got {name!r}; allowed: models:/NAME@ALIAS, models:/NAME/NUMBER")
    if match:
        model, alias, number = match.groups()
        ask = client.get_model_version_by_alias if alias else client.get_model_version
        version = store.found(ask, model, alias or number)
        if version is None:
            models = client.search_registered_models()
            known = [f"models:/{model.name}@{alias}" for model in models for alias in sorted(model.aliases)]
            allowed = ", ".join(known) or "none is registered"
            raise ModelError(f"MODEL: got {name!r}, which is not in {redact(uri)}; allowed there: {allowed}")
        return client.get_model_version_download_uri(version.name, version.version), INSIDE
    run = store.found(client.get_run, name)
    if run is None:
        raise ModelError(f"MODEL: got MLflow run id {name!r}; allowed: the id of a run in {redact(uri)}")
    final = f"tags.`mlflow.parentRunId` = '{name}' and tags.final = 'true'"
    finals = client.search_runs([run.info.experiment_id], f"{final} and attributes.status = 'FINISHED'")
    if len(finals) > 1:
        ids = ", ".join(sorted(run.info.run_id for run in finals))
        raise ModelError(f"MODEL: got MLflow run id {name!r}, a search with several final runs; allowed: one of {ids}")
    run = finals[0] if finals else run
    logged = model_of_run(client, run.info.experiment_id, run.info.run_id)
    return (run.info.artifact_uri, "model") if logged is None else (logged.artifact_location, INSIDE)


def champion_of(uri: str, name: str, alias: str) -> Version | None:
    """The version of a registered model that has an alias; None where there is none.

    Raises:
        SpectroError: The store cannot be asked.
    """
    with asking(uri) as client:
        version = store.found(client.get_model_version_by_alias, name, alias)
    return None if version is None else Version(str(version.version), version.run_id)


def register(
    uri: str, run_id: str, folder: Path | None, name: str, alias: str, description: str, tags: Mapping[str, str]
) -> str:
    """Makes a run's model the version of a registered model that has an alias; a run has one version of it.

    Args:
        uri: The store.
        run_id: The run.
        folder: Its directory, whose model is logged if it was not; None: only MLflow has the run.
        name: The registered model, which is created if there is none.
        alias: The alias, which moves to this version as the last step.
        description: Of the version, in Markdown; of a version that has one the first paragraph is put above it.
        tags: Of the version; others that it has stay.

    Returns:
        The number of the version.

    Raises:
        SpectroError: The store cannot be asked, or does not have the run or its model.
    """
    with asking(uri) as client:
        run = store.found(client.get_run, run_id)
        if run is None:
            raise SpectroError(f"MLflow at {redact(uri)} does not have the run {folder or run_id}: spectro resend")
        model = model_of_run(client, run.info.experiment_id, run_id)
        if model is None and folder is not None and has_model(info := read_json(folder / "run.json"), folder):
            log_model(client, run, folder, info, files_of(folder))
            model = model_of_run(client, run.info.experiment_id, run_id)
        if model is None:
            raise SpectroError(f"the run {folder or run_id} has no model in MLflow; allowed: a run with one")
        if store.found(client.get_registered_model, name) is None:
            client.create_registered_model(name)
        versions = client.search_model_versions(f"name = '{name}'")
        version = next((v for v in versions if v.run_id == run_id), None) or client.create_model_version(
            name, model.artifact_location, run_id=run_id, model_id=model.model_id
        )
        number = str(version.version)
        first, _, others = description.partition("\n\n")
        text = f"{first}\n\n{version.description or others}"
        client.update_model_version(name, number, cut(text, _MAX_DESCRIPTION))
        for key, value in tags.items():
            client.set_model_version_tag(name, number, key, value)
        client.set_registered_model_alias(name, alias, number)
    return number

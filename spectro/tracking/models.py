"""Models of runs, logged beside them as MLflow's own kind of model."""

import base64
import io
import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from spectro.classifiers.manifest import MANIFEST
from spectro.files import link, remove_drafts, write_json, write_text

# A copy of it is logged with each model.
_CODE = Path(__file__).parents[1] / "runs" / "mlflow_model.py"
_NAME = "model"
# Where the files of the ``model/`` folder lie inside a logged model.
INSIDE = "artifacts/model"
# Not spectro: the package of this name on PyPI is another one.
_REQUIRED = ("mlflow", "numpy", "scikit-learn", "pillow")
_REQUIRED_BY_NETWORKS = ("torch", "timm")


def has_model(run: Mapping[str, Any], run_dir: Path) -> bool:
    """Whether a run is logged as a model: a finished one with a whole model, unless ``tracking.log_model`` is false."""
    is_on = (run["config"].get("tracking") or {}).get("log_model", True)
    return bool(is_on) and run["status"] == "FINISHED" and (run_dir / "model" / MANIFEST).is_file()


def log_model(client: Any, stored: Any, run_dir: Path, run: Mapping[str, Any], files: Iterable[Path]) -> str:
    """Logs the model of a finished run as MLflow's own kind of model, once; no file holds a pickle.

    ``stored`` is the run in MLflow, ``run`` the content of its run.json. ``files`` of the run directory may be sent;
    where MLflow's are files of this machine they are linked.

    Returns:
        The id of the logged model.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    run_id, experiment = stored.info.run_id, stored.info.experiment_id
    model = model_of_run(client, experiment, run_id)
    if model is None:
        tags = {key: str(run["tags"][key]) for key in ("model", "stage") if key in run["tags"]}
        model = client.create_logged_model(experiment, _NAME, source_run_id=run_id, tags=tags, model_type="spectro")
    if model.status != LoggedModelStatus.READY:
        with tempfile.TemporaryDirectory() as scratch:
            _describe(Path(scratch), model, run_dir, run)
            logged = {path.name: path for path in Path(scratch).iterdir()}
            source = run_dir / "model"
            inside = (path for path in files if path.is_relative_to(source))
            logged |= {f"{INSIDE}/{path.relative_to(source).as_posix()}": path for path in inside}
            folder = local_folder(model.artifact_location)
            if folder is not None:
                remove_drafts(folder)
            for name, path in logged.items():
                if folder is not None:
                    link(path, folder / name)
                else:
                    client.log_model_artifact(model.model_id, str(path), name.rpartition("/")[0] or None)
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    return str(model.model_id)


def local_folder(uri: str) -> Path | None:
    """The folder of artifacts that a ``file:`` address or a plain path names; None for another address."""
    from mlflow.utils.file_utils import local_file_uri_to_path

    return Path(local_file_uri_to_path(uri)) if urlsplit(uri).scheme in ("", "file") else None


def model_of_run(client: Any, experiment: str, run_id: str) -> Any:
    """The logged model of a run; None where there is none."""
    found = client.search_logged_models([experiment], f"source_run_id = '{run_id}'")
    return next((model for model in found if model.name == _NAME), None)


def _describe(folder: Path, model: Any, run_dir: Path, run: Mapping[str, Any]) -> None:
    """Writes what MLflow needs beside the files of a model: its code, its signature, an example, its requirements.

    As `mlflow.pyfunc.save_model` does, which would first look at every file of every installed package.
    """
    from mlflow.models import Model, ModelSignature
    from mlflow.pyfunc import add_to_model
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import AnyType

    use = json.loads((run_dir / "model" / "use.json").read_text(encoding="utf-8"))
    has_review = (run_dir / "model" / "review.json").is_file()
    inputs: list[Any] = [ColSpec(AnyType(), "image", required=False), ColSpec("string", "path", required=False)]
    answers: list[Any] = [
        ColSpec("string", "prediction"),
        *(ColSpec("double", f"p_{label}") for label in use["classes"]),
        *([ColSpec("boolean", "review"), ColSpec("string", "reason")] if has_review else []),
    ]
    versions = run["versions"]
    names = (*_REQUIRED, *(_REQUIRED_BY_NETWORKS if run["networks"] or "embed" in run["config"] else ()))
    pins, python = [f"{name}=={versions[name]}" for name in names if name in versions], versions["python"]
    example = {"columns": ["image"], "data": [[_blank(use["crop"])]]}
    described = Model(
        artifact_path=model.artifact_location,
        model_uuid=model.model_id,
        model_id=model.model_id,
        run_id=model.source_run_id,
        signature=ModelSignature(Schema(inputs), Schema(answers)),
        saved_input_example_info={
            "type": "dataframe",
            "pandas_orient": "split",
            "artifact_path": "input_example.json",
            "serving_input_path": "serving_input_example.json",
        },
    )
    add_to_model(
        described,
        loader_module="mlflow.pyfunc.loaders.code_model",
        model_code_path=_CODE.name,
        artifacts={"model": {"path": INSIDE, "uri": INSIDE}},
        model_config={"image_folder": None, "plugins": list(run["config"].get("plugins") or [])},
        conda_env="conda.yaml",
        python_env="python_env.yaml",
    )
    conda = {"name": "spectro", "channels": ["conda-forge"], "dependencies": [f"python={python}", "pip", {"pip": pins}]}
    write_text(folder / "requirements.txt", "\n".join([*pins, ""]))
    write_json(folder / "conda.yaml", conda)  # JSON is YAML
    write_json(folder / "python_env.yaml", {"python": python, "dependencies": ["-r requirements.txt"]})
    write_json(folder / "input_example.json", example)
    write_json(folder / "serving_input_example.json", {"dataframe_split": example})
    shutil.copyfile(_CODE, folder / _CODE.name)
    described.save(str(folder / "MLmodel"))


def _blank(crop: Mapping[str, int]) -> str:
    """A white image that something is left of, as base64: a user's own would be in every copy of the model."""
    from PIL import Image

    file, size = io.BytesIO(), (crop["left"] + crop["right"] + 64, crop["top"] + crop["bottom"] + 64)
    Image.new("L", size, 255).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()

"""Models of runs in MLflow: what a server answers, what it refuses, and what lies in the store."""

import base64
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import read_json, read_rows
from PIL import Image
from test_review import reasons

from spectro.errors import DataError, ModelError, SpectroError
from spectro.paths import CONF
from spectro.runs.runinfo import RunInfo
from spectro.runs.served import ServedModel
from spectro.tracking import send_now, store
from spectro.tracking.registry import fetch_model, register


@pytest.fixture(scope="module")
def run_dir(run_of: Callable[..., Path]) -> Path:
    """A finished run of a cascade, that MLflow does not have."""
    return run_of()


@pytest.fixture(scope="module")
def records(run_dir: Path, demo_root: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Its test records: the file, and the row of predictions.csv as a server's answer."""
    rows = [row for row in read_rows(run_dir / "predictions.csv") if row["split"] == "test"]
    columns = [name for name in rows[0] if name.startswith("p_")]
    files = [demo_root / row["path"] for row in rows]
    answers = [
        {"prediction": row["predicted"], **{n: float(row[n]) for n in columns}, "review": bool(why), "reason": why}
        for row, why in zip(rows, reasons(run_dir / "model", files), strict=True)
    ]
    return list(zip(files, answers, strict=True))


def text(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()


def pixels(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file).convert("RGB"))


FORMS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "base64": lambda file: {"image": text(file)},
    "bytes": lambda file: {"image": file.read_bytes()},
    "array": lambda file: {"image": pixels(file), "path": None},
    "lists": lambda file: {"image": pixels(file).tolist(), "path": float("nan")},
    "path": lambda file: {"path": str(file)},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_an_image_has_the_numbers_of_predictions_csv(
    form: str, run_dir: Path, records: Any, demo_root: Path
) -> None:
    """To the last digit, alone and together: another way to read an image would be another model."""
    model = ServedModel(run_dir / "model", str(demo_root))
    records = records[: 1 if form == "lists" else None]  # they are slow
    expected = [answer for _, answer in records]
    for size in (1, len(records)):
        parts = [records[i : i + size] for i in range(0, len(records), size)]
        columns = [model.predict([FORMS[form](file) for file, _ in part]) for part in parts]
        answers = [dict(zip(c, row, strict=True)) for c in columns for row in zip(*c.values(), strict=True)]
        assert answers == expected


BAD = {
    "nothing": ({}, "got no image"),
    "both": ({"image": "aaaa", "path": "a.png"}, "got image and path"),
    "no base64": ({"image": "no base64!"}, "no base64"),
    "no image": ({"image": base64.b64encode(b"text").decode()}, "not a PNG"),
    "a number": ({"image": 3}, "allowed: uint8"),
    "ragged": ({"image": [[1, 2], [3]]}, "image|inhomogeneous"),
    "too bright": ({"image": [[256]]}, "allowed: 0 to 255"),
    "fractions": ({"image": [[0.5]]}, "allowed: uint8"),
    "outside": ({"path": "../secret.png"}, "allowed: image files in image_folder"),
    "absolute": ({"path": "/etc/passwd"}, "allowed: image files in image_folder"),
    "a link": ({"path": "link.png"}, "allowed: image files in image_folder"),
    "a pipe": ({"path": "pipe"}, "allowed: image files in image_folder"),
    "NUL": ({"path": "a\0"}, "allowed: image files in image_folder"),
    "a bomb": ({"image": "BOMB"}, "absurdly large"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_row_without_a_usable_image_is_named(kind: str, run_dir: Path, records: Any, tmp_path: Path) -> None:
    """One message, no prediction; a path leads to no file of the server but those in the folder that is named."""
    row, message = BAD[kind]
    (tmp_path / "images").mkdir()
    (tmp_path / "secret.png").write_bytes(records[0][0].read_bytes())
    (tmp_path / "images" / "link.png").symlink_to(tmp_path / "secret.png")
    os.mkfifo(tmp_path / "images" / "pipe")
    if kind == "a bomb":
        Image.new("1", (20000, 6000)).save(tmp_path / "bomb.png")
        row = {"image": text(tmp_path / "bomb.png")}
    good = {"image": text(records[0][0])}
    with pytest.raises(DataError, match=f"row 1: .*({message})"):
        ServedModel(run_dir / "model", str(tmp_path / "images")).predict([good, row])
    if "path" in row:
        with pytest.raises(DataError, match=r"paths are refused|got image and path"):
            ServedModel(run_dir / "model").predict([row])


@pytest.fixture
def sent(run_dir: Path, database: Path) -> RunInfo:
    """The run in a store that is a file."""
    info = RunInfo.read(run_dir)
    info.mlflow = type(info.mlflow).new(f"sqlite:///{database}", database.parent)
    info.mlflow = send_now(run_dir, info.content())
    return info


def test_a_finished_run_is_a_model_without_pickles_and_takes_no_space(sent: RunInfo, database: Path) -> None:
    """Once, also if it is sent again; not if it is not wanted; MLflow's own loading gives its predictions."""
    client = store.connect(f"sqlite:///{database}")
    send_now(sent.folder, sent.content())
    (model,) = client.search_logged_models([sent.mlflow.experiment_id])
    assert (model.source_run_id, str(model.status)) == (sent.mlflow.run_id, "READY")
    logged = Path(model.artifact_location.removeprefix("file://"))
    files = {path.relative_to(logged).as_posix(): path for path in logged.rglob("*") if path.is_file()}
    assert {"MLmodel", "mlflow_model.py", "requirements.txt", "artifacts/model/manifest.json"} <= files.keys()
    assert not [name for name in files if name.endswith(("pkl", "pickle", "joblib"))]
    assert "\nspectro" not in files["requirements.txt"].read_text()  # on PyPI that is somebody else's
    assert all("==" in line for line in files["requirements.txt"].read_text().split())
    for name, path in files.items():
        if name.startswith("artifacts/"):
            assert path.samefile(sent.folder / name.removeprefix("artifacts/"))
    assert sum(path.stat().st_size for name, path in files.items() if not name.startswith("artifacts/")) < 20_000
    content = sent.content()
    content["config"]["tracking"]["log_model"] = False
    send_now(sent.folder, {**content, "mlflow": {**content["mlflow"], "run_id": None}, "started_at": 1.0})
    assert len(client.search_logged_models([sent.mlflow.experiment_id])) == 1


def test_a_model_is_found_by_run_name_and_alias_and_checked(
    sent: RunInfo, database: Path, tmp_path: Path, spectro: Callable[..., Any], records: Any
) -> None:
    """What cannot be had is one message that names what is there; a damaged file is not believed."""
    uri, run_id = f"sqlite:///{database}", str(sent.mlflow.run_id)
    assert register(uri, run_id, sent.folder, "records", "champion", "text", {"split": "cv"}) == "1"
    folders = [fetch_model(name, uri, tmp_path) for name in (run_id, "models:/records@champion", "models:/records/1")]
    assert len(set(folders)) == 1
    for name, message in {
        "models:/records@other": "allowed there: models:/records@champion",
        "models:/nope/1": "which is not in",
        "models:/records": "allowed: models:/NAME@ALIAS",
        "f" * 32: "MLflow run id",
    }.items():
        with pytest.raises(SpectroError, match=message):
            fetch_model(name, uri, tmp_path)
    use = folders[0] / "use.json"
    content = use.read_text()
    use.unlink()  # not written over: it is the run's file
    use.write_text(f"{content} ")
    with pytest.raises(ModelError, match="damaged"):
        fetch_model(run_id, uri, tmp_path)


def post(port: int, body: Any, kind: str = "application/json") -> tuple[int, Any]:
    """Status and content of an answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", data, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def started(command: Sequence[object], port: int, **environment: str) -> subprocess.Popen:
    """A server of MLflow, once it answers."""
    path = f"{CONF.parent}:{os.environ.get('PYTHONPATH', '')}"
    words = [sys.executable, "-m", "mlflow", *map(str, command), "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "PYTHONPATH": path, "MLFLOW_DISABLE_TELEMETRY": "true", **environment}
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):
        assert process.poll() is None
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            return process
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(str(words))


@pytest.fixture
def server(sent: RunInfo, database: Path) -> Iterator[SimpleNamespace]:
    """`mlflow models serve` of the run's model, under its registered name."""
    uri, port = f"sqlite:///{database}", free_port()
    register(uri, str(sent.mlflow.run_id), sent.folder, "records", "champion", "", {})
    command = ["models", "serve", "-m", "models:/records@champion", "--env-manager", "local"]
    process = started(command, port, MLFLOW_TRACKING_URI=uri)
    yield SimpleNamespace(port=port, process=process)
    process.terminate()
    process.wait(30)


@pytest.mark.slow
def test_a_real_server_answers_and_survives(server: SimpleNamespace, records: Any) -> None:
    """Over HTTP: one image, a hundred, clients at the same time, and whatever else a client may send."""
    expected = [answer for _, answer in records]
    images = [text(file) for file, _ in records]
    many = [i % len(images) for i in range(100)]

    def ask(numbers: Sequence[int]) -> Any:
        data = {"columns": ["image"], "data": [[images[i]] for i in numbers]}
        return post(server.port, {"dataframe_split": data})

    for numbers in ([0], many):
        assert ask(numbers) == (200, {"predictions": [expected[i] for i in numbers]})
    row = {"image": pixels(records[0][0]).tolist()}
    for body in ({"dataframe_records": [row]}, {"dataframe_records": [{"image": images[0]}]}):
        assert post(server.port, body) == (200, {"predictions": expected[:1]})
    malformed = [b"", b"\xff", b"[", b"[]", b"{}", b"3", {"dataframe_split": 3}, {"dataframe_records": [{"other": 1}]}]
    malformed += [{"dataframe_records": []}, {"dataframe_records": [{"path": "/etc/hosts"}]}, {"instances": [[1]]}]
    malformed += [{"inputs": {"image": ["no base64!"]}}, {"dataframe_split": {"columns": ["image"], "data": [[None]]}}]
    malformed += [{"dataframe_records": [value for value, _ in BAD.values()][:8]}]
    for body in malformed:
        status, content = post(server.port, body)
        assert 400 <= status < 500, (body, content)
    for kind in ("text/html", "text/csv"):
        assert 400 <= post(server.port, f"image\n{images[0]}\n".encode(), kind)[0] < 500
    with ThreadPoolExecutor(8) as clients:
        assert list(clients.map(ask, [[i] for i in many])) == [(200, {"predictions": [expected[i]]}) for i in many]
    assert server.process.poll() is None


@pytest.mark.slow
def test_a_model_goes_to_a_server_once_and_comes_back(run_dir: Path, database: Path, tmp_path: Path) -> None:
    """To another machine files are copied: those of a model once, and they come back whole."""
    port = free_port()
    uri, artifacts = f"http://127.0.0.1:{port}", tmp_path / "server"
    command = ["server", "--backend-store-uri", f"sqlite:///{database}", "--artifacts-destination", artifacts]
    process = started(command, port)
    try:
        info = RunInfo.read(run_dir)
        info.mlflow = send_now(run_dir, {**info.content(), "mlflow": {"tracking_uri": uri}})
        assert len(list(artifacts.rglob("model/manifest.json"))) == 1
        register(uri, str(info.mlflow.run_id), None, "records", "champion", "text", {})
        for name in ("models:/records@champion", str(info.mlflow.run_id)):
            (tmp_path / name[-8:]).mkdir()
            folder = fetch_model(name, uri, tmp_path / name[-8:])
            assert read_json(folder / "manifest.json") == read_json(run_dir / "model" / "manifest.json")
    finally:
        process.terminate()
        process.wait(30)

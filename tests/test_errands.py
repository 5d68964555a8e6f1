"""The errands of the pages docs/how-to/new_*.md, done in a folder of one's own exactly as the pages show them.

A page's code blocks are its files (a line with the file's path in backquotes stands above each) and its commands.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from spectro.paths import CONF

HOME = CONF.parent
_BLOCK = re.compile(
    r"^(?:`(?P<path>[^`\n]+)`[^\n]*:\n\n)?```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
# Small data, and no second store of results.
QUICK = ["data.scale=0.3", "tracking.uri=null"]
pytestmark = pytest.mark.slow


def spectro(arguments: Sequence[str], folder: Path) -> str:
    """What ``spectro`` prints in a folder; it must succeed."""
    code = "import sys; sys.argv[0] = 'spectro'; from spectro.cli.commands import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(HOME)}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"spectro {shlex.join(arguments)}\n{done.stdout}{done.stderr}"
    return done.stdout


def blocks(page: str) -> list[re.Match[str]]:
    """The code blocks of a page."""
    return list(_BLOCK.finditer((HOME / "docs" / "how-to" / f"{page}.md").read_text(encoding="utf-8")))


def write_files(page: str, folder: Path) -> None:
    """Writes the files of a page."""
    for block in blocks(page):
        if block["path"]:
            path = folder / block["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block["text"], encoding="utf-8")


def follow(page: str, folder: Path) -> list[str]:
    """Writes the files of a page into an empty folder and runs its commands: what each of them prints."""
    write_files(page, folder)
    outputs = []
    for block in blocks(page):
        for line in block["text"].replace("\\\n", " ").splitlines() if block["kind"] == "sh" else ():
            program, *arguments = shlex.split(line, comments=True)
            assert program == "spectro"
            takes_overrides = arguments[0] in ("train", "show-augmentation") and "--help" not in arguments
            outputs.append(spectro([*arguments, *(QUICK if takes_overrides else [])], folder))
    return outputs


def metrics_of(folder: Path) -> list[dict]:
    """``metrics.json`` of all runs in a folder, oldest first."""
    paths = sorted(folder.glob("outputs/runs/*/metrics.json"), key=lambda path: path.stat().st_mtime)
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def test_new_metric(tmp_path: Path) -> None:
    """A metric of the user's module is in files with its interval, on the terminal, and an objective."""
    outputs = follow("new_metric", tmp_path)
    first, second = metrics_of(tmp_path)
    assert "worst recall" in outputs[0]
    assert {"worst_recall", "worst_recall_ci_low"} <= set(first["test"])
    assert first["objective"] == first["val"]["worst_recall"]
    assert {"worst_recall", "macro_f2", "macro_f2_ci_high"} <= set(second["test"])


def test_new_search_space(tmp_path: Path) -> None:
    """A space of the user's folder is searched, and the command line changes it."""
    follow("new_search_space", tmp_path)
    lines = [path.read_text(encoding="utf-8").splitlines() for path in tmp_path.glob("outputs/sweeps/*/trials.csv")]
    assert sorted(len(trials) - 1 for trials in lines) == [4, 6]


def test_new_model(tmp_path: Path) -> None:
    """A family of the user's module and folder: help, runs, cross-validation, a stage of a cascade, prediction."""
    outputs = follow("new_model", tmp_path)
    assert "discriminant.shrinkage" in outputs[0]
    plain, kfold, cascade = metrics_of(tmp_path)
    assert "macro_f1" in kfold["cv"]
    assert plain["test"] != cascade["test"]
    run_dir = min(tmp_path.glob("outputs/runs/*_discriminant_*"), key=lambda path: path.stat().st_mtime)
    images = list(tmp_path.glob("outputs/demo/*/test/*/*.png"))[:2]
    predict = ["predict", str(run_dir), *map(str, images)]
    table = spectro([*predict, "--plugin", "survey.discriminant"], tmp_path).splitlines()
    assert len(table) == 3
    with pytest.raises(AssertionError, match="--plugin"):
        spectro(predict, tmp_path)


def test_new_augmentation(tmp_path: Path) -> None:
    """A random transform, views, a composed list and one of torchvision, of a function and files of the user."""
    follow("new_augmentation", tmp_path)
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in tmp_path.glob("outputs/runs/*/run.json")]
    assert sorted(run["tags"]["augmentation"] for run in runs) == ["noise", "noise", "noise+turned", "spectrogram+blur"]
    assert (tmp_path / "noise.png").is_file()


def test_a_knob(tmp_path: Path) -> None:
    """One declaration and one YAML line: in help, with its range, and in what a run records."""
    write_files("new_model", tmp_path)
    module, options = tmp_path / "survey" / "discriminant.py", tmp_path / "conf" / "model" / "discriminant.yaml"
    declaration = "    shrinkage: Annotated[float, Field(ge=0, le=1)] = 0.5\n"
    module.write_text(
        module.read_text().replace(declaration, f"{declaration}    tol: Annotated[float, Field(gt=0)] = 1e-4\n")
    )
    options.write_text(options.read_text() + "  tol: 0.0001  # threshold of singular values\n")
    words = ["train", "--config-dir", "conf", "model=discriminant"]
    assert "discriminant.tol=0.0001" in spectro([*words, "--help"], tmp_path)
    with pytest.raises(AssertionError, match=r"discriminant\.tol: got -1"):
        spectro([*words, "discriminant.tol=-1"], tmp_path)
    spectro([*words, "discriminant.tol=0.01", *QUICK], tmp_path)
    newest = max(tmp_path.glob("outputs/runs/*/run.json"), key=lambda path: path.stat().st_mtime)
    assert json.loads(newest.read_text(encoding="utf-8"))["config"]["discriminant"]["tol"] == 0.01


def test_another_number_in_mlflow(tmp_path: Path) -> None:
    """Whatever stands in metrics.json is in MLflow."""
    spectro(["train", "model=pixels", "data.scale=0.3"], tmp_path)
    (path,) = tmp_path.glob("outputs/runs/*/metrics.json")
    content = json.loads(path.read_text(encoding="utf-8"))
    content["n_leaks"] = 3
    content["test"]["leak_rate"] = 0.25
    path.write_text(json.dumps(content), encoding="utf-8")
    spectro(["resend", str(path.parent)], tmp_path)
    from mlflow.tracking import MlflowClient

    entry = json.loads((path.parent / "run.json").read_text(encoding="utf-8"))["mlflow"]
    metrics = MlflowClient(f"sqlite:///{tmp_path}/outputs/mlflow.db").get_run(entry["run_id"]).data.metrics
    assert (metrics["n_leaks"], metrics["test/leak_rate"]) == (3, 0.25)

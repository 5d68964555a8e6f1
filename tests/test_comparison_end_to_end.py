"""Comparisons of runs that were really made, from the command line, and through MLflow."""

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from conftest import read_json
from test_comparison import make_run

from spectro.cli import main as cli
from spectro.comparison import compare
from spectro.errors import SpectroError

SHARED = Path(os.environ.get("SPECTRO_SHARED", "../shared")).absolute()
WEIGHTS = SHARED / "weights" / "vit_small_patch14_dinov2.safetensors"


@pytest.mark.parametrize(
    "validation", [["validation=holdout"], ["validation=kfold", "validation.k=2", "cascade_stage=flat"]]
)
def test_a_baseline_is_a_run_that_is_made_once(
    validation: list[str],
    run_here: Callable[..., Path],
    demo_root: Path,
    tmp_path: Path,
    spectro: Callable[..., Any],
) -> None:
    """It is what ``model=pixels`` gives by itself, with the validation of the runs, and a model that can be used."""
    data = (f"data.demo_dir={demo_root}", "data.scale=0.1", *validation)
    hog = run_here(*data, "model=hog_svm", name="hog")
    pixels = run_here(*data, "model=pixels", name="pixels")
    cost = read_json(hog / "run.json")["cost"]
    assert cost["predict_records_per_s"] > 0
    assert cost["fit_s"] > 0
    assert cost["trainable_parameters"] is None

    outputs = tmp_path / "outputs"
    fitted, folder = compare([hog], outputs=outputs)
    (baseline,) = (model for model in fitted.models if model.name == "pixels")
    assert baseline.is_baseline
    run = baseline.runs[0].info.folder
    assert (run / "predictions.csv").read_text() == (pixels / "predictions.csv").read_text()
    assert spectro("predict", run, demo_root / "test").returncode == 0
    assert (folder / "figures" / "scores.png").stat().st_size > 1000
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert text.count("data:image/jpeg;base64,") == len(fitted.wrong)

    again, _ = compare([hog], outputs=outputs)
    assert next(run for model in again.models for run in model.runs if model.is_baseline).info.folder == run
    done = spectro("compare", hog, pixels, "--outputs", outputs, "--names", "a,b")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" a ")
    command = re.search(r"next: +spectro predict \S+ new_images/ --out predictions.csv", done.stdout)
    assert (command is None) == done.stdout.startswith("Use none yet")
    assert len(list((outputs / "runs").iterdir())) == 1


def test_images_that_have_changed_are_not_used(run_here: Callable[..., Path], demo_root: Path, tmp_path: Path) -> None:
    """A baseline fitted to other images would be no baseline."""
    root = tmp_path / "records"
    shutil.copytree(demo_root, root)
    hog = run_here(f"data.root={root}", "data=folder", "mapping=field", "model=hog_svm", name="one")
    image = next((root / "train").rglob("*.png"))
    shutil.copy(next((root / "test").rglob("*.png")), image.with_name("another.png"))
    result, _ = compare([hog], outputs=tmp_path / "outputs")
    assert [model.name for model in result.models if model.is_baseline] == ["majority class"]
    assert any("left out: the images in" in note for note in result.notes)
    assert not (tmp_path / "outputs" / "runs").exists()


@pytest.mark.slow
@pytest.mark.skipif(not WEIGHTS.exists(), reason="needs pretrained weights")
def test_frozen_features_are_a_baseline_where_their_weights_are(
    run_here: Callable[..., Path], demo_root: Path, tmp_path: Path
) -> None:
    """Nothing is downloaded: weights count that a run took from a file, or that the hub's cache has."""
    data = (f"data.demo_dir={demo_root}", "data.scale=0.1", "cascade_stage=flat")
    hog = run_here(*data, "model=hog_svm", name="outputs/runs/hog")
    run_here(*data, "seed=1", "model=embed", "svm.C=1", f"embed.weights={WEIGHTS}", name="outputs/runs/another")
    result, _ = compare([hog], outputs=tmp_path / "outputs")
    assert [model.name for model in result.models if model.is_baseline] == ["pixels", "embed", "majority class"]


def test_a_name_is_that_of_the_run(spectro: Callable[..., Any], tmp_path: Path) -> None:
    """In its folder, in MLflow and in comparisons."""
    words = ["data.scale=0.1", "model=pixels", "cascade_stage=flat", "tracking.uri=null"]
    assert spectro("train", "name=my best", *words).returncode == 0
    (run,) = (tmp_path / "outputs" / "runs").iterdir()
    assert run.name.endswith("_my_best")
    assert read_json(run / "run.json")["run_name"] == "my best"
    with pytest.raises(SpectroError, match="name: got 'a/b'; allowed: 1 to 40 letters"):
        cli.composed(["name=a/b"])


def test_nonsense_ends_with_one_message(tmp_path: Path, spectro: Callable[..., Any]) -> None:
    """Exit code 2, no traceback, nothing written."""
    outputs = tmp_path / "outputs"
    for arguments, message in (
        (["nonsense"], "got 'nonsense'"),
        ([], "got no runs"),
        ([tmp_path], "not a run directory"),
        (["--experiment", "field"], "--tracking-uri"),
    ):
        done = spectro("compare", *arguments, "--outputs", outputs)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert not outputs.exists()


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, template: Path) -> dict[str, Any]:
    """Two runs and a failed one that MLflow has, and their ids."""
    from spectro.runs.runinfo import RunInfo
    from spectro.tracking import MlflowEntry

    outputs = tmp_path_factory.mktemp("stored")
    shutil.copy(template, outputs / "mlflow.db")
    entry = asdict(MlflowEntry.new(f"sqlite:///{outputs / 'mlflow.db'}", outputs))
    ids = []
    for seed, status in enumerate(["FINISHED", "FINISHED", "FAILED"]):
        info = {"mlflow": entry, "status": status, "ended_at": 2000.0, "host": "another", "pid": 1}
        folder = make_run(outputs / "runs" / f"r{seed}", [seed], seed=seed, info=info)
        RunInfo.read(folder).send_to_mlflow()
        ids.append(read_json(folder / "run.json")["mlflow"]["run_id"])
    return {"outputs": outputs, "ids": ids}


def test_an_experiment_is_compared_and_the_comparison_is_sent(stored: dict[str, Any]) -> None:
    """And a second time its own comparison is no run to be compared."""
    from spectro.tracking.lookup import find_runs

    for _ in range(2):
        result, folder = compare([], outputs=stored["outputs"], experiment="field")
        assert result.candidates[0].seeds == [0, 1]
        assert any("FAILED" in note for note in result.notes)
    uri = f"sqlite:///{stored['outputs'] / 'mlflow.db'}"
    sent = [tags for tags in find_runs(uri, experiment="field").values() if "kind" in tags]
    assert [tags["mlflow.runName"] for tags in sent] == ["comparison of hog_svm"] * 2
    note = sent[0]["mlflow.note.content"]
    assert "on test" in note or "test records" in note
    assert "| hog_svm |" in note
    assert "figures/scores.png" in note
    assert read_json(folder / "run.json")["mlflow"]["sent"]


def test_a_run_whose_directory_is_gone_comes_from_mlflow(stored: dict[str, Any], tmp_path: Path) -> None:
    """MLflow has the files too; where the directory is still there, it is read."""
    uri = f"sqlite:///{stored['outputs'] / 'mlflow.db'}"
    here, _ = compare([stored["ids"][0]], outputs=stored["outputs"])
    assert here.runs[0].info.folder.name == "r0"
    away, folder = compare(stored["ids"][:2], outputs=tmp_path / "elsewhere", tracking_uri=uri)
    assert [run.origin for run in away.runs] == [f"MLflow run {run_id}" for run_id in stored["ids"][:2]]
    assert (away.runs[0].predictions.predicted == here.runs[0].predictions.predicted).all()
    assert folder.parent == tmp_path / "elsewhere" / "comparison"
    with pytest.raises(SpectroError, match="FAILED"):
        compare([stored["ids"][2]], outputs=tmp_path / "elsewhere", tracking_uri=uri)
    with pytest.raises(SpectroError, match="got MLflow run id 'ffff"):
        compare(["f" * 32], outputs=tmp_path / "elsewhere", tracking_uri=uri)
    with pytest.raises(SpectroError, match=r"'nothing'; allowed in .*: Default, field"):
        compare([], outputs=stored["outputs"], experiment="nothing")


def test_a_store_that_is_away_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The report is there all the same."""
    make_run(tmp_path / "outputs" / "runs" / "one")
    _, folder = compare(["one"], outputs=tmp_path / "outputs", tracking_uri="http://127.0.0.1:9")
    assert (folder / "report.html").exists()
    assert len([record for record in caplog.records if "did not take the run" in record.getMessage()]) == 1

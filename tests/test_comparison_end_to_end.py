"""Comparisons of runs that were really made, from the command line, and through MLflow."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from test_comparison import make_run

from spectro.comparison import compare
from spectro.errors import SpectroError


@pytest.mark.parametrize(
    "validation", [["validation=holdout"], ["validation=kfold", "validation.k=2", "cascade_stage=flat"]]
)
def test_real_runs_are_compared_with_the_pixels_baseline(
    validation: list[str], run_here: Callable[..., Path], demo_root: Path, tmp_path: Path, spectro: Callable[..., Any]
) -> None:
    """The baseline that is fitted here is what ``model=pixels`` gives by itself, and the images of errors are shown.

    Beside models that are fitted to train and val one that is fitted to train alone would be too easy to beat.
    """
    data = (f"data.demo_dir={demo_root}", "data.scale=0.1", *validation)
    hog = run_here(*data, "model=hog_svm", name="hog")
    pixels = run_here(*data, "model=pixels", name="pixels")
    cost = json.loads((hog / "run.json").read_text())["cost"]
    assert cost["predict_records_per_s"] > 0
    assert cost["fit_s"] > 0
    assert cost["trainable_parameters"] is None

    fitted, folder = compare([hog], outputs=tmp_path / "outputs")
    given, _ = compare([hog, pixels], outputs=tmp_path / "outputs")
    baseline = {model.name: model for model in fitted.models}["pixels baseline"]
    run = {model.name: model for model in given.models}["pixels"]
    assert baseline.votes.tolist() == run.votes.tolist()
    # A baseline beside refits is not calibrated, which needs a cross-validation.
    temperature = json.loads((pixels / "run.json").read_text())["temperature"]["flat"] if len(validation) > 1 else 1
    power = baseline.probabilities ** (1 / temperature)
    assert power / power.sum(axis=1, keepdims=True) == pytest.approx(run.probabilities)
    assert baseline.cost.predict_records_per_s > 0
    assert (folder / "figures" / "scores.png").stat().st_size > 1000
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert text.count("data:image/jpeg;base64,") == len(fitted.wrong)

    done = spectro("compare", hog, pixels, "--outputs", tmp_path / "outputs")
    assert done.returncode == 0, done.stderr
    assert "hog_svm" in done.stdout
    assert "report.html" in done.stdout


def test_images_that_have_changed_are_not_used(run_here: Callable[..., Path], demo_root: Path, tmp_path: Path) -> None:
    """A baseline fitted to other images would be no baseline."""
    root = tmp_path / "records"
    shutil.copytree(demo_root, root)
    hog = run_here(f"data.root={root}", "data=folder", "mapping=field", "model=pixels", name="one")
    image = next((root / "train").rglob("*.png"))
    shutil.copy(next((root / "test").rglob("*.png")), image.with_name("another.png"))
    run = json.loads((hog / "run.json").read_text())
    run["config"]["model"]["name"] = "other"
    (hog / "run.json").write_text(json.dumps(run))
    result, _ = compare([hog], outputs=tmp_path / "outputs")
    assert [model.name for model in result.models if model.is_baseline] == ["majority class"]
    assert any("left out: the images in" in note for note in result.notes)


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
def stored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two runs and a failed one that MLflow has, and their ids."""
    from spectro.runs.runinfo import RunInfo
    from spectro.tracking import MlflowEntry

    outputs = tmp_path_factory.mktemp("stored") / "outputs"
    entry = asdict(MlflowEntry.new(f"sqlite:///{outputs / 'mlflow.db'}", outputs))
    ids = []
    for seed, status in enumerate(["FINISHED", "FINISHED", "FAILED"]):
        info = {"mlflow": entry, "status": status, "ended_at": 2000.0, "host": "another", "pid": 1}
        folder = make_run(outputs / "runs" / f"r{seed}", [seed], seed=seed, info=info)
        RunInfo.read(folder).send_to_mlflow()
        ids.append(json.loads((folder / "run.json").read_text())["mlflow"]["run_id"])
    return {"outputs": outputs, "ids": ids}


def test_an_experiment_is_compared_and_the_comparison_is_sent(stored: dict[str, Any]) -> None:
    """And a second time its own comparison is no run to be compared."""
    from spectro.tracking.lookup import find_runs

    for _ in range(2):
        result, folder = compare([], outputs=stored["outputs"], experiment="field")
        assert result.candidates[0].seeds == [0, 1]
        assert any("FAILED" in note for note in result.notes)
    uri = f"sqlite:///{stored['outputs'] / 'mlflow.db'}"
    names = [tags["mlflow.runName"] for tags in find_runs(uri, experiment="field").values() if "kind" in tags]
    assert names == ["comparison of hog_svm"] * 2
    assert json.loads((folder / "run.json").read_text())["mlflow"]["sent"]


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

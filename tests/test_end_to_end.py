"""Whole runs: what a person types, what lies in the run directory then, and what is left of one that ends badly."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_tree, read_json, read_rows
from PIL import Image
from test_network_runs import tiny

from spectro.classifiers import load
from spectro.cli import main as cli
from spectro.errors import ConfigError, DataError, SpectroError
from spectro.paths import CONF
from spectro.runs.results import hints
from spectro.runs.task import Task, load_data

TRAIN = CONF.parent / "train.py"
FILES = {"metrics.json", "predictions.csv", "records.csv", "risk_coverage.csv", "run.json", "model", "figures"}
LABELS = ["brak_Empty zone", "шум", "a[1].b"]
FLAT = ["data=folder", "cascade_stage=flat"]
# Small descriptors: what they see is not the point here.
SMALL = ["hog.size_px=32", "hog.cell_px=8"]
SPLITS = ("train", "val", "test")

RunHere = Callable[..., Path]
Tree = Callable[[Mapping], Path]


def train(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command, env = [sys.executable, TRAIN, *arguments], {**os.environ, **environment}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=180, check=False)


def contents(run_dir: Path) -> dict[str, bytes]:
    """Every file of a run but what names its time and place."""
    apart = {"run.json", "train.log"}
    files = sorted(path for path in run_dir.rglob("*") if path.is_file() and ".hydra" not in path.parts)
    return {p.relative_to(run_dir).as_posix(): p.read_bytes() for p in files if p.name not in apart}


def probabilities(rows: Sequence[Mapping[str, str]], classes: Sequence[str]) -> np.ndarray:
    return np.array([[float(row[f"p_{label}"]) for label in classes] for row in rows])


@pytest.fixture
def data(demo_root: Path) -> list[str]:
    """Overrides of the small demo data and small descriptors."""
    return [f"data.demo_dir={demo_root}", "data.scale=0.1", *SMALL]


@pytest.fixture(scope="module")
def full_run(run_of: Callable[..., Path]) -> Path:
    """One whole run of the cascade with its figures, without a command line."""
    return run_of("figures=all", *SMALL)


# --- The run directory ---


def test_metrics_are_as_the_contract_says(full_run: Path) -> None:
    """Other programs read these keys."""
    metrics = read_json(full_run / "metrics.json")
    assert set(metrics) == {"val", "test", "stages", "objective"}
    assert set(metrics["stages"]) == {"easy", "hard"}
    assert metrics["objective"] == metrics["val"]["macro_f1"]
    rows = read_rows(full_run / "predictions.csv")
    for split in ("val", "test"):
        for reports in (metrics, *metrics["stages"].values()):
            report = reports[split]
            assert {"macro_f1", "accuracy", "balanced_accuracy", "per_class", "classes"} <= set(report)
            assert list(report["per_class"]) == report["classes"]
            for label, row in zip(report["classes"], report["confusion_matrix"], strict=True):
                assert {"precision", "recall", "f1", "support"} <= set(report["per_class"][label])
                # Rows are the truth.
                assert sum(row) == report["per_class"][label]["support"]
        classes = metrics[split]["classes"]
        pairs = [(row["label"], row["predicted"]) for row in rows if row["split"] == split]
        matrix = [[pairs.count((label, predicted)) for predicted in classes] for label in classes]
        assert metrics[split]["confusion_matrix"] == matrix


def test_predictions_are_as_the_contract_says(full_run: Path, demo_root: Path) -> None:
    """One row for each record of val and test; the prediction is the largest probability; rows sum to 1."""
    rows = read_rows(full_run / "predictions.csv")
    classes = sorted(path.name for path in (demo_root / "train").iterdir())
    assert list(rows[0]) == ["split", "path", "source", "label", "predicted", *(f"p_{label}" for label in classes)]
    images = [p.relative_to(demo_root).as_posix() for s in ("val", "test") for p in (demo_root / s).rglob("*.png")]
    assert sorted(row["path"] for row in rows) == sorted(images)
    assert all(row["path"] == f"{row['split']}/{row['label']}/{row['source']}.png" for row in rows)
    p = probabilities(rows, classes)
    assert np.abs(p.sum(axis=1) - 1).max() < 1e-12
    assert [row["predicted"] for row in rows] == [classes[i] for i in p.argmax(axis=1)]


def test_records_and_run_metadata_name_what_was_used(full_run: Path, demo_root: Path) -> None:
    """A result must be traceable to its images, its configuration and its code."""
    records = read_rows(full_run / "records.csv")
    assert list(records[0]) == ["split", "path", "source", "folder", "label", "sha256"]
    assert len(records) == len(list(demo_root.rglob("*.png")))
    info = read_json(full_run / "run.json")
    assert (info["status"], info["reason"], info["seed"]) == ("FINISHED", None, 0)
    assert info["ended_at"] > info["started_at"]
    assert info["config"]["svm"]["C"] == 30.0
    places = ("tracking_uri", "artifact_location", "run_id", "experiment_id")
    assert info["mlflow"] == {**dict.fromkeys(places), "sent": False}
    assert {"data", "fit", "evaluate", "write", "figures"} <= set(info["wall_s"])
    assert {"python", "spectro", "torch", "scikit-learn", "mlflow", "hydra-core"} <= set(info["versions"])
    assert len(info["data"]["fingerprint"]) == 16
    assert info["git_commit"] is None or len(info["git_commit"].removesuffix("-dirty")) == 40
    assert info["data"]["left_out"] == {}
    counted = {s: sum(labels.values()) for s, labels in info["data"]["records"].items()}
    assert counted == {s: sum(row["split"] == s for row in records) for s in SPLITS}


def test_model_holds_no_code_and_figures_are_images(full_run: Path) -> None:
    """A pickle in a model folder would run whatever its author wanted."""
    endings = {path.suffix for path in (full_run / "model").rglob("*") if path.is_file()}
    assert endings <= {".json", ".skops", ".safetensors"}
    names = {path.name for path in (full_run / "figures").iterdir()}
    stages = ("", "_easy", "_hard")
    assert {f"confusion_{split}{stage}.png" for split in ("val", "test") for stage in stages} <= names
    assert {"wrong_val.png", "wrong_test.png", *(f"recall{stage}.png" for stage in stages)} <= names
    for path in (full_run / "figures").iterdir():
        with Image.open(path) as image:
            assert image.size[0] > 100


# --- The same again ---


def test_same_seed_gives_the_same_bytes(full_run: Path, data: list[str], run_here: RunHere) -> None:
    """Metrics, tables, figures and model: a difference between two runs must come from what was changed."""
    assert contents(run_here(*data, "figures=all")) == contents(full_run)


@pytest.mark.slow
def test_the_command_line_gives_what_python_gives(full_run: Path, data: list[str], tmp_path: Path) -> None:
    """Other processes, hash seeds and alphabets of the terminal, a cache first cold and then warm: the same bytes."""
    arguments = ["tracking.uri=null", "figures=all", *data, "hydra.run.dir=outputs/${seed}"]
    for hash_seed, encoding in (("1", "utf-8"), ("2", "ascii")):
        done = train(*arguments, cwd=tmp_path, PYTHONHASHSEED=hash_seed, PYTHONIOENCODING=encoding)
        assert (done.returncode, done.stderr) == (0, "")
        assert "macro-F1" in done.stdout
        assert "outputs/0" in done.stdout
        run_dir = tmp_path / "outputs" / "0"
        assert {path.name for path in run_dir.iterdir()} == FILES | {".hydra"}
        assert contents(run_dir) == contents(full_run)
        assert read_json(run_dir / "run.json")["command"] == ["train.py", *arguments]
        shutil.rmtree(run_dir)


# --- Stages ---


@pytest.mark.parametrize("stage", ["easy", "hard", "flat"])
def test_stages(stage: str, full_run: Path, data: list[str], run_here: RunHere) -> None:
    """A stage alone is the stage inside the cascade: what is tuned on it must hold there."""
    run_dir = run_here(*data, f"cascade_stage={stage}", "objective=val/accuracy")
    metrics, cascade = read_json(run_dir / "metrics.json"), read_json(full_run / "metrics.json")
    alone = {split: metrics[split] for split in ("val", "test")}
    assert metrics["stages"] == {}
    assert metrics["objective"] == alone["val"]["accuracy"]
    assert list(load(run_dir / "model").classes_) == alone["test"]["classes"]
    n_records = sum(report["n_records"] for report in alone.values())
    assert len(read_rows(run_dir / "predictions.csv")) == n_records == (5 if stage == "hard" else 9)
    if stage == "flat":
        assert alone["test"]["classes"] == cascade["test"]["classes"]
    else:
        # Thresholds are of the whole task.
        alone = {s: {k: v for k, v in report.items() if not k.startswith("automatic")} for s, report in alone.items()}
        assert alone == cascade["stages"][stage]


def test_the_knob_of_one_stage_changes_that_stage(full_run: Path, data: list[str], run_here: RunHere) -> None:
    """``stages.hard.svm.C`` that arrived nowhere would look like a tuned cascade."""
    other = run_here(*data, "stages.hard.svm.C=0.01", "objective=hard/val/accuracy")
    files = {name: (contents(full_run)[name], text) for name, text in contents(other).items()}
    assert len(set(files["model/easy/pipeline.skops"])) == 1
    assert len(set(files["model/hard_0/pipeline.skops"])) == 2
    metrics = read_json(other / "metrics.json")
    assert metrics["objective"] == metrics["stages"]["hard"]["val"]["accuracy"]


def test_two_groups_of_look_alikes(tree: Tree, run_here: RunHere) -> None:
    """Group names may hold anything; the stages' metrics carry them, files carry numbers."""
    root = tree({name: 6 for name in ("p", "s", "q", "r", "other")})
    groups = "mapping.look_alikes={on_set: [p, s], x/y: [q, r]}"
    words = ["data=folder", f"data.root={root}", groups, "objective=hard/x/y/val/accuracy"]
    run_dir = run_here(*words, *SMALL, "figures=all")
    metrics = read_json(run_dir / "metrics.json")
    assert set(metrics["stages"]) == {"easy", "hard/on_set", "hard/x/y"}
    assert metrics["objective"] == metrics["stages"]["hard/x/y"]["val"]["accuracy"]
    # Of all groups together, and in the whole task alone: a hard stage's macro-F1 is its own.
    test = metrics["test"]
    assert test["hard_pair_classes"] == ["p", "q", "r", "s"]
    assert test["hard_pair_f1"] == pytest.approx(np.mean([test["per_class"][label]["f1"] for label in "pqrs"]))
    assert not any("hard_pair_f1" in splits["test"] for splits in metrics["stages"].values())
    assert (run_dir / "figures" / "recall_hard_1.png").exists()
    assert list(load(run_dir / "model").classes_) == ["other", "p", "q", "r", "s"]


# --- A user's own folders ---


def test_a_folder_without_splits(tree: Tree, run_here: RunHere) -> None:
    """Three images a class, labels of any alphabet: one for each split, and every table keeps the labels."""
    run_dir = run_here(*FLAT, f"data.root={tree(dict.fromkeys(LABELS, 3))}", *SMALL)
    info = read_json(run_dir / "run.json")
    assert info["data"]["split_here"] is True
    assert info["data"]["records"] == {split: dict.fromkeys(sorted(LABELS), 1) for split in SPLITS}
    rows = read_rows(run_dir / "predictions.csv")
    assert {row["label"] for row in rows} == set(LABELS)
    assert {f"p_{label}" for label in LABELS} <= set(rows[0])
    assert list(load(run_dir / "model").classes_) == sorted(LABELS)


def test_splits_on_disk_stay_and_a_class_may_be_in_train_alone(tree: Tree, run_here: RunHere) -> None:
    """A split on disk is somebody's decision. A class without records elsewhere is reported with support 0."""
    counts = {"train": {"a": 4, "b": 4, "c": 2}, "val": {"a": 2, "b": 2}, "test": {"a": 3, "b": 2}}
    run_dir = run_here(*FLAT, f"data.root={tree(counts)}", *SMALL)
    info, metrics = read_json(run_dir / "run.json"), read_json(run_dir / "metrics.json")
    assert info["data"]["split_here"] is False
    assert info["data"]["records"] == {s: {label: counts[s].get(label, 0) for label in "abc"} for s in SPLITS}
    for split in ("val", "test"):
        assert metrics[split]["classes"] == ["a", "b", "c"]
        assert metrics[split]["per_class"]["c"]["support"] == 0
        assert metrics[split]["macro_f1_classes"] == ["a", "b"]


@pytest.mark.parametrize("stage", ["easy", "hard", "full"])
def test_look_alikes_with_a_single_training_record(stage: str, tree: Tree, run_here: RunHere) -> None:
    """The smallest data that can be trained on must come through."""
    mapping = ["mapping.look_alikes={m: [p, s]}", f"cascade_stage={stage}"]
    run_dir = run_here("data=folder", f"data.root={tree({'a': 4, 'p': 2, 's': 3})}", *mapping, *SMALL)
    assert read_json(run_dir / "run.json")["status"] == "FINISHED"


def test_the_hard_pair_of_a_flat_task_may_be_the_objective(
    tree: Tree, tmp_path: Path, run_here: RunHere, capsys: Any
) -> None:
    """Also where nothing is merged the look-alikes are what matters; without them in val there is no objective."""
    overrides = [*FLAT, "mapping.look_alikes={m: [p, s]}", "objective=val/hard_pair_f1", *SMALL]
    run_dir = run_here(*overrides, f"data.root={tree({'a': 6, 'p': 6, 's': 6})}")
    metrics = read_json(run_dir / "metrics.json")
    assert metrics["objective"] == metrics["val"]["hard_pair_f1"]
    shown = capsys.readouterr().out
    assert "hard pair F1" in shown
    assert max(map(len, shown.split("95 %: ")[0].splitlines())) <= 80
    without = make_tree(tmp_path / "without", {"train/a": 3, "train/p": 3, "train/s": 3, "val/a": 2, "test/a": 2})
    with pytest.raises(DataError, match=r"objective: got 'val/hard_pair_f1', but val has no records"):
        run_here(*overrides, f"data.root={without}", name="refused")


def test_without_val_records_a_run_needs_no_objective(tree: Tree, run_here: RunHere) -> None:
    """Two images a class leave val empty: an objective of nothing is refused, a run without one works."""
    root = tree({"a": 2, "b": 2})
    with pytest.raises(DataError, match=r"objective: got 'val/macro_f1', but val has no records"):
        run_here(*FLAT, f"data.root={root}", *SMALL, name="refused")
    run_dir = run_here(*FLAT, f"data.root={root}", "objective=null", *SMALL)
    metrics = read_json(run_dir / "metrics.json")
    assert (metrics["objective"], metrics["val"]["macro_f1"]) == (None, None)


def test_a_score_above_that_of_test_is_explained(tree: Tree) -> None:
    """People believe the higher number; the line says why it may be too high, and what to try."""
    root = tree({"train": {"a": 8, "b": 3}, "val": {"a": 6, "b": 4}, "test": {"a": 6, "b": 6}})
    high, low = {"macro_f1": 0.9}, {"macro_f1": 0.6, "macro_f1_ci_low": 0.5, "macro_f1_ci_high": 0.7}
    for validation, split, hint in (
        ("holdout", "val", "validation=kfold evaluates 21 and fits the model to all of them (7 of b instead of 3)"),
        ("kfold", "cv", "validation=leave_one_group_out"),
        ("kfold validation.refit=false", "cv", "validation.refit=true"),
    ):
        config = cli.composed([*FLAT, f"data.root={root}", *f"validation={validation}".split(), *SMALL])
        task = Task(config, load_data(config))
        (line,) = hints(task, {split: high, "test": low})
        assert hint in line
        assert hints(task, {split: low, "test": high | {"macro_f1_ci_high": 0.95}}) == []


def test_test_labels_choose_nothing(tree: Tree, run_here: RunHere) -> None:
    """The same run with the test folders' labels exchanged must be the same model."""
    counts = {"train": 8, "val": 5, "test": 4}
    records = tree({split: dict.fromkeys(("a", "p", "s"), n) for split, n in counts.items()})
    overrides = ["data=folder", f"data.root={records}", "mapping.look_alikes={m: [p, s]}", *SMALL]
    before = run_here(*overrides, name="before")
    for label, other in (("p", "x"), ("s", "p"), ("x", "s")):
        (records / "test" / label).rename(records / "test" / other)
    after = run_here(*overrides, name="after")
    for path in (before / "model").rglob("model.json"):
        assert path.read_bytes() == (after / path.relative_to(before)).read_bytes()


def test_warnings_of_a_run(tree: Tree, run_here: RunHere) -> None:
    """A mistyped source leaves a wrong image in; a stage with fewer than 8 val records keeps temperature 1."""
    root = tree({"train/a": 4, "train/p": 4, "train/s": 4, "val/a": 4, "val/p": 4, "val/s": 3, "test/a": 1})
    words = [
        "mapping.look_alikes={m: [p, s]}",
        "augmentation=mirror_halves",
        "augmentation.exclude={nobody: [double_l]}",
    ]
    info = read_json(run_here("data=folder", f"data.root={root}", *words, *SMALL) / "run.json")
    assert info["temperature"]["hard"] == 1
    assert info["temperature"]["easy"] != 1
    assert [line.split(":")[0] for line in info["warnings"] if "temperature" in line] == ["temperature of stage hard"]
    assert any("nobody" in line for line in info["warnings"])


def test_bad_files_that_are_left_out_are_listed(tree: Tree, run_here: RunHere) -> None:
    """A record that silently went missing would make two results incomparable."""
    root = tree({"a": 6, "b": 6})
    (root / "a" / "bad.png").write_bytes(b"no image")
    (root / "b" / "empty.png").touch()
    with pytest.raises(DataError, match=r"(?s)bad file: a/bad.png.*data.on_bad_file=skip leaves the 2 bad files out"):
        run_here(*FLAT, f"data.root={root}", *SMALL, name="refused")
    info = read_json(run_here(*FLAT, f"data.root={root}", "data.on_bad_file=skip", *SMALL) / "run.json")
    assert set(info["data"]["left_out"]) == {"a/bad.png", "b/empty.png"}
    assert any("bad files left out: 2" in line for line in info["warnings"])


# --- Bad input ---


def remove_val(root: Path) -> None:
    shutil.rmtree(root / "val")


def copy_into_test(root: Path) -> None:
    path = next((root / "train" / "a").iterdir())
    shutil.copy(path, root / "test" / "a" / path.name)


def empty_a_class(root: Path) -> None:
    for path in (root / "train" / "b").iterdir():
        path.unlink()


def rename_all(root: Path) -> None:
    for path in root.rglob("*.png"):
        path.rename(path.with_suffix(".txt"))


@pytest.mark.parametrize(
    ("spoil", "extra", "message"),
    [
        (None, "mapping=lake", "'a' is neither in mapping.classes nor in mapping.left_out.*class 'brak' has no"),
        (None, "mapping.look_alikes={m: [a, wind]}", "mapping.look_alikes.m: got 'wind'; allowed: a, b"),
        (None, "data.crop.left=48", r"bad file: .*data.crop \(left 48"),
        (None, "augmentation.exclude={SOURCES}", "augmentation.exclude: leaves a class"),
        (remove_val, "", "split missing: val"),
        (copy_into_test, "", "in two splits"),
        (empty_a_class, "", "class 'b' has no training images"),
        (rename_all, "", "no images found.*DIR/{train,val,test}/<class>/"),
        (shutil.rmtree, "", "data.root: got.*allowed: a folder that exists"),
    ],
)
def test_data_that_do_not_fit_are_refused_before_a_run_is_there(
    spoil: Callable[[Path], None] | None, extra: str, message: str, tree: Tree, run_here: RunHere, tmp_path: Path
) -> None:
    """One message with everything that is wrong, and no trace of a run."""
    root = tree({f"{split}/{label}": 3 for split in SPLITS for label in ("a", "b")})
    sources = ", ".join(f"{path.stem}: [original, mirrored]" for path in (root / "train" / "a").iterdir())
    if spoil is not None:
        spoil(root)
    words = [extra.replace("SOURCES", sources)] if extra else []
    with pytest.raises(SpectroError, match=f"(?s){message}"):
        run_here(*FLAT, f"data.root={root}", "augmentation=mirror", *words, *SMALL)
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["svm.C=abc"], "svm.C: got 'abc'; allowed: number"), ([*FLAT, "data.root=~/no such folder"], "data.root: got")],
    ids=["config", "data"],
)
def test_a_user_error_ends_with_2_and_leaves_nothing(
    tmp_path: Path, spectro: Callable[..., Any], arguments: list[str], message: str
) -> None:
    """One message, no traceback, no run directory, no MLflow run."""
    done = spectro("train", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []
    assert not list(tmp_path.glob("outputs/runs/*"))


def test_full_error_shows_the_traceback(spectro: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the place in the code."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ConfigError, match=r"svm\.C: got 'abc'"):
        spectro("train", "svm.C=abc")


# --- Runs that end badly ---


def test_a_run_that_ends_badly_is_marked(data: list[str], run_here: RunHere, tmp_path: Path) -> None:
    """A run that is marked RUNNING for ever cannot be told from one that runs."""

    def fail(stage: str, history: Any) -> None:
        assert read_json(tmp_path / "run" / "run.json")["status"] == "RUNNING"
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        run_here(*tiny("resnet18", epochs=1), *data[:2], on_epoch=fail)
    info = read_json(tmp_path / "run" / "run.json")
    assert (info["status"], info["reason"]) == ("FAILED", "RuntimeError: boom")
    assert info["ended_at"] is not None


def test_ctrl_c_marks_the_run_killed(data: list[str], tmp_path: Path) -> None:
    """Exit code 130, no traceback, and run metadata that name the reason."""
    # Sent at a fixed place: where else an interrupt lands is chance, and libraries may turn it into errors of theirs.
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom spectro.classifiers import PixelsClassifier\n"
        "from spectro.cli import main as cli\nfrom spectro.runs.run import run\n"
        "PixelsClassifier.fit = lambda *_: os.kill(os.getpid(), signal.SIGINT)\n"
        "cli.guard(lambda: run(cli.composed(sys.argv[1:]), Path.cwd()))\n"
    )
    arguments = [sys.executable, "-c", code, "tracking.uri=null", "model=pixels", *data[:2]]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
    info = read_json(tmp_path / "run.json")
    assert (info["status"], info["reason"]) == ("KILLED", "interrupted")


# --- Several runs, and MLflow ---


@pytest.mark.slow
def test_a_multirun_is_one_run_over_its_jobs(data: list[str], tmp_path: Path) -> None:
    """One folder with a run directory for each job; in MLflow twenty jobs belong visibly together."""
    from mlflow import MlflowClient

    done = train("--multirun", "model=pixels", "seed=0,1", "cascade_stage=flat,easy", *data[:2], cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    (folder,) = tmp_path.glob("outputs/sweeps/*")
    parent = read_json(folder / "run.json")
    assert (parent["status"], parent["mlflow"]["sent"]) == ("FINISHED", True)
    assert parent["run_name"] == "multirun seed=0,1 cascade_stage=flat,easy"
    client = MlflowClient(f"sqlite:///{tmp_path}/outputs/mlflow.db")
    assert client.get_run(parent["mlflow"]["run_id"]).info.status == "FINISHED"
    assert sorted(path.name for path in folder.glob("[0-9]*")) == ["0", "1", "2", "3"]
    for number in range(4):
        job = folder / str(number)
        assert {path.name for path in job.iterdir()} >= FILES
        info = read_json(job / "run.json")
        assert (info["status"], info["seed"]) == ("FINISHED", number // 2)
        assert info["config"]["cascade_stage"]["name"] == ["flat", "easy"][number % 2]
        run = client.get_run(info["mlflow"]["run_id"])
        assert run.data.tags["mlflow.parentRunId"] == parent["mlflow"]["run_id"]
    assert "job 3 of 4: seed=1 cascade_stage=flat" in done.stdout
    assert "HYDRA" not in done.stdout
    assert f"spectro compare {folder.relative_to(tmp_path)}" in done.stdout


@pytest.mark.slow
def test_a_run_is_in_mlflow_as_well(data: list[str], tmp_path: Path) -> None:
    """The default: a database and artifacts under outputs/, the run finished, its metrics those of the file."""
    from mlflow import MlflowClient

    done = train(*data, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "mlflow ui --backend-store-uri sqlite:///outputs/mlflow.db" in done.stdout
    (run_dir,) = (tmp_path / "outputs" / "runs").iterdir()
    info, metrics = read_json(run_dir / "run.json"), read_json(run_dir / "metrics.json")
    assert info["mlflow"]["sent"] is True
    run = MlflowClient(f"sqlite:///{tmp_path}/outputs/mlflow.db").get_run(info["mlflow"]["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["hard/val/macro_f1"] == round(metrics["stages"]["hard"]["val"]["macro_f1"], 4)
    for name in ("macro_f1", "accuracy", "balanced_accuracy", "hard_pair_f1"):
        for end in ("", "_ci_low", "_ci_high"):
            assert run.data.metrics[f"test/{name}{end}"] == round(metrics["test"][name + end], 4)
    assert run.data.params["svm.C"] == "30.0"

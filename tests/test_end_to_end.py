"""Whole runs: what a person types, what lies in the run directory then, and what is left of one that ends badly."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_tree, read_json, read_rows
from PIL import Image

from spectro.classifiers import load
from spectro.cli import main as cli
from spectro.errors import ConfigError, DataError, SpectroError
from spectro.paths import CONF
from spectro.runs import results
from spectro.runs import run as experiment
from spectro.runs.runinfo import RunInfo
from spectro.runs.task import Task

TRAIN = CONF.parent / "train.py"
FILES = {"metrics.json", "predictions.csv", "records.csv", "run.json", "model", "figures"}
LABELS = ["brak_Empty zone", "шум", "a[1].b"]
FLAT = ["data=folder", "mapping=identity", "cascade_stage=flat"]
# Small descriptors: what they see is not the point here.
SMALL = ["hog.size_px=32", "hog.cell_px=8"]

RunHere = Callable[..., Path]
Tree = Callable[[Mapping], Path]


def train(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, TRAIN, *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def contents(run_dir: Path) -> dict[str, bytes]:
    """Every file of a run but what names its time and place."""
    apart = {"run.json", "train.log"}
    files = sorted(path for path in run_dir.rglob("*") if path.is_file() and ".hydra" not in path.parts)
    return {p.relative_to(run_dir).as_posix(): p.read_bytes() for p in files if p.name not in apart}


def probabilities(rows: Sequence[Mapping[str, str]], classes: Sequence[str]) -> np.ndarray:
    return np.array([[float(row[f"p_{label}"]) for label in classes] for row in rows])


@pytest.fixture(scope="module")
def full_run(demo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whole run of the cascade with its figures, without a command line."""
    run_dir = tmp_path_factory.mktemp("full")
    config = cli.composed(
        ["tracking.uri=null", "data.cache_dir=null", f"data.demo_dir={demo_root}", "data.scale=0.1", *SMALL]
    )
    assert experiment.run(config, run_dir) == read_json(run_dir / "metrics.json")["objective"]
    return run_dir


# --- The run directory ---


def test_metrics_are_as_the_contract_says(full_run: Path) -> None:
    """Other programs read these keys."""
    metrics = read_json(full_run / "metrics.json")
    assert set(metrics) == {"val", "test", "stages", "objective"}
    assert set(metrics["stages"]) == {"easy", "hard"}
    assert metrics["objective"] == metrics["val"]["macro_f1"]
    rows = read_rows(full_run / "predictions.csv")
    for tables in (metrics, *metrics["stages"].values()):
        for split in ("val", "test"):
            table = tables[split]
            assert {"macro_f1", "accuracy", "balanced_accuracy", "per_class", "classes"} <= set(table)
            assert list(table["per_class"]) == table["classes"]
            for label, row in zip(table["classes"], table["confusion_matrix"], strict=True):
                assert {"precision", "recall", "f1", "support"} <= set(table["per_class"][label])
                # Rows are the truth.
                assert sum(row) == table["per_class"][label]["support"]
    for split in ("val", "test"):
        classes = metrics[split]["classes"]
        told = [[row["label"], row["predicted"]] for row in rows if row["split"] == split]
        matrix = [[told.count([truth, guess]) for guess in classes] for truth in classes]
        assert metrics[split]["confusion_matrix"] == matrix


def test_predictions_are_as_the_contract_says(full_run: Path, demo_root: Path) -> None:
    """One row for each record of val and test; the prediction is the largest probability; rows sum to 1."""
    rows = read_rows(full_run / "predictions.csv")
    classes = sorted(path.name for path in (demo_root / "train").iterdir())
    assert list(rows[0]) == ["split", "path", "source", "label", "predicted", *(f"p_{label}" for label in classes)]
    there = {p.relative_to(demo_root).as_posix() for s in ("val", "test") for p in (demo_root / s).rglob("*.png")}
    assert {row["path"] for row in rows} == there
    assert len(rows) == len(there)
    for row in rows:
        assert row["path"] == f"{row['split']}/{row['label']}/{row['source']}.png"
    p = probabilities(rows, classes)
    assert np.abs(p.sum(axis=1) - 1).max() < 1e-12
    assert [row["predicted"] for row in rows] == [classes[i] for i in p.argmax(axis=1)]


def test_records_and_card_say_what_was_used(full_run: Path, demo_root: Path) -> None:
    """A result must be traceable to its images, its configuration and its code."""
    records = read_rows(full_run / "records.csv")
    assert list(records[0]) == ["split", "path", "source", "folder", "label", "sha256"]
    assert len(records) == len(list(demo_root.rglob("*.png")))
    info = read_json(full_run / "run.json")
    assert (info["status"], info["reason"], info["seed"]) == ("FINISHED", None, 0)
    assert info["ended_at"] > info["started_at"]
    assert info["config"]["svm"]["C"] == 1.0
    assert info["mlflow"] == {
        "tracking_uri": None,
        "artifact_location": None,
        "run_id": None,
        "experiment_id": None,
        "sent": False,
    }
    assert {"data", "fit", "evaluate", "write", "figures"} <= set(info["wall_s"])
    assert {"python", "spectro", "torch", "scikit-learn", "mlflow", "hydra-core"} <= set(info["versions"])
    assert len(info["data"]["fingerprint"]) == 16
    assert info["git_commit"] is None or len(info["git_commit"].removesuffix("-dirty")) == 40
    assert info["data"]["left_out"] == {}
    counted = {s: sum(labels.values()) for s, labels in info["data"]["records"].items()}
    assert counted == {s: sum(row["split"] == s for row in records) for s in ("train", "val", "test")}


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


def test_a_loaded_model_gives_the_same_probabilities_in_a_new_process(full_run: Path, demo_root: Path) -> None:
    """To the last bit, or a stored prediction could not be checked."""
    code = (
        "import csv, json, sys\nfrom pathlib import Path\nfrom spectro.classifiers import load\n"
        "from spectro.data import Crop, Images, ImageStore\nfrom spectro.data.images import file_digest\n"
        "run, root = map(Path, sys.argv[1:])\n"
        "model, use = load(run / 'model'), json.loads((run / 'model/use.json').read_text())\n"
        "paths = [root / row['path'] for row in csv.DictReader(open(run / 'predictions.csv', encoding='utf-8'))]\n"
        "store, digests = ImageStore(crop=Crop(**use['crop'])), [file_digest(p) for p in paths]\n"
        "assert store.add(paths, digests, model.specs) == {}\n"
        "for row in model.predict_proba(Images(store, digests)): print(*(float(p).hex() for p in row))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, full_run, demo_root],
        cwd=TRAIN.parent,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    seen = [[float.fromhex(text) for text in line.split()] for line in done.stdout.splitlines()]
    rows = read_rows(full_run / "predictions.csv")
    classes = load(full_run / "model").classes_
    # Batches of another size may round differently: images of val and test are asked for together here.
    assert np.array_equal(seen, probabilities(rows, classes))


def test_same_seed_gives_the_same_bytes(full_run: Path, demo_root: Path, run_here: RunHere) -> None:
    """Metrics, tables, figures and model: a difference between two runs must come from what was changed."""
    again = run_here(f"data.demo_dir={demo_root}", "data.scale=0.1", *SMALL, figures=True)
    assert contents(again) == contents(full_run)


@pytest.mark.slow
def test_the_command_line_gives_what_python_gives(full_run: Path, demo_root: Path, tmp_path: Path) -> None:
    """Other processes, hash seeds and alphabets of the terminal, a cache first cold and then warm: the same bytes."""
    arguments = [
        "tracking.uri=null",
        f"data.demo_dir={demo_root}",
        "data.scale=0.1",
        *SMALL,
        "hydra.run.dir=outputs/${seed}",
    ]
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


@pytest.mark.parametrize(
    ("stage", "classes", "count"),
    [
        ("full", ["brak_Empty zone", "brak_Station", "noise_DNS", "noise_Tip-off"], 9),
        ("easy", ["brak_Empty zone", "brak_Station", "noise_combined"], 9),
        ("hard", ["noise_DNS", "noise_Tip-off"], 5),
        ("flat", ["brak_Empty zone", "brak_Station", "noise_DNS", "noise_Tip-off"], 9),
    ],
)
def test_stages(stage: str, classes: list[str], count: int, demo_root: Path, run_here: RunHere) -> None:
    """Each stage has its own classes and its own records; only the whole cascade has stages inside."""
    objective = "objective=hard/val/accuracy" if stage == "full" else "objective=val/accuracy"
    run_dir = run_here(f"data.demo_dir={demo_root}", "data.scale=0.1", f"cascade_stage={stage}", objective, *SMALL)
    metrics = read_json(run_dir / "metrics.json")
    assert metrics["test"]["classes"] == classes
    assert list(load(run_dir / "model").classes_) == classes
    assert len(read_rows(run_dir / "predictions.csv")) == count
    assert set(metrics["stages"]) == ({"easy", "hard"} if stage == "full" else set())
    evaluated = metrics["stages"]["hard"] if stage == "full" else metrics
    assert metrics["objective"] == evaluated["val"]["accuracy"]


def test_a_stage_alone_is_the_stage_inside(full_run: Path, demo_root: Path, run_here: RunHere) -> None:
    """What is tuned on one stage alone must hold in the cascade."""
    metrics = read_json(full_run / "metrics.json")
    for stage in ("easy", "hard"):
        alone = run_here(f"data.demo_dir={demo_root}", "data.scale=0.1", f"cascade_stage={stage}", *SMALL, name=stage)
        own = read_json(alone / "metrics.json")
        assert {split: own[split] for split in ("val", "test")} == metrics["stages"][stage]


def test_the_knob_of_one_stage_changes_that_stage(full_run: Path, demo_root: Path, run_here: RunHere) -> None:
    """``stages.hard.svm.C`` that arrived nowhere would look like a tuned cascade."""
    other = run_here(f"data.demo_dir={demo_root}", "data.scale=0.1", "stages.hard.svm.C=0.01", *SMALL)
    files = {name: (contents(full_run)[name], text) for name, text in contents(other).items()}
    assert len(set(files["model/easy/pipeline.skops"])) == 1
    assert len(set(files["model/hard_0/pipeline.skops"])) == 2


def test_two_groups_of_look_alikes(tree: Tree, run_here: RunHere) -> None:
    """Group names may hold anything; the stages' metrics carry them, files carry numbers."""
    root = tree({name: 6 for name in ("p", "s", "q", "r", "other")})
    groups = "mapping.look_alikes={on_set: [p, s], x/y: [q, r]}"
    run_dir = run_here(*FLAT[:2], groups, f"data.root={root}", *SMALL, figures=True)
    metrics = read_json(run_dir / "metrics.json")
    assert set(metrics["stages"]) == {"easy", "hard/on_set", "hard/x/y"}
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
    root = tree({label: 3 for label in LABELS})
    run_dir = run_here(*FLAT, f"data.root={root}", *SMALL, figures=True)
    info = read_json(run_dir / "run.json")
    assert info["data"]["split_here"] is True
    assert info["data"]["records"] == {split: dict.fromkeys(sorted(LABELS), 1) for split in ("train", "val", "test")}
    rows = read_rows(run_dir / "predictions.csv")
    assert {row["label"] for row in rows} == set(LABELS)
    assert {f"p_{label}" for label in LABELS} <= set(rows[0])
    assert list(load(run_dir / "model").classes_) == sorted(LABELS)


def test_a_folder_with_splits_keeps_them(tree: Tree, run_here: RunHere) -> None:
    """A split on disk is somebody's decision."""
    shares = {"train": 4, "val": 2, "test": 3}
    root = tree({f"{split}/{label}": n for split, n in shares.items() for label in LABELS})
    run_dir = run_here(*FLAT, f"data.root={root}", *SMALL)
    info = read_json(run_dir / "run.json")
    assert info["data"]["split_here"] is False
    assert info["data"]["records"] == {split: dict.fromkeys(sorted(LABELS), n) for split, n in shares.items()}


def test_a_class_that_is_only_in_train(tree: Tree, run_here: RunHere) -> None:
    """It is reported with support 0, and macro-F1 says over which classes it was taken."""
    counts = {"train/a": 4, "train/b": 4, "train/c": 2, "val/a": 2, "val/b": 2, "test/a": 2, "test/b": 2}
    run_dir = run_here(*FLAT, f"data.root={tree(counts)}", *SMALL, figures=True)
    metrics = read_json(run_dir / "metrics.json")
    for split in ("val", "test"):
        assert metrics[split]["classes"] == ["a", "b", "c"]
        assert metrics[split]["per_class"]["c"]["support"] == 0
        assert metrics[split]["macro_f1_classes"] == ["a", "b"]


@pytest.mark.parametrize("stage", ["easy", "hard", "full"])
def test_look_alikes_with_a_single_training_record(stage: str, tree: Tree, run_here: RunHere) -> None:
    """The smallest data that can be trained on must come through."""
    root = tree({"a": 4, "p": 2, "s": 3})
    run_dir = run_here(
        "data=folder",
        "mapping=identity",
        "mapping.look_alikes={m: [p, s]}",
        f"cascade_stage={stage}",
        f"data.root={root}",
        "augmentation=none",
        *SMALL,
    )
    assert read_json(run_dir / "run.json")["status"] == "FINISHED"


def test_the_hard_pair_of_a_flat_task_may_be_the_objective(
    tree: Tree, tmp_path: Path, run_here: RunHere, capsys: Any
) -> None:
    """Also where nothing is merged the look-alikes are what one is after; without them in val there is no objective."""
    overrides = [*FLAT, "mapping.look_alikes={m: [p, s]}", "objective=val/hard_pair_f1", "augmentation=none", *SMALL]
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
    run_dir = run_here(*FLAT, f"data.root={root}", "objective=null", *SMALL, figures=True)
    metrics = read_json(run_dir / "metrics.json")
    assert (metrics["objective"], metrics["val"]["macro_f1"]) == (None, None)


def test_test_labels_choose_nothing(tree: Tree, run_here: RunHere) -> None:
    """The same run with the test folders' labels exchanged must be the same model."""
    counts = {"train": 8, "val": 5, "test": 4}
    records = tree({split: dict.fromkeys(("a", "p", "s"), n) for split, n in counts.items()})
    overrides = ["data=folder", f"data.root={records}", "mapping=identity", "mapping.look_alikes={m: [p, s]}", *SMALL]
    before = run_here(*overrides, name="before")
    (records / "test" / "p").rename(records / "test" / "x")
    (records / "test" / "s").rename(records / "test" / "p")
    (records / "test" / "x").rename(records / "test" / "s")
    after = run_here(*overrides, name="after")
    for path in (before / "model").rglob("model.json"):
        assert path.read_bytes() == (after / path.relative_to(before)).read_bytes()


def test_a_temperature_needs_val_records(tree: Tree, run_here: RunHere) -> None:
    """A stage with fewer than 8 val records keeps temperature 1; a warning names the stage."""
    root = tree({"train/a": 4, "train/p": 4, "train/s": 4, "val/a": 4, "val/p": 4, "val/s": 3, "test/a": 1})
    stages = ["mapping=identity", "mapping.look_alikes={m: [p, s]}", "augmentation=none"]
    info = read_json(run_here("data=folder", f"data.root={root}", *stages, *SMALL) / "run.json")
    assert info["temperature"]["hard"] == 1
    assert info["temperature"]["easy"] != 1
    assert [line.split(":")[0] for line in info["warnings"] if "temperature" in line] == ["temperature of stage hard"]


def test_bad_files_that_are_left_out_are_listed(tree: Tree, run_here: RunHere) -> None:
    """A record that silently went missing would make two results incomparable."""
    root = tree({"a": 6, "b": 6})
    (root / "a" / "bad.png").write_bytes(b"no image")
    (root / "b" / "empty.png").touch()
    with pytest.raises(DataError) as caught:
        run_here(*FLAT, f"data.root={root}", *SMALL, name="refused")
    assert "bad file: a/bad.png" in str(caught.value)
    assert "data.on_bad_file=skip leaves the 2 bad files out" in str(caught.value)
    info = read_json(run_here(*FLAT, f"data.root={root}", "data.on_bad_file=skip", *SMALL) / "run.json")
    assert set(info["data"]["left_out"]) == {"a/bad.png", "b/empty.png"}
    assert any("2 bad files" in line for line in info["warnings"])


def test_exclusions_of_unknown_sources_are_told(tree: Tree, run_here: RunHere) -> None:
    """A mistyped source would leave a wrong image in the training set."""
    root = tree({"a": 5, "b": 5})
    exclude = "augmentation.exclude={r0001: [mirrored], nobody: [double_l]}"
    run_dir = run_here(*FLAT, f"data.root={root}", exclude, *SMALL)
    assert any("nobody" in line for line in read_json(run_dir / "run.json")["warnings"])


# --- Bad input ---


def spoil_unknown(root: Path) -> list[str]:
    return ["mapping=lake"]


def spoil_look_alike(root: Path) -> list[str]:
    return ["mapping.look_alikes={m: [a, wind]}", "cascade_stage=full"]


def spoil_split(root: Path) -> list[str]:
    shutil.rmtree(root / "val")
    return []


def spoil_leak(root: Path) -> list[str]:
    name = next((root / "train" / "a").iterdir()).name
    shutil.copy(root / "train" / "a" / name, root / "test" / "a" / name)
    return []


def spoil_class(root: Path) -> list[str]:
    for path in (root / "train" / "b").iterdir():
        path.unlink()
    return []


def spoil_all(root: Path) -> list[str]:
    for path in root.rglob("*.png"):
        path.rename(path.with_suffix(".txt"))
    return []


def spoil_root(root: Path) -> list[str]:
    shutil.rmtree(root)
    return []


def spoil_crop(root: Path) -> list[str]:
    return ["data.crop.left=48"]


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (spoil_unknown, ["folder 'a' is neither in mapping.classes nor in mapping.left_out", "class 'brak' has no"]),
        (spoil_look_alike, ["mapping.look_alikes.m: got 'wind'; allowed: a, b"]),
        (spoil_split, ["split folder missing", "val"]),
        (spoil_leak, ["in two splits"]),
        (spoil_class, ["class 'b' has no training images"]),
        (spoil_all, ["no images found", "DIR/{train,val,test}/<class>/*"]),
        (spoil_root, ["data.root: got", "allowed: a folder that exists"]),
        (spoil_crop, ["bad file: ", "data.crop (left 48"]),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_data_that_do_not_fit_are_refused_before_a_run_is_there(
    spoil: Callable[[Path], list[str]],
    parts: list[str],
    tree: Tree,
    run_here: RunHere,
    tmp_path: Path,
) -> None:
    """One message with everything that is wrong, and no trace of a run."""
    root = tree({f"{split}/{label}": 3 for split in ("train", "val", "test") for label in ("a", "b")})
    extra = spoil(root)
    with pytest.raises(SpectroError) as caught:
        run_here(*FLAT, f"data.root={root}", *extra, *SMALL)
    for part in parts:
        assert part in str(caught.value)
    assert list((tmp_path / "run").iterdir()) == []


def test_an_exclusion_that_empties_a_class_is_refused(tree: Tree, run_here: RunHere) -> None:
    root = tree({f"{split}/{label}": 2 for split in ("train", "val", "test") for label in ("a", "b")})
    sources = [path.stem for path in (root / "train" / "a").iterdir()]
    exclude = ", ".join(f"{source}: [original, mirrored]" for source in sources)
    with pytest.raises(ConfigError, match=r"augmentation.exclude: leaves a class"):
        run_here(*FLAT, f"data.root={root}", "augmentation=mirror", f"augmentation.exclude={{{exclude}}}", *SMALL)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["svm.C=abc"], "error: svm.C: got 'abc'; allowed: number\n"),
        (["data=folder", "data.root=~/no such folder", "mapping=identity", "cascade_stage=flat"], "data.root: got"),
    ],
    ids=["config", "data"],
)
def test_what_a_user_can_mend_ends_with_2_and_leaves_nothing(
    tmp_path: Path, spectro: Callable[..., Any], arguments: list[str], told: str
) -> None:
    """One message, no traceback, no run directory, no MLflow run."""
    done = spectro("train", *arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []
    assert not list(tmp_path.glob("outputs/runs/*"))


def test_full_error_shows_the_traceback(spectro: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Who looks for the place asks for it."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ConfigError, match=r"svm\.C: got 'abc'"):
        spectro("train", "svm.C=abc")


# --- Runs that end badly ---


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [(RuntimeError("boom"), "FAILED", "RuntimeError: boom"), (KeyboardInterrupt(), "KILLED", "interrupted")],
    ids=["error", "interrupt"],
)
@pytest.mark.parametrize("where", [(RunInfo, "open_in_mlflow"), (Task, "fit"), (results, "metrics_of")])
def test_a_run_that_ends_badly_says_so(
    where: tuple[Any, str],
    error: BaseException,
    status: str,
    reason: str,
    demo_root: Path,
    run_here: RunHere,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run that is marked RUNNING for ever cannot be told from one that runs."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(*where, fail)
    with pytest.raises(type(error)):
        run_here(f"data.demo_dir={demo_root}", "data.scale=0.1", *SMALL)
    info = read_json(tmp_path / "run" / "run.json")
    assert (info["status"], info["reason"]) == (status, reason)
    assert info["ended_at"] is not None


def test_ctrl_c_marks_the_run_killed(demo_root: Path, tmp_path: Path) -> None:
    """Exit code 130, no traceback, and a info that says what happened."""
    # A fit that only waits: where else an interrupt lands is chance, and libraries may turn it into errors of theirs.
    code = (
        "import runpy, sys, time\nfrom spectro.runs.task import Task\nTask.fit = lambda self: time.sleep(60)\n"
        "sys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    arguments = [
        sys.executable,
        "-c",
        code,
        str(TRAIN),
        "tracking.uri=null",
        f"data.demo_dir={demo_root}",
        "data.scale=0.1",
    ]
    process = subprocess.Popen(arguments, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while not (cards := list(tmp_path.glob("outputs/runs/*/run.json"))) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert errors == "interrupted\n"
    assert (read_json(cards[0])["status"], read_json(cards[0])["reason"]) == ("KILLED", "interrupted")


@pytest.mark.slow
def test_a_sweep_runs_every_job(demo_root: Path, tmp_path: Path) -> None:
    """One folder for the sweep, whatever it changes, and in it one for each job, each a whole run directory."""
    swept = ["seed=0,1", "cascade_stage=flat,easy"]
    done = train(
        "--multirun", *swept, "tracking.uri=null", f"data.demo_dir={demo_root}", "data.scale=0.1", *SMALL, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    jobs = sorted(tmp_path.glob("outputs/sweeps/*/[0-9]"))
    assert [job.name for job in jobs] == ["0", "1", "2", "3"]
    assert len({job.parent for job in jobs}) == 1
    for number, job in enumerate(jobs):
        assert {path.name for path in job.iterdir()} >= FILES
        info = read_json(job / "run.json")
        assert (info["status"], info["seed"]) == ("FINISHED", number // 2)
        assert info["config"]["cascade_stage"]["name"] == ["flat", "easy"][number % 2]


@pytest.mark.slow
def test_a_multirun_is_one_run_over_its_jobs(demo_root: Path, tmp_path: Path) -> None:
    """Twenty jobs would stand in MLflow's list without a sign that they belong together."""
    from mlflow import MlflowClient

    done = train("--multirun", "model=pixels", "seed=0,1", f"data.demo_dir={demo_root}", "data.scale=0.1", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    (folder,) = tmp_path.glob("outputs/sweeps/*")
    info = read_json(folder / "run.json")
    assert (info["status"], info["mlflow"]["sent"], info["run_name"]) == ("FINISHED", True, "multirun seed=0,1")
    client = MlflowClient(f"sqlite:///{tmp_path}/outputs/mlflow.db")
    assert client.get_run(info["mlflow"]["run_id"]).info.status == "FINISHED"
    for job in ("0", "1"):
        run = client.get_run(read_json(folder / job / "run.json")["mlflow"]["run_id"])
        assert run.data.tags["mlflow.parentRunId"] == info["mlflow"]["run_id"]


@pytest.mark.slow
def test_a_run_is_in_mlflow_as_well(demo_root: Path, tmp_path: Path) -> None:
    """The default: a database and artifacts under outputs/, the run finished, its metrics those of the file."""
    done = train(f"data.demo_dir={demo_root}", "data.scale=0.1", *SMALL, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "mlflow ui --backend-store-uri sqlite:///outputs/mlflow.db" in done.stdout
    (run_dir,) = (tmp_path / "outputs" / "runs").iterdir()
    info = read_json(run_dir / "run.json")
    assert info["mlflow"]["sent"] is True
    from mlflow import MlflowClient

    run = MlflowClient(f"sqlite:///{tmp_path}/outputs/mlflow.db").get_run(info["mlflow"]["run_id"])
    assert run.info.status == "FINISHED"
    metrics = read_json(run_dir / "metrics.json")
    assert run.data.metrics["test/macro_f1"] == metrics["test"]["macro_f1"]
    assert run.data.metrics["hard/val/macro_f1"] == metrics["stages"]["hard"]["val"]["macro_f1"]
    for name in ("macro_f1", "accuracy", "balanced_accuracy", "hard_pair_f1"):
        for end in ("", "_ci_low", "_ci_high"):
            assert run.data.metrics[f"test/{name}{end}"] == metrics["test"][name + end]
    assert run.data.params["svm.C"] == "1.0"

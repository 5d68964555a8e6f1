"""Learning curves: shares are nested, by source and of the fold alone; the last line follows the numbers."""

import re

import numpy as np
import pytest
from conftest import read_rows
from hypothesis import given
from hypothesis import strategies as st

from spectro.cli import main as cli
from spectro.cli.explain import explain
from spectro.cli.learning_curve import measure
from spectro.data.splits import part_of
from spectro.errors import DataError
from spectro.evaluation.paired import Difference
from spectro.runs.crossval import Folds, cross_validate
from spectro.runs.learning_curve import LearningCurve, gain_line
from spectro.runs.task import Task, load_data

QUIET = ["data.cache_dir=null", "tracking.uri=null"]


@given(st.data())
def test_shares_are_nested_by_source_and_leave_every_class(data):
    """A share that lost a class would measure another task; one that is not nested, other records."""
    n = data.draw(st.integers(1, 60))
    labels = np.array(data.draw(st.lists(st.sampled_from("abc"), min_size=n, max_size=n)), dtype=object)
    single = data.draw(st.booleans())
    sources = np.arange(n) if single else np.array(data.draw(st.lists(st.integers(0, n), min_size=n, max_size=n)))
    small, large = sorted(data.draw(st.tuples(st.floats(0.01, 1), st.floats(0.01, 1))))
    parts = {share: part_of(labels, sources, share, 7) for share in (small, large, 1)}
    assert parts[1].all()
    assert not (parts[small] & ~parts[large]).any()
    for part in parts.values():
        assert set(sources[part]).isdisjoint(sources[~part])
    for label in set(labels) if single else ():
        assert (parts[small] & (labels == label)).sum() == max(1, round(small * (labels == label).sum()))


@pytest.fixture
def demo(demo_root):
    """A function that gives a checked configuration of the small demo data."""

    def build(*overrides):
        shared = ["validation=kfold", "validation.k=3", "cascade_stage=flat", "model=pixels", *QUIET]
        return cli.composed([*shared, f"data.demo_dir={demo_root}", "data.scale=0.1", *overrides])

    return build


def test_a_share_is_trained_on_in_its_own_fold_and_all_are_evaluated(demo):
    """Points of one seed differ in nothing but the training records."""
    task = Task(demo(), load_data(demo()))
    whole, half = Folds.of(task), Folds.of(task, 0.5)
    assert {record.split for record in whole.records} == {"train", "val"}
    for fold in range(3):
        some, all_ = set(half.train(0, fold)), set(whole.train(0, fold))
        assert some < all_
        assert all_ == set(np.flatnonzero(whole.number[0] != fold))
    small, large = (cross_validate(task, folds).stages[""][0] for folds in (half, whole))
    assert len(small.records) == len(large.records) == len(whole.records)
    assert (small.fold == large.fold).all()
    assert np.abs(small.probabilities - large.probabilities).max() > 1e-3


def test_a_curve_is_written(demo, tmp_path):
    """A row for each seed and share, the line about the last step, the figure; the same again the same bytes."""
    dataset = load_data(demo())
    for name in ("curve", "again"):
        folder = tmp_path / name
        folder.mkdir()
        curve = LearningCurve(folder, dataset)
        curve.measure({"pixels": [demo(f"seed={n}", f"validation.seed={n}") for n in (0, 1)]}, (1.0, 0.5, 0.25))
    rows = read_rows(folder / "curve.csv")
    assert [(row["seed"], row["share"]) for row in rows] == [(s, x) for s in "01" for x in ("0.25", "0.5", "1.0")]
    task = Task(demo(), dataset)
    assert float(rows[2]["macro_f1"]) == cross_validate(task, Folds.of(task)).averages()["macro_f1"]
    records = [float(row["records"]) for row in rows[:3]]
    assert records == sorted(records)
    assert records[2] == pytest.approx(len([r for r in dataset.records if r.split != "test"]) * 2 / 3)
    for row in rows:
        counts = [float(value) for key, value in row.items() if key.startswith("records_")]
        assert (sum(counts), min(counts)) == pytest.approx((float(row["records"]), float(row["smallest_class"])))
    (line,) = curve.gains()
    assert [float(n) for n in re.findall(r"from (\d+) to (\d+)", line)[0]] == pytest.approx(records[1:], abs=1)
    assert line in (folder / "curve.md").read_text(encoding="utf-8")
    assert (tmp_path / "curve" / "curve.png").read_bytes() == (folder / "curve.png").read_bytes()


def test_what_was_measured_before_an_error_is_kept(demo, tmp_path):
    """A curve of networks takes hours."""
    curve = LearningCurve(tmp_path, load_data(demo()))
    with pytest.raises(DataError):
        curve.measure({"pixels": [demo(), demo("validation.k=5000")]}, (0.25, 0.5))
    assert len(read_rows(tmp_path / "curve.csv")) == 2
    assert "| pixels |" in (tmp_path / "curve.md").read_text(encoding="utf-8")
    assert (tmp_path / "curve.png").exists()


@pytest.mark.parametrize(
    ("difference", "text"),
    [
        (Difference(0.07, 0.02, 0.12, 0.02, 0.06), "more labels would help"),
        (Difference(0.01, -0.03, 0.05, 0.02, 0.06), "no sure gain; one below 0.06"),
        (Difference(-0.07, -0.12, -0.02, 0.02, 0.06), "worse"),
        (Difference(0.0, None, None, 0.0, None), "no gain"),
    ],
)
def test_a_gain_is_called_by_its_interval(difference, text):
    """A gain whose interval holds 0 must not read as one."""
    assert text in gain_line("svm", 60.2, 120.0, difference)


def test_the_command(demo_root, tmp_path, spectro):
    """Several models, and a knob that only one of them has."""
    data = [f"data.demo_dir={demo_root}", "data.scale=0.1", *QUIET]
    words = ["model=pixels,hog_svm", "hog.size_px=64", "cascade_stage=flat", "validation.k=2"]
    done = spectro("learning-curve", *words, *data, "--seeds", "1", "--shares", "0.5,1")
    assert done.returncode == 0, done.stderr
    assert "pixels: from" in done.stdout
    assert "hog_svm: from" in done.stdout
    (folder,) = (tmp_path / "outputs" / "learning_curve").iterdir()
    assert {row["model"] for row in read_rows(folder / "curve.csv")} == {"pixels", "hog_svm"}
    assert {path.name for path in folder.iterdir()} == {"curve.csv", "curve.png", "curve.md"}


def test_an_invalid_command_makes_no_folder(tmp_path, spectro):
    """One message, exit code 2."""
    done = spectro("learning-curve", "model=pixels", "svm.C=1")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "svm" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model=pixels,nothing"], "nothing"),
        (["model=pixels,hog_svm", "cnn.size_px=32"], "cnn"),
        (["validation.repeats=3"], "validation.repeats: got 3; allowed: 1, and --seeds"),
        (["validation=holdout"], "validation: got 'holdout'; allowed: kfold"),
        (["validation.k=5000"], "validation.k: got 5000"),
        (["model=resnet18", "cnn.weights=nowhere.safetensors"], "cnn.weights: got 'nowhere.safetensors'"),
    ],
    ids=str,
)
def test_user_errors(words, message, demo_root, tmp_path):
    """Each is one message, before anything is written."""
    common = [f"data.demo_dir={demo_root}", "data.scale=0.1", f"outputs={tmp_path}", *QUIET]
    with pytest.raises(Exception, match=re.escape(message)) as caught:
        measure([*words, *common], (1.0,), 1)
    assert explain(caught.value, words) is not None
    assert list(tmp_path.iterdir()) == []

"""Scores: agreement with scikit-learn, classes without records, and intervals over sources."""

import json
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score, matthews_corrcoef, recall_score

from spectro.evaluation import METRICS, register_metric, score, wilson

CLASSES = ["noise", "лёд 1", "a.b [c]", "$x$"]
AVERAGES = ("macro_f1", "accuracy", "balanced_accuracy")  # from 0 to 1
pairs = st.lists(st.tuples(st.sampled_from(CLASSES), st.sampled_from(CLASSES)), min_size=1, max_size=40)
few = settings(deadline=None, max_examples=30)


def split(records):
    return [true for true, _ in records], [pred for _, pred in records]


@few
@given(pairs)
def test_averages_are_those_of_scikit_learn_over_the_supported_classes(records):
    true, pred = split(records)
    report = score(true, pred, CLASSES, resamples=5)
    supported = [name for name in CLASSES if name in true]
    options = {"average": "macro", "labels": supported, "zero_division": 0}
    assert report["macro_f1_classes"] == supported
    assert report["macro_f1"] == pytest.approx(f1_score(true, pred, **options))
    assert report["balanced_accuracy"] == pytest.approx(recall_score(true, pred, **options))
    assert report["accuracy"] == pytest.approx(accuracy_score(true, pred))
    assert report["mcc"] == pytest.approx(matthews_corrcoef(true, pred), abs=1e-9)
    kappa = float("nan") if report["cohen_kappa"] is None else report["cohen_kappa"]
    with warnings.catch_warnings(action="ignore"):
        assert kappa == pytest.approx(cohen_kappa_score(true, pred, labels=CLASSES), nan_ok=True, abs=1e-9)


@few
@given(pairs)
def test_the_numbers_of_one_report_agree_with_each_other(records):
    report = score(*split(records), CLASSES, resamples=5)
    matrix = np.array(report["confusion_matrix"])
    assert report["n_records"] == len(records) == matrix.sum()
    assert report["accuracy"] == pytest.approx(np.trace(matrix) / len(records))
    for i, name in enumerate(CLASSES):
        entry = report["per_class"][name]
        assert entry["support"] == matrix[i].sum()
        if entry["support"]:
            assert entry["recall"] == pytest.approx(matrix[i, i] / entry["support"])
            assert (entry["recall_ci_low"], entry["recall_ci_high"]) == wilson(matrix[i, i], entry["support"])
    for name in AVERAGES:
        low, high = report[f"{name}_ci_low"], report[f"{name}_ci_high"]
        assert (low is None) == (high is None)
        assert 0 <= report[name] <= 1
        assert low is None or (0 <= low < high <= 1 and low <= report[name] <= high)
    assert json.loads(json.dumps(report, allow_nan=False)) == report


@few
@given(pairs, st.permutations(CLASSES))
def test_renaming_classes_renames_the_report_and_changes_no_number(records, renamed):
    true, pred = split(records)
    to = dict(zip(CLASSES, renamed, strict=True))
    before = score(true, pred, CLASSES, resamples=5)
    after = score([to[t] for t in true], [to[p] for p in pred], CLASSES, resamples=5)
    for name in CLASSES:
        assert after["per_class"][to[name]] == before["per_class"][name]
    for name in AVERAGES:
        assert after[name] == pytest.approx(before[name])
    at = [CLASSES.index(to[name]) for name in CLASSES]
    assert np.array_equal(np.array(after["confusion_matrix"])[np.ix_(at, at)], before["confusion_matrix"])


@pytest.fixture
def registry():
    """What a test registers is forgotten after it."""
    before = dict(METRICS)
    yield METRICS
    METRICS.clear()
    METRICS.update(before)


def test_a_registered_metric_is_in_the_report_with_its_interval(registry):
    """One function is all that a new metric takes."""

    @register_metric("recall_b", "recall of b")
    def recall_b(confusion, classes):
        b = list(classes).index("b")
        return confusion[..., b, b] / confusion[..., b, :].sum(axis=-1)

    report = score(["a", "a", "b", "b", "b"], ["a", "b", "b", "a", "b"], ["a", "b"])
    assert report["recall_b"] == pytest.approx(2 / 3)
    assert report["recall_b_ci_low"] < 2 / 3 < report["recall_b_ci_high"]
    assert score(["a"], ["a"], ["a", "b"])["recall_b"] is None


MODULE = """
from spectro.evaluation import register_metric

@register_metric("recall_a", "recall of a")
def recall_a(confusion, classes):
    return confusion[..., 0, 0] / confusion[..., 0, :].sum(axis=-1)
"""


def test_a_metric_of_a_users_module_is_shown_and_can_be_the_objective(
    registry, tree, run_here, tmp_path, monkeypatch, capsys, texts
):
    """What a user registers must reach every place that shows metrics, though no line of the package names it."""
    (tmp_path / "my_metric_module.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    root = tree({"a": 12, "b": 12})
    options = ["model=pixels", "data=folder", f"data.root={root}", "mapping=identity", "cascade_stage=flat"]
    run_dir = run_here(*options, "plugins=[my_metric_module]", "objective=val/recall_a", figures=True)
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["objective"] == metrics["val"]["recall_a"] == metrics["val"]["per_class"]["a"]["recall"]
    assert metrics["test"]["recall_a_ci_low"] < metrics["test"]["recall_a_ci_high"]
    assert "recall of a" in capsys.readouterr().out
    assert any("recall\u00a0of\u00a0a" in text.get_text() for text in texts)


def test_a_metric_that_takes_one_matrix_at_a_time_is_refused_with_the_way_out(registry):
    """numpy would broadcast its single number silently, and every interval would be without width."""
    one_matrix = register_metric("trace", "trace")(lambda confusion, classes: confusion.trace())
    with pytest.raises(ValueError, match=r"metric trace.*numpy\.vectorize"):
        score(["a", "b"], ["a", "b"], ["a", "b"])
    register_metric("trace", "trace")(np.vectorize(signature="(k,k),(k)->()")(one_matrix))
    assert score(["a", "b"], ["a", "b"], ["a", "b"])["trace"] == 2


@pytest.mark.parametrize("name", ["Macro", "a/b", "", "mcc"])
def test_a_metric_name_that_files_cannot_hold_or_that_is_taken_is_refused(name, registry):
    with pytest.raises(ValueError, match="metric name: got"):
        register_metric(name, "x")(lambda confusion, classes: confusion)


def test_a_class_without_records_is_reported_and_not_averaged():
    """Counting it as 0 would punish every model for the split; dropping it would hide what was predicted as it."""
    report = score(["a", "a", "b"], ["a", "ghost", "b"], ["a", "b", "ghost", "never"])
    assert report["macro_f1_classes"] == ["a", "b"]
    assert report["macro_f1"] == pytest.approx((2 / 3 + 1) / 2)
    assert report["per_class"]["a"]["recall"] == 0.5
    nothing = {"recall": None, "recall_ci_low": None, "recall_ci_high": None, "support": 0}
    assert report["per_class"]["ghost"] == {"precision": 0.0, "f1": 0.0, **nothing}
    assert report["per_class"]["never"] == {"precision": None, "f1": None, **nothing}


def test_a_supported_class_that_is_never_predicted_has_f1_of_zero():
    report = score(["a", "b"], ["a", "a"], ["a", "b"])
    assert report["per_class"]["b"]["precision"] == report["per_class"]["b"]["f1"] == 0.0
    assert report["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)


def test_no_records_give_none_and_not_nan():
    report = score([], [], ["a", "b"], sources=[])
    assert all(report[name + end] is None for name in AVERAGES for end in ("", "_ci_low", "_ci_high"))
    assert report["confusion_matrix"] == [[0, 0], [0, 0]]
    assert report["macro_f1_classes"] == []
    json.dumps(report, allow_nan=False)


def test_arrays_of_text_are_labels_too():
    report = score(np.array(["a", "b"]), np.array(["a", "a"]), np.array(["a", "b"]), sources=np.array(["s", "t"]))
    assert report == score(["a", "b"], ["a", "a"], ["a", "b"], sources=["s", "t"])
    json.dumps(report)


def test_copies_of_a_source_do_not_narrow_the_interval():
    """Resampling records instead of sources would take four copies of an image for four images."""
    true, pred = ["a"] * 12 + ["b"] * 12, (["a"] * 8 + ["b"] * 4) * 2
    sources = [str(i) for i in range(24)]
    once = score(true, pred, ["a", "b"], sources=sources)
    copied = score(true * 4, pred * 4, ["a", "b"], sources=sources * 4)
    as_records = score(true * 4, pred * 4, ["a", "b"])
    for name in AVERAGES:
        width = [report[f"{name}_ci_high"] - report[f"{name}_ci_low"] for report in (once, copied, as_records)]
        assert width[0] == pytest.approx(width[1])
        assert width[2] < 0.7 * width[0]


def test_every_resample_keeps_the_tiny_class():
    """An unstratified resample would lose the one record of b and score balanced accuracy over a alone, up to 1."""
    report = score(["a"] * 200 + ["b"], ["a"] * 200 + ["a"], ["a", "b"], resamples=20)
    alone = score(["a"] * 200, ["a"] * 200, ["a", "b"], resamples=20)
    assert report["balanced_accuracy"] == 0.5
    assert alone["balanced_accuracy"] == 1.0
    assert report["balanced_accuracy_ci_low"] < 0.5 <= report["balanced_accuracy_ci_high"]


@pytest.mark.parametrize("n", [1, 3, 50])
@pytest.mark.parametrize("is_right", [True, False])
def test_no_interval_is_without_width_where_all_records_agree(n, is_right):
    """ "1.00 to 1.00" on a handful of records would claim a certainty that nobody has."""
    true = ["a"] * n + ["b"] * n
    report = score(true, true if is_right else ["b"] * n + ["a"] * n, ["a", "b"])
    for name in AVERAGES:
        low, high = report[f"{name}_ci_low"], report[f"{name}_ci_high"]
        assert low < high
        assert report[name] == (high if is_right else low) == float(is_right)


def test_the_interval_of_records_that_are_all_right_is_about_as_wide_as_wilsons():
    """The made-up sources are shared out among the classes: many classes must not make the interval wider."""
    for k in (2, 4, 10):
        names = [str(i) for i in range(k)]
        report = score(names * (100 // k), names * (100 // k), names)
        assert report["accuracy_ci_low"] == pytest.approx(wilson(100, 100)[0], abs=0.015)


def test_one_class_leaves_nothing_to_be_unsure_of():
    report = score(["a", "a"], ["a", "a"], ["a"])
    assert (report["accuracy"], report["accuracy_ci_low"], report["accuracy_ci_high"]) == (1.0, None, None)


def test_a_source_with_two_classes_stands_with_its_first_record():
    report = score(["a", "b", "a"], ["a", "b", "b"], ["a", "b"], sources=["s", "s", "t"])
    assert (report["accuracy_ci_low"], report["accuracy_ci_high"]) == pytest.approx((0, 1))


def test_the_hard_pair_is_the_mean_f1_of_the_look_alikes():
    rng = np.random.default_rng(0)
    true, pred = rng.choice(["a", "b", "c"], 60), rng.choice(["a", "b", "c"], 60)
    report = score(true, pred, ["a", "b", "c"], look_alikes={"c", "b"})
    f1 = {name: entry["f1"] for name, entry in report["per_class"].items()}
    assert report["hard_pair_f1"] == pytest.approx((f1["b"] + f1["c"]) / 2)
    assert report["hard_pair_f1_ci_low"] < report["hard_pair_f1"] < report["hard_pair_f1_ci_high"]
    assert report["hard_pair_classes"] == ["b", "c"]
    without = score(true, pred, ["a", "b", "c"])
    told = {"hard_pair_f1", "hard_pair_f1_ci_low", "hard_pair_f1_ci_high", "hard_pair_classes"}
    assert without == {key: value for key, value in report.items() if key not in told}


@pytest.mark.parametrize(
    ("look_alikes", "value", "classes"),
    [(["b", "ghost"], 1.0, ["b"]), (["ghost"], None, []), (["stranger"], "not told", None)],
)
def test_look_alikes_without_records(look_alikes, value, classes):
    """As for macro-F1: a class that the split has none of is not averaged; one that the task lacks is no news."""
    report = score(["a", "b"], ["a", "b"], ["a", "b", "ghost"], look_alikes=look_alikes)
    assert report.get("hard_pair_f1", "not told") == value
    assert report.get("hard_pair_classes") == classes
    empty = score([], [], ["a", "b", "ghost"], look_alikes=look_alikes)
    assert empty.get("hard_pair_f1_ci_low", "not told") == (None if value != "not told" else value)
    json.dumps([report, empty], allow_nan=False)


def test_the_order_of_records_changes_nothing():
    rng = np.random.default_rng(0)
    true, pred = rng.choice(["a", "b"], 40), rng.choice(["a", "b"], 40)
    order = rng.permutation(40)
    sources = np.arange(40) // 2
    true = true[sources]
    shuffled = score(true[order], pred[order], ["a", "b"], sources=sources[order], look_alikes=["a"])
    assert shuffled == score(true, pred, ["a", "b"], sources=sources, look_alikes=["a"])


def test_the_same_seed_gives_the_same_interval():
    rng = np.random.default_rng(0)
    true, pred = rng.choice(["a", "b"], 100), rng.choice(["a", "b"], 100)
    assert score(true, pred, ["a", "b"], seed=3) == score(true, pred, ["a", "b"], seed=3)
    assert score(true, pred, ["a", "b"], seed=3) != score(true, pred, ["a", "b"], seed=4)


@pytest.mark.parametrize(
    ("true", "pred", "classes", "said"),
    [
        (["a"], ["zebra"], ["a", "b"], r"y_pred: got zebra; allowed: a, b"),
        (["zebra"], ["a"], ["a", "b"], "y_true: got zebra"),
        (["a"], ["a", "a"], ["a"], "got 1, 2 and 1"),
        (["a"], ["a"], ["a", "a"], "only once"),
        ([], [], [], "at least one"),
    ],
)
def test_wrong_input_is_named(true, pred, classes, said):
    with pytest.raises(ValueError, match=said):
        score(true, pred, classes)


def test_a_thousand_resamples_are_cheap():
    """A Python loop over resamples takes seconds; the bound leaves room for a busy machine."""
    rng = np.random.default_rng(0)
    names = [str(i) for i in range(12)]
    true, pred = rng.choice(names, 300), rng.choice(names, 300)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        score(true, pred, names)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.3


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, spectro.evaluation; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "mlflow", "hydra", "omegaconf", "sklearn", "matplotlib", "scipy"} & set(loaded)

"""Scores: agreement with scikit-learn, classes without records, intervals over sources, and metrics of a user."""

import json
import sys
import warnings

import numpy as np
import pytest
from conftest import read_json
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score, matthews_corrcoef, recall_score

from spectro.evaluation import METRICS, register_metric, score, wilson

CLASSES = ["noise", "лёд 1", "a.b [c]", "$x$"]
SHARES = ("macro_f1", "accuracy", "balanced_accuracy")  # from 0 to 1
records = st.lists(st.tuples(st.sampled_from(CLASSES), st.sampled_from(CLASSES)), min_size=1, max_size=40)
few = settings(max_examples=30)


def interval(report, name):
    return report[f"{name}_ci_low"], report[f"{name}_ci_high"]


@few
@given(records)
@pytest.mark.filterwarnings("ignore:A single label")
def test_metrics_are_those_of_scikit_learn_over_the_classes_with_records(pairs):
    true, pred = zip(*pairs, strict=True)
    report = score(true, pred, CLASSES, resamples=5)
    present = [name for name in CLASSES if name in true]
    options = {"average": "macro", "labels": present, "zero_division": 0}
    assert report["macro_f1_classes"] == present
    assert report["macro_f1"] == pytest.approx(f1_score(true, pred, **options))
    assert report["balanced_accuracy"] == pytest.approx(recall_score(true, pred, **options))
    assert report["accuracy"] == pytest.approx(accuracy_score(true, pred))
    assert report["mcc"] == pytest.approx(matthews_corrcoef(true, pred), abs=1e-9)
    kappa = float("nan") if report["cohen_kappa"] is None else report["cohen_kappa"]
    with warnings.catch_warnings(action="ignore"):
        assert kappa == pytest.approx(cohen_kappa_score(true, pred, labels=CLASSES), nan_ok=True, abs=1e-9)


@few
@given(records, st.permutations(CLASSES))
def test_the_numbers_of_one_report_agree_and_follow_a_renaming(pairs, renamed):
    true, pred = zip(*pairs, strict=True)
    report, matrix = score(true, pred, CLASSES, resamples=5), np.zeros((4, 4))
    np.add.at(matrix, ([CLASSES.index(t) for t in true], [CLASSES.index(p) for p in pred]), 1)
    assert np.array_equal(report["confusion_matrix"], matrix)
    to = dict(zip(CLASSES, renamed, strict=True))
    other = score([to[t] for t in true], [to[p] for p in pred], CLASSES, resamples=5)
    for i, name in enumerate(CLASSES):
        entry = report["per_class"][name]
        assert other["per_class"][to[name]] == entry
        assert entry["support"] == matrix[i].sum()
        if entry["support"]:
            assert entry["recall"] == pytest.approx(matrix[i, i] / entry["support"])
            assert (entry["recall_ci_low"], entry["recall_ci_high"]) == wilson(matrix[i, i], entry["support"])
    for name in METRICS.keys() - {"hard_pair_f1"}:
        low, high = interval(report, name)
        assert other[name] == (None if report[name] is None else pytest.approx(report[name]))
        assert (low is None) == (high is None)
        assert low is None or low <= report[name] <= high
    assert json.loads(json.dumps(report, allow_nan=False)) == report


# A user's metrics


@pytest.fixture
def registry():
    """What a test registers is forgotten after it."""
    before = dict(METRICS)
    yield METRICS
    METRICS.clear()
    METRICS.update(before)


MODULE = """
from spectro.evaluation import register_metric

@register_metric("recall_a", "recall of a")
def recall_a(confusion, classes):
    return confusion[..., 0, 0] / confusion[..., 0, :].sum(axis=-1)
"""


def test_a_metric_of_a_users_module_is_shown_and_can_be_the_objective(
    registry, tree, run_here, tmp_path, monkeypatch, capsys
):
    """What a user registers must reach every place that shows metrics, though no line of the package names it."""
    (tmp_path / "my_metric_module.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    root = tree({"a": 12, "b": 12})
    options = ["model=pixels", "data=folder", f"data.root={root}"]
    run_dir = run_here(*options, "plugins=[my_metric_module]", "objective=val/recall_a")
    metrics = read_json(run_dir / "metrics.json")
    assert metrics["objective"] == metrics["val"]["recall_a"] == metrics["val"]["per_class"]["a"]["recall"]
    assert metrics["test"]["recall_a_ci_low"] < metrics["test"]["recall_a_ci_high"]
    assert "recall of a" in capsys.readouterr().out


def test_a_metric_that_is_undefined_is_null(registry):
    """0/0 is no score, and JSON has no NaN."""
    register_metric("nothing", "nothing")(lambda confusion, classes: 0 / (0 * confusion.sum(axis=(-1, -2))))
    report = score(["a"], ["a"], ["a", "b"])
    assert [report[f"nothing{end}"] for end in ("", "_ci_low", "_ci_high")] == [None] * 3


def test_a_metric_of_one_matrix_at_a_time_is_refused_and_can_be_vectorised(registry):
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


# Classes without records


def test_a_class_without_records_is_reported_and_not_averaged():
    """Counting it as 0 would punish every model for the split; dropping it would hide what was predicted as it."""
    report = score(["a", "a", "b"], ["a", "ghost", "b"], ["a", "b", "ghost", "never"])
    assert report["macro_f1"] == pytest.approx((2 / 3 + 1) / 2)
    nothing = {"recall": None, "recall_ci_low": None, "recall_ci_high": None, "support": 0}
    assert report["per_class"]["ghost"] == {"precision": 0.0, "f1": 0.0, **nothing}
    assert report["per_class"]["never"] == {"precision": None, "f1": None, **nothing}


def test_no_records_give_none_and_not_nan():
    report = score([], [], ["a", "b"], sources=[])
    assert all(report[name + end] is None for name in SHARES for end in ("", "_ci_low", "_ci_high"))
    assert report["confusion_matrix"] == [[0, 0], [0, 0]]
    json.dumps(report, allow_nan=False)


@pytest.mark.parametrize(
    ("look_alikes", "value", "classes"),
    [({"b", "c"}, 3 / 4, ["b", "c"]), (["b", "ghost"], 1 / 2, ["b"]), (["ghost"], None, []), (["x"], "absent", None)],
)
def test_the_hard_pair_is_the_mean_f1_of_the_look_alikes_with_records(look_alikes, value, classes):
    """A look-alike that the split has none of is not averaged; one that the task lacks is ignored."""
    truth, labels = ["a", "b", "b", "b", "c"], ["a", "b", "c", "ghost"]
    report = score(truth, ["a", "b", "a", "a", "c"], labels, look_alikes=look_alikes)
    assert report.get("hard_pair_f1", "absent") == value
    assert report.get("hard_pair_classes") == classes
    assert {k: v for k, v in report.items() if "hard_pair" not in k}.items() == score(
        truth, ["a", "b", "a", "a", "c"], labels
    ).items()


# Intervals


def test_copies_of_a_source_do_not_narrow_the_interval():
    """Resampling records instead of sources would take four copies of an image for four images."""
    true, pred = ["a"] * 12 + ["b"] * 12, (["a"] * 8 + ["b"] * 4) * 2
    sources = [str(i) for i in range(24)]
    once, copied = score(true, pred, "ab", sources=sources), score(true * 4, pred * 4, "ab", sources=sources * 4)
    as_records = score(true * 4, pred * 4, "ab")
    for name in SHARES:
        widths = [np.diff(interval(report, name)) for report in (once, copied, as_records)]
        assert widths[0] == pytest.approx(widths[1])
        assert widths[2] < 0.7 * widths[0]


def test_every_resample_keeps_the_tiny_class():
    """An unstratified resample would lose the one record of b and score balanced accuracy over a alone, up to 1."""
    low, high = interval(score(["a"] * 200 + ["b"], ["a"] * 201, "ab", resamples=20), "balanced_accuracy")
    assert low < 0.5 <= high


@pytest.mark.parametrize("n", [1, 50])
@pytest.mark.parametrize("is_right", [True, False])
def test_no_interval_is_without_width_where_all_records_agree(n, is_right):
    """ "1.00 to 1.00" on a handful of records would claim a certainty that nobody has."""
    true = ["a"] * n + ["b"] * n
    report = score(true, true if is_right else true[::-1], "ab")
    for name in SHARES:
        low, high = interval(report, name)
        assert low < high
        assert report[name] == (high if is_right else low) == float(is_right)


@pytest.mark.parametrize("k", [2, 10])
def test_the_interval_of_records_that_are_all_right_is_about_as_wide_as_wilsons(k):
    """The classes share the pseudo-observations: many classes must not make the interval wider."""
    names = [str(i) for i in range(k)] * (100 // k)
    assert score(names, names, names[:k])["accuracy_ci_low"] == pytest.approx(wilson(100, 100)[0], abs=0.015)


def test_a_report_depends_on_the_seed_but_not_on_the_order_or_type_of_records():
    rng = np.random.default_rng(0)
    sources = np.arange(40) // 2
    true, pred, order = rng.choice(["a", "b"], 40)[sources], rng.choice(["a", "b"], 40), rng.permutation(40)
    report = score(true, pred, "ab", sources=sources, look_alikes=["a"])
    shuffled = score(list(true[order]), list(pred[order]), "ab", sources=list(sources[order]), look_alikes=["a"])
    assert shuffled == report
    assert score(true, pred, "ab", sources=sources, look_alikes=["a"], seed=4) != report


@pytest.mark.parametrize(
    ("true", "pred", "sources", "message"),
    [
        (["a"], ["zebra"], None, "y_pred: got zebra; allowed: a, b"),
        (["zebra"], ["a"], None, "y_true: got zebra"),
        (["a"], ["a", "a"], None, r"got \[1, 2, 1\]"),
        (["a"], ["a"], [1, 2], r"got \[1, 1, 2\]"),
    ],
)
def test_invalid_input_is_named(true, pred, sources, message):
    with pytest.raises(ValueError, match=message):
        score(true, pred, ["a", "b"], sources=sources)

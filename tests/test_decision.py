"""Thresholds for pairs of look-alikes and test-time variants: what they change, and what they must not."""

import csv
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from test_classifiers import LABELS, MAKERS, cnn, svm, toy

from spectro.classifiers import PixelsClassifier, load
from spectro.classifiers.decision import Threshold, choose_threshold, choose_thresholds, decide
from spectro.data import VARIANTS, Images, in_variants
from spectro.errors import ConfigError

CLASSES = np.array(["a", "b", "c"], dtype=object)
PAIR = {"m": ["b", "a"]}
rows = st.integers(1, 30).flatmap(lambda n: arrays(float, (n, 3), elements=st.floats(0.001, 1)))
values = st.floats(0.01, 0.99)


def normed(weights):
    return weights / weights.sum(axis=1, keepdims=True)


# --- The rule ---


@given(rows, values)
def test_a_threshold_divides_the_pair_and_moves_nobody_in_or_out(weights, value):
    p = normed(weights)
    argmax = CLASSES[p.argmax(axis=1)]
    called = decide(CLASSES, p, [Threshold("a", "b", value)])
    fallen = argmax != "c"
    assert (called[~fallen] == "c").all()
    share = p[:, 1] / (p[:, 0] + p[:, 1])
    if value != 0.5:
        np.testing.assert_array_equal(called[fallen] == "b", (share > value)[fallen])


@given(rows)
def test_a_half_is_the_largest_probability(weights):
    """Where too few records leave it at 0.5, nothing may change, not even by rounding."""
    p = normed(weights)
    np.testing.assert_array_equal(decide(CLASSES, p, [Threshold("a", "b")]), CLASSES[p.argmax(axis=1)])


def test_a_pair_that_is_not_there_is_passed_over():
    p = np.array([[0.4, 0.6]])
    assert list(decide(CLASSES[:2], p, [Threshold("a", "z", 0.9), Threshold("a", "b", 0.7)])) == ["a"]


# --- The choice ---


def pair_f1(labels, called):
    return sum(2 * np.sum((labels == c) & (called == c)) / np.sum((labels == c) * 1 + (called == c)) for c in "ab") / 2


@settings(deadline=None, max_examples=50)
@given(rows, st.randoms(use_true_random=False))
def test_on_val_no_threshold_is_better(weights, random):
    p = normed(weights)
    labels = np.array(["a", "b", *random.choices("abc", k=len(p))], dtype=object)[: len(p)]
    chosen = choose_threshold(CLASSES, p, labels, ("b", "a"), min_records=1)
    if not {"a", "b"} <= set(labels):
        assert chosen is None
        return
    best = pair_f1(labels, decide(CLASSES, p, [chosen]))
    shares = [row[1] / (row[0] + row[1]) for row in p if row.argmax() < 2]
    for other in np.linspace(0.01, 0.99, 99):
        if other != 0.5 and not (shares and min(shares) <= other < max(shares)):
            continue
        f1 = pair_f1(labels, decide(CLASSES, p, [Threshold("a", "b", other)]))
        assert f1 <= best + 1e-12
        # Of equals it is the one nearest to 0.5, up to half the distance of two records.
        if other == 0.5 and f1 == best:
            assert chosen.value == 0.5


def test_by_hand():
    """Two of b stand below a half, every a below them: the middle of the gap."""
    share = np.array([0.1, 0.1, 0.2, 0.4, 0.45, 0.9])
    p = np.stack([1 - share, share], axis=1)
    labels = np.array(list("aaabbb"), dtype=object)
    found = choose_threshold(CLASSES[:2], p, labels, ("a", "b"), min_records=3)
    assert found == Threshold("a", "b", pytest.approx(0.3))


def test_records_of_other_classes_count():
    """What is best among the pair's own records may call a third class's records one of it more harmfully."""
    share = np.array([0.2] * 10 + [0.35, 0.7] + [0.4] * 6)
    p = np.stack([1 - share, share, np.zeros(18)], axis=1)
    labels = np.array(["a"] * 10 + ["b"] * 2 + ["c"] * 6, dtype=object)
    assert choose_threshold(CLASSES, p[:12], labels[:12], ("a", "b"), min_records=2).value == pytest.approx(0.275)
    assert choose_threshold(CLASSES, p, labels, ("a", "b"), min_records=2).value == 0.5


def test_too_few_records_leave_a_half_and_say_so():
    p = np.tile([0.6, 0.3, 0.1], (9, 1))
    labels = np.array(list("aaaabbbbb"), dtype=object)
    chosen, told = choose_thresholds(CLASSES, p, labels, PAIR)
    assert chosen == []
    assert told == ["threshold: 4 of a and 5 of b are too few val records to choose one (5 each), left at 0.5"]
    assert choose_thresholds(CLASSES, p, labels, PAIR, min_records=4)[1] == []


def test_only_pairs_have_one():
    _, told = choose_thresholds(CLASSES, np.ones((3, 3)) / 3, np.array(list("abc"), dtype=object), {"m": list("abc")})
    assert told == ["threshold: group 'm' has 3 classes, not two; it is left at argmax"]


# --- Classifiers ---

EVERY = {
    "hog_svm": svm,
    "pixels": PixelsClassifier,
    "cnn": lambda: cnn(epochs=2),
    "cascade": MAKERS["cascade soft"],
    "cascade hard": MAKERS["cascade hard"],
}


@pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)
def test_what_was_chosen_is_saved_and_a_fit_forgets_it(make, tmp_path):
    """A loaded model that called records otherwise than its run did would not be that model."""
    classifier = make().fit(*toy((8, 6, 4)), *toy((5, 5, 5), seed=1)).average_over(VARIANTS["mirror"])
    assert classifier.choose_thresholds(*toy((5, 5, 5), seed=1), {"m": LABELS[:2]}) == []
    classifier.thresholds_ = [Threshold(*sorted(LABELS[:2]), 0.9)]
    classifier.save(tmp_path)
    X, _ = toy((6, 6, 6), seed=2)
    loaded = load(tmp_path)
    np.testing.assert_array_equal(loaded.predict_proba(X), classifier.predict_proba(X))
    np.testing.assert_array_equal(loaded.predict(X), classifier.predict(X))
    np.testing.assert_array_equal(loaded.predict(X), loaded.decide(loaded.predict_proba(X)))
    fresh = classifier.fit(*toy((8, 6, 4)))
    assert (tuple(fresh.variants_), tuple(fresh.thresholds_)) == (("original",), ())


@pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)
def test_variants_are_averaged(make):
    classifier = make().fit(*toy((8, 6, 4)))
    X, _ = toy((2, 2, 2), seed=2)
    both = np.mean([classifier.predict_proba(X), classifier.predict_proba(X[:, :, ::-1])], axis=0)
    classifier.average_over(VARIANTS["mirror"])
    np.testing.assert_allclose(classifier.predict_proba(X), both, atol=1e-6)
    # A record and its mirror image are now the same.
    np.testing.assert_allclose(classifier.predict_proba(X[:, :, ::-1]), both, atol=1e-6)
    assert classifier.predict_proba(X[:0]).shape == (0, 3)


def test_models_from_before_load(tmp_path):
    """They have neither thresholds nor variants, and pixels and networks had no temperature."""
    for number, classifier in enumerate((PixelsClassifier(), cnn(epochs=1))):
        folder = tmp_path / str(number)
        classifier.fit(*toy((5, 4, 3))).save(folder)
        state = json.loads((folder / "model.json").read_text())
        for gone in ("variants", "thresholds"):
            del state[gone]
        for gone in ("temperature", "temperature_fitted"):
            del state["fitted"][gone]
        (folder / "model.json").write_text(json.dumps(state))
        X, _ = toy((2, 2, 2))
        np.testing.assert_allclose(load(folder).predict_proba(X), classifier.predict_proba(X))


def test_variants_that_are_none_are_refused():
    classifier = svm().fit(*toy((5, 4, 3)))
    for wrong in ([], ["upside_down"]):
        with pytest.raises(ValueError, match="allowed: one or more of original, mirrored, double_l, double_r"):
            classifier.average_over(wrong)


def test_variants_of_variants_are_refused():
    with pytest.raises(ValueError, match="got variants \\(mirrored\\)"):
        in_variants(Images(None, ["x"], ["mirrored"]), VARIANTS["mirror"])


@pytest.mark.parametrize("make", [svm, PixelsClassifier, lambda: cnn(epochs=3)], ids=["hog_svm", "pixels", "cnn"])
def test_a_temperature_moves_no_label(make):
    """It is fitted with 8 val records and more, and changes how sure the model is, never of what."""
    few, enough = (make().fit(*toy((8, 6, 4)), *toy(n, seed=1)) for n in ((3, 3, 1), (3, 3, 2)))
    assert (few.temperature_, few.temperature_fitted_) == (1.0, False)
    assert enough.temperature_fitted_
    assert enough.temperature_ != 1.0
    X, _ = toy((6, 6, 6), seed=2)
    before = enough.predict(X)
    enough.temperature_ = 1.0
    np.testing.assert_array_equal(enough.predict(X), before)


# --- Runs ---

SPLITS = {"train": 8, "val": 5, "test": 4}
FLAT = ["data=folder", "mapping=identity", "hog.size_px=32"]
GROUP = "mapping.look_alikes={m: [p, s]}"
JUDGING = ["decision=threshold", "evaluation.tta=true", "augmentation=mirror"]


@pytest.fixture
def records(tree):
    return tree({f"{split}/{label}": n for split, n in SPLITS.items() for label in ("a", "p", "s")})


def table_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("stage", ["full", "flat", "hard"])
def test_the_saved_model_calls_records_what_the_run_said(stage, records, run_here):
    """predictions.csv, predict.py and a notebook that loads the model must never disagree."""
    from spectro.runs.predict import predict_files

    run_dir = run_here(*FLAT, f"data.root={records}", GROUP, f"cascade_stage={stage}", *JUDGING, figures=True)
    said = {row["path"]: row for row in table_of(run_dir / "predictions.csv")}
    found = predict_files(run_dir / "model", [records / path for path in said])
    header, *table = found.rows
    for path, label, *p in table:
        own = said[path.removeprefix(f"{records.as_posix()}/")]
        assert label == own["predicted"]
        np.testing.assert_allclose(p, [float(own[name]) for name in header[2:]], atol=1e-12)
    info = json.loads((run_dir / "run.json").read_text())
    assert info["evaluating"]["variants"] == ["original", "mirrored"]
    assert [own["first"] for own in info["evaluating"]["thresholds"]] == ["p"]
    assert load(run_dir / "model").thresholds_ == [Threshold(**own) for own in info["evaluating"]["thresholds"]]
    metrics = json.loads((run_dir / "metrics.json").read_text())
    matrix = np.zeros((len(metrics["test"]["classes"]),) * 2, int)
    for row in (row for row in said.values() if row["split"] == "test"):
        matrix[tuple(metrics["test"]["classes"].index(row[key]) for key in ("label", "predicted"))] += 1
    assert metrics["test"]["confusion_matrix"] == matrix.tolist()
    assert (run_dir / "figures" / "reliability.png").exists()


def test_the_rest_of_a_run_is_as_it_was(records, run_here):
    """Both are off by default, and a threshold changes no probability."""
    own = [*FLAT, f"data.root={records}", GROUP, "augmentation=mirror"]
    plain, divided = (
        table_of(run_here(*own, f"decision={name}", name=name) / "predictions.csv") for name in ("argmax", "threshold")
    )
    assert len(plain) == 27
    for before, after in zip(plain, divided, strict=True):
        assert {**before, "predicted": ""} == {**after, "predicted": ""}


def test_too_few_val_records_are_said(tree, run_here):
    root = tree({"train/a": 4, "train/p": 4, "train/s": 4, "val/a": 4, "val/p": 4, "val/s": 3, "test/a": 1})
    run_dir = run_here(*FLAT, f"data.root={root}", GROUP, "augmentation=none", "decision=threshold")
    told = json.loads((run_dir / "run.json").read_text())["warnings"]
    assert "threshold: 4 of p and 3 of s are too few val records to choose one (5 each), left at 0.5" in told
    assert "temperature of stage hard: 7 val records are too few to fit one (8), left at 1" in told
    assert not any("stage easy" in line for line in told)


def test_test_labels_choose_nothing(records, run_here):
    """The same run with the test folders' labels exchanged must be the same model."""
    own = [*FLAT, f"data.root={records}", GROUP, *JUDGING]
    before = run_here(*own, name="before")
    (records / "test" / "p").rename(records / "test" / "x")
    (records / "test" / "s").rename(records / "test" / "p")
    (records / "test" / "x").rename(records / "test" / "s")
    after = run_here(*own, name="after")
    for path in (before / "model").rglob("model.json"):
        assert path.read_bytes() == (after / path.relative_to(before)).read_bytes()


@pytest.mark.parametrize("stage", ["full", "flat"])
def test_a_fold_chooses_on_its_own_inner_val(stage, tree, run_here, monkeypatch):
    """A threshold that saw the fold's records would flatter every number of a cross-validation."""
    from spectro.runs import crossval

    root = tree({f"{split}/{label}": n for split, n in (("train", 12), ("val", 3), ("test", 2)) for label in "aps"})
    seen = []

    def choose(classes, probabilities, labels, look_alikes, **limit):
        seen.append((len(probabilities), len(labels)))
        return [Threshold("p", "s", 0.0)], []

    monkeypatch.setattr(crossval, "choose_thresholds", choose)
    own = [f"data.root={root}", GROUP, f"cascade_stage={stage}", "validation=kfold", "validation.k=3", *JUDGING]
    run_dir = run_here(*FLAT, *own)
    # A third of 45 records is evaluated; of the other 30 about a quarter is the inner val.
    assert [n for n, _ in seen] == [n for _, n in seen]
    assert all(3 <= n <= 9 for n, _ in seen)
    rows = table_of(run_dir / "oof_predictions.csv")
    assert len(rows) == 45
    # With a threshold of 0 no record that falls to the pair is called the first of it.
    assert {row["predicted"] for row in rows} <= {"a", "s"}
    matrix = json.loads((run_dir / "metrics.json").read_text())["cv"]["confusion_matrix"]
    assert sum(row[1] for row in matrix) == 0


def test_folds_without_enough_records_are_counted(records, run_here):
    own = [f"data.root={records}", GROUP, "validation=kfold", "validation.k=3", "decision=threshold"]
    run_dir = run_here(*FLAT, *own, "augmentation=none")
    told = json.loads((run_dir / "run.json").read_text())["warnings"]
    few = "too few inner val records of the look-alikes to choose a threshold, left at 0.5 there"
    assert f"cross-validation: 3 of 3 folds have {few}" in told


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["decision=best"], "decision: got 'best'; allowed: 'argmax' or 'threshold'"),
        (["decision=threshold", "cascade_stage=easy"], "allowed with cascade_stage=easy: argmax"),
        (["decision=threshold", "mapping=identity", "cascade_stage=flat"], "mapping.look_alikes is empty"),
        (
            ["decision=threshold", "mapping=identity", "mapping.look_alikes={m: [a, b, c]}"],
            "mapping.look_alikes has no group of two",
        ),
        (["evaluation.tta=true", "augmentation=none"], "allowed with augmentation=none: false"),
        (["evaluation.tta=1"], "evaluation.tta: got 1; allowed"),
    ],
)
def test_what_has_no_meaning_is_refused(overrides, told):
    from spectro.cli import main as cli

    with pytest.raises(ConfigError, match=told.replace("(", r"\(")):
        cli.composed(overrides)


def test_a_record_set_knows_nothing_of_exclusions_when_it_is_evaluated():
    """What is excluded is known of training records; of a new image nobody knows."""
    from spectro.cli import main as cli

    exclude = "augmentation.exclude={x: [mirrored]}"
    assert cli.composed(["evaluation.tta=true", exclude]).eval_variants == VARIANTS["mirror_halves"]
    assert cli.composed([exclude]).eval_variants == ("original",)

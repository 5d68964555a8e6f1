"""Cross-validation: everything inside the fold, no copy on two sides, test never read, the numbers what they say."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import make_tree
from sklearn.metrics import accuracy_score, f1_score
from test_network_runs import history_of, results_of, tiny

from spectro.classifiers import CnnClassifier, HogSvmClassifier
from spectro.classifiers import fit_context as work
from spectro.classifiers.base import StageOutput
from spectro.classifiers.networks import training
from spectro.cli import main as cli
from spectro.data import Record
from spectro.data.images import file_digest
from spectro.errors import ConfigError, DataError
from spectro.runs import crossval, task
from spectro.runs import run as experiment
from spectro.runs.crossval import OutOfFold, cross_validate
from spectro.runs.fold_plan import plan
from spectro.runs.runinfo import RunInfo

SMALL = ["hog.size_px=32", "hog.cell_px=8", "data.cache_dir=null", "tracking.uri=null"]
KFOLD = ["validation=kfold", *SMALL]
FLAT = ["data=folder", "mapping=identity", "cascade_stage=flat", "augmentation=none"]


@pytest.fixture
def demo(demo_root):
    """A function that gives a checked configuration of the small demo data, and the data."""

    def build(*overrides):
        config = cli.composed([*KFOLD, f"data.demo_dir={demo_root}", "data.scale=0.1", *overrides])
        return config, task.load_data(config)

    return build


class Spy:
    """Stands for every classifier's `out_of_fold` and remembers what it was given."""

    def __init__(self, monkeypatch, *families):
        self.calls = []
        for family in families or (HogSvmClassifier,):
            monkeypatch.setattr(family, "out_of_fold", lambda *given: self(*given))

    def __call__(self, own, X, y, X_val, y_val, X_new):
        self.calls.append((X, y, X_val, y_val, X_new))
        k = len(set(y))
        return np.full((len(X_new), k), 1 / k)


# --- What is in a fold ---


@pytest.mark.parametrize("augmentation", ["none", "mirror_halves"])
def test_copies_stay_with_their_record_and_only_originals_are_evaluated(demo, monkeypatch, augmentation):
    config, dataset = demo("cascade_stage=flat", f"augmentation={augmentation}", "validation.k=3")
    spy = Spy(monkeypatch)
    cross_validate(config, dataset)
    pool = {record.digest for record in dataset.records if record.split != "test"}
    evaluated = []
    for X, y, X_val, _, X_new in spy.calls:
        assert not set(X.digests) & set(X_new.digests)
        assert set(X.digests) | set(X_new.digests) == pool
        assert len(X) == len(y) == (4 if augmentation == "mirror_halves" else 1) * len(set(X.digests))
        assert set(X_new.views) == {"original"}
        assert len(X_val) == 0
        evaluated += list(X_new.digests)
    assert sorted(evaluated) == sorted(pool)


def test_test_is_never_read(demo, monkeypatch):
    """Not one pixel and not one descriptor: a sweep over it would otherwise choose on test."""
    config, dataset = demo()
    store, wanted = dataset.store, []
    read = store.cache.rows
    monkeypatch.setattr(store.cache, "rows", lambda kind, keys, *a: wanted.extend(keys) or read(kind, keys, *a))
    cv = cross_validate(config, dataset)
    of = {split: {r.digest for r in dataset.of(split)} for split in ("train", "val", "test")}
    assert wanted
    assert {key.split(":")[0] for key in wanted} == of["train"] | of["val"]
    assert not {record.digest for record in cv.tasks[""].records} & of["test"]


def test_images_with_the_same_bytes_are_in_one_fold(tmp_path):
    """Under two names they are two sources, and yet one recording."""
    root = make_tree(tmp_path / "data", {"train": {"a": 6, "b": 6}, "val": {"a": 1, "b": 1}, "test": {"a": 1, "b": 1}})
    first = sorted((root / "train" / "a").iterdir())[0]
    for number in range(3):
        (root / "train" / "a" / f"twin{number}.png").write_bytes(first.read_bytes())
    config = cli.composed([*KFOLD, *FLAT, f"data.root={root}", "validation.k=3", "validation.repeats=4"])
    dataset = task.load_data(config)
    planned = plan(config, dataset)
    twins = np.array([record.digest for record in planned.records]) == file_digest(first)
    assert twins.sum() == 4
    assert all(len(set(fold[twins])) == 1 for fold in planned.folds)


@pytest.mark.parametrize("stage", ["flat", "easy", "hard", "full"])
def test_every_stage_is_judged_in_the_same_folds(demo, stage):
    """Stages alone and together can be compared, since chance has dealt them the same folds."""
    config, dataset = demo(f"cascade_stage={stage}", "validation.k=3")
    cv = cross_validate(config, dataset)
    assert set(cv.tasks) == ({"", "easy", "hard"} if stage == "full" else {""})
    for own in cv.tasks.values():
        assert own.probabilities.shape == (1, len(own.records), len(own.classes))
        np.testing.assert_allclose(own.probabilities.sum(axis=2), 1)
        assert set(own.truth) == set(own.classes)
    if stage in ("flat", "easy", "full"):
        whole = demo("cascade_stage=flat", "validation.k=3")
        np.testing.assert_array_equal(cv.tasks[""].folds, plan(*whole).folds)
    if stage == "full":
        alone = cross_validate(*demo("cascade_stage=easy", "validation.k=3")).tasks[""]
        np.testing.assert_array_equal(cv.tasks["easy"].probabilities, alone.probabilities)


def test_out_of_fold_is_what_a_fit_by_hand_gives(demo):
    config, dataset = demo("cascade_stage=flat", "augmentation=mirror", "validation.k=3")
    own = cross_validate(config, dataset).tasks[""]
    for fold in range(3):
        is_new = own.folds[0] == fold
        train = [r for r, new in zip(own.records, is_new, strict=True) if not new]
        X, y = task.training_set(config, dataset, train)
        fitted = config.estimator().fit(X, y)
        new = dataset.images([r for r, n in zip(own.records, is_new, strict=True) if n])
        columns = np.searchsorted(own.classes, fitted.classes_)
        np.testing.assert_allclose(own.probabilities[0, is_new][:, columns], fitted.predict_proba(new), atol=1e-3)


def test_a_fold_without_a_class_gives_it_no_probability(tmp_path):
    """A class of one source cannot be known where it is evaluated; of two, each is evaluated with the other."""
    root = make_tree(
        tmp_path / "data",
        {"train": {"a": 8, "b": 2, "c": 1}, "val": {"a": 2, "b": 0, "c": 0}, "test": {"a": 1, "b": 1, "c": 1}},
    )
    config = cli.composed([*KFOLD, *FLAT, f"data.root={root}"])
    dataset = task.load_data(config)
    cv = cross_validate(config, dataset)
    own = cv.tasks[""]
    assert list(own.classes) == ["a", "b", "c"]
    only = own.truth == "c"
    assert (own.probabilities[0, own.folds[0] == own.folds[0][only], 2] == 0).all()
    assert (own.probabilities[0, own.folds[0] != own.folds[0][only], 2] > 0).all()
    assert (own.predicted[0][only] != "c").all()
    told = [
        "cross-validation: class 'b' has 2 sources for 5 folds: in 3 folds none of it is evaluated",
        "cross-validation: class 'c' has 1 source for 5 folds: in 4 folds none of it is evaluated, and where it is "
        "evaluated, none of it is trained on",
    ]
    assert list(cv.warnings)[:2] == told
    report = own.report(0)
    assert report["per_class"]["c"]["support"] == 1
    json.dumps(report, allow_nan=False)


def test_a_group_that_a_fold_cannot_train(tmp_path):
    """Both look-alikes of one source: where they are evaluated there is no hard stage."""
    root = make_tree(tmp_path / "data", {"train": {"a": 6, "b": 1, "c": 1}, "val": {"a": 1}, "test": {"a": 1}})
    source = next((root / "train" / "b").iterdir())
    other = next((root / "train" / "c").iterdir())
    other.rename(other.with_name(source.name))
    for split in ("val", "test"):
        for label in "bc":
            (root / split / label).mkdir()
    overrides = [*KFOLD, "data=folder", "mapping=identity", "mapping.look_alikes={bc: [b, c]}", "augmentation=none"]
    config = cli.composed([*overrides, f"data.root={root}", "validation.k=3"])
    cv = cross_validate(config, task.load_data(config))
    assert (cv.tasks["hard"].probabilities == 0).all()
    for name in ("", "easy"):
        own = cv.tasks[name]
        together = own.folds[0] == own.folds[0][own.truth != "a"][0]
        np.testing.assert_allclose(own.probabilities[0, together, 0], 1)


def test_networks_give_up_an_inner_val(demo_root, monkeypatch):
    """The epoch is chosen inside the fold, on records that the fold does not evaluate."""
    root = [f"data.demo_dir={demo_root}", "data.scale=0.1", "data.cache_dir=null"]
    config = cli.composed([*tiny("resnet18", "cascade_stage=flat", "augmentation=mirror"), *root, "validation=kfold"])
    dataset = task.load_data(config)
    spy = Spy(monkeypatch, CnnClassifier)
    cross_validate(config, dataset)
    pool = {record.digest for record in dataset.records if record.split != "test"}
    for X, y, X_val, y_val, X_new in spy.calls:
        parts = [set(part.digests) for part in (X, X_val, X_new)]
        assert set.union(*parts) == pool
        assert sum(map(len, parts)) == len(pool)
        assert 0 < len(X_val) <= len(pool) / 3
        assert set(X_val.views) == {"original"}
        assert set(y_val) <= set(y)


# --- What the numbers mean ---


def said(seed=0, repeats=3, n=40):
    rng = np.random.default_rng(seed)
    classes = np.array(["a", "b", "c"], dtype=object)
    p = rng.dirichlet(np.ones(3), (repeats, n))
    folds = np.array([rng.permutation(np.arange(n) % 4) for _ in range(repeats)])
    records = [Record(Path(f"{i}.png"), "train", "a", str(i)) for i in range(n)]
    return OutOfFold(records, classes[rng.integers(0, 3, n)], classes, folds, p, int(folds.max()) + 1)


def test_averages_are_scikit_learns():
    own = said()
    pooled = [f1_score(own.truth.astype(str), p.astype(str), average="macro") for p in own.predicted]
    by_fold = []
    for folds, predicted in zip(own.folds, own.predicted, strict=True):
        values = []
        for fold in range(4):
            in_fold = folds == fold
            present = sorted(set(own.truth[in_fold]))
            y, p = own.truth[in_fold].astype(str), predicted[in_fold].astype(str)
            values.append(f1_score(y, p, labels=present, average="macro"))
        by_fold.append(np.std(values, ddof=1))
    found = own.averages()
    assert found["macro_f1"] == pytest.approx(np.mean(pooled))
    assert found["macro_f1_std_repeats"] == pytest.approx(np.std(pooled, ddof=1))
    assert found["macro_f1_std_folds"] == pytest.approx(np.mean(by_fold))
    assert found["accuracy"] == pytest.approx(
        np.mean([accuracy_score(own.truth.astype(str), p) for p in own.predicted])
    )
    report = own.report(0)
    assert report["macro_f1"] == found["macro_f1"]
    assert (report["k"], report["repeats"], report["n_records"]) == (4, 3, 40)
    assert report["macro_f1_ci_low"] < pooled[0] < report["macro_f1_ci_high"]
    assert "hard_pair_f1" not in report


def test_the_hard_pair_is_a_mean_over_the_repeats():
    own = replace(said(), look_alikes=["c", "a"])
    f1 = [f1_score(own.truth.astype(str), p.astype(str), average=None)[[0, 2]].mean() for p in own.predicted]
    report = own.report(0)
    assert own.averages()["hard_pair_f1"] == report["hard_pair_f1"] == pytest.approx(np.mean(f1))
    assert report["hard_pair_f1_ci_low"] < f1[0] < report["hard_pair_f1_ci_high"]
    assert report["hard_pair_classes"] == ["a", "c"]


def test_one_repeat_has_no_spread_over_repeats():
    own = said(repeats=1)
    assert own.averages()["macro_f1_std_repeats"] is None
    assert own.averages()["macro_f1_std_folds"] > 0


def test_repeats_and_seeds_deal_other_folds_and_the_seed_of_the_run_does_not(demo):
    first = plan(*demo("validation.repeats=2"))
    assert (first.folds[0] != first.folds[1]).any()
    np.testing.assert_array_equal(plan(*demo("seed=7")).folds[0], first.folds[0])
    assert (plan(*demo("validation.seed=1")).folds[0] != first.folds[0]).any()


# --- What is refused ---


def test_more_folds_than_sources(tmp_path, run_here):
    root = make_tree(tmp_path / "data", {s: {"a": 2, "b": 1} for s in ("train", "val", "test")})
    overrides = ["validation=kfold", *FLAT, f"data.root={root}", "validation.k=7", *SMALL]
    with pytest.raises(DataError, match=r"validation.k: got 7 folds for 6 sources in train and val; allowed: 2 to 6"):
        run_here(*overrides)
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["validation=kfold", "validation.k=1"], "validation.k: got 1; allowed: greater than or equal to 2"),
        (
            ["validation=kfold", "validation.repeats=0"],
            "validation.repeats: got 0; allowed: greater than or equal to 1",
        ),
        (["validation=kfold", "validation.k=2.5"], "validation.k: got 2.5; allowed: integer"),
        (["objective=cv/macro_f1"], r"objective: got 'cv/macro_f1'; .*\(cv/... needs validation=kfold\)"),
        (["validation=kfold", "objective=cv/f1"], "objective: got 'cv/f1'; allowed: cv/macro_f1, cv/accuracy"),
        (["validation=kfold", "cascade_stage=flat", "objective=easy/cv/macro_f1"], "got 'easy/cv/macro_f1'"),
        (["cascade_stage=hard", "objective=val/hard_pair_f1"], "objective: got 'val/hard_pair_f1'"),
        (["mapping=identity", "cascade_stage=flat", "objective=val/hard_pair_f1"], "got 'val/hard_pair_f1'"),
    ],
)
def test_wrong_settings(overrides, told):
    with pytest.raises(ConfigError, match=told):
        cli.composed(overrides)


def test_objectives():
    assert cli.composed([]).common.objective == "val/macro_f1"
    assert cli.composed(["validation=kfold"]).common.objective == "cv/macro_f1"
    for objective in ("val/macro_f1", "hard/cv/accuracy", "easy/cv/balanced_accuracy", "cv/hard_pair_f1"):
        assert cli.composed(["validation=kfold", f"objective={objective}"]).common.objective == objective
    assert cli.composed(["validation=kfold", "objective=null"]).common.objective is None


# --- Whole runs ---


def test_a_run(run_here, demo_root, capsys):
    overrides = [*KFOLD, f"data.demo_dir={demo_root}", "data.scale=0.1", "validation.k=3", "validation.repeats=2"]
    run_dir = run_here(*overrides, "objective=hard/cv/accuracy", figures=True)
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["objective"] == metrics["stages"]["hard"]["cv"]["accuracy"]
    assert {"val", "test", "cv"} <= set(metrics)
    assert {"cv", "val", "test"} == set(metrics["stages"]["easy"])
    config = cli.composed(overrides)
    cv = cross_validate(config, task.load_data(config))
    assert metrics["cv"] == cv.tasks[""].report(0)
    for objective in ("cv/macro_f1", "easy/cv/macro_f1", "cv/hard_pair_f1"):
        stage, _, metric = objective.rpartition("cv/")
        table = metrics["stages"][stage.strip("/")] if stage else metrics
        assert cv.value(objective) == table["cv"][metric]
    with (run_dir / "oof_predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:6] == ["repeat", "fold", "path", "source", "label", "predicted"]
    n = metrics["cv"]["n_records"]
    assert [(r["repeat"], r["path"]) for r in rows] == [(str(i), r["path"]) for i in (1, 2) for r in rows[:n]]
    assert {r["fold"] for r in rows} == {"1", "2", "3"}
    right = np.mean([r["label"] == r["predicted"] for r in rows])
    assert right == pytest.approx(metrics["cv"]["accuracy"])
    assert (run_dir / "figures" / "confusion_cv.png").exists()
    assert (run_dir / "figures" / "confusion_cv_hard.png").exists()
    info = json.loads((run_dir / "run.json").read_text())
    assert info["wall_s"]["cross_validation"] > 0
    assert any("source for 3 folds" in line or "sources for 3 folds" in line for line in info["warnings"])
    shown = capsys.readouterr().out
    assert "3 folds" in shown
    assert "± folds" in shown


def test_cv_goes_to_mlflow_under_its_name(run_here, demo_root):
    from spectro.tracking import flatten_metrics

    run_dir = run_here(*KFOLD, f"data.demo_dir={demo_root}", "data.scale=0.1", "validation.k=2")
    flat = flatten_metrics(json.loads((run_dir / "metrics.json").read_text()), {})
    assert flat["cv/macro_f1"] == flat["objective"]
    assert {"cv/macro_f1_std_folds", "hard/cv/macro_f1", "cv/k"} <= set(flat)


def test_a_run_without_val_records(tmp_path, run_here):
    """Two images a class: val is empty, and cross-validation still has something to say."""
    root = make_tree(tmp_path / "data", {"a": 2, "b": 2, "c": 2})
    run_dir = run_here(*KFOLD, *FLAT, f"data.root={root}", "validation.k=2")
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["objective"] == metrics["cv"]["macro_f1"]
    assert metrics["val"]["n_records"] == 0


def test_a_killed_run_of_networks_ends_as_if_it_had_not_been(run_here, demo_root, tmp_path, monkeypatch):
    """Finished folds are not trained again, and the one that was under way goes on."""
    own = tiny("deit_vpt", "vpt.prompt_dropout=0.2", f"data.demo_dir={demo_root}", "data.scale=0.1", epochs=2)
    own += ["validation=kfold", "validation.k=2", "augmentation=none"]
    whole = run_here(*own, name="whole")
    stages = list(dict.fromkeys(row["stage"] for row in history_of(whole)))
    assert stages == ["easy fold 1", "hard fold 1", "easy fold 2", "hard fold 2", "easy", "hard"]
    real, epochs = training._evaluate, []

    def killed(*arguments):
        epochs.append(1)
        if len(epochs) == 7:
            raise KeyboardInterrupt
        return real(*arguments)

    overrides = ["tracking.uri=null", "data.cache_dir=null", *own]
    run_dir = tmp_path / "stopped"
    run_dir.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(training, "_evaluate", killed)
        with pytest.raises(KeyboardInterrupt):
            experiment.run(cli.composed(overrides), run_dir)
    assert (run_dir / "checkpoints" / "fold_1.json").exists()
    assert not (run_dir / "checkpoints" / "fold_1").exists()
    assert list((run_dir / "checkpoints" / "fold_2").rglob("*.ckpt"))
    again = []
    monkeypatch.setattr(training, "_evaluate", lambda *given: again.append(1) or real(*given))
    monkeypatch.setattr("spectro.runs.results.draw", lambda *_: None)
    experiment.run(cli.composed(overrides), run_dir, RunInfo.read(run_dir))
    assert len(again) == 12 - 6
    assert results_of(run_dir) == results_of(whole)
    assert (run_dir / "oof_predictions.csv").read_bytes() == (whole / "oof_predictions.csv").read_bytes()
    assert not (run_dir / "checkpoints").exists()


def test_a_finished_fold_of_another_configuration_is_not_believed(demo, tmp_path, monkeypatch):
    """Or of other data: its predictions would be those of another model."""

    asked = []

    def evaluated(config, dataset, planned, estimator, repeat, number):
        asked.append(number)
        work.current().on_epoch("flat", [{"epoch": 1}])
        n = int((planned.folds[repeat] == number).sum())
        return {"": StageOutput(np.array(["noise_DNS"], dtype=object), np.ones((n, 1)))}

    monkeypatch.setattr(crossval, "_evaluated", evaluated)
    for overrides, want in ([], 3), ([], 0), (["svm.C=7"], 3):
        asked.clear()
        with work.fit_context(work.FitContext(tmp_path, "flat")):
            cross_validate(*demo("cascade_stage=flat", "validation.k=3", *overrides))
        assert len(asked) == want
    (tmp_path / "fold_2.json").write_text("{")
    asked.clear()
    with work.fit_context(work.FitContext(tmp_path, "flat")):
        cross_validate(*demo("cascade_stage=flat", "validation.k=3", "svm.C=7"))
    assert asked == [1]


def test_without_a_workplace_nothing_is_written(demo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config, dataset = demo("cascade_stage=flat", "validation.k=2")
    before = sorted(tmp_path.rglob("*"))
    cross_validate(config, dataset)
    assert sorted(tmp_path.rglob("*")) == before


def test_holdout_has_no_folds(demo_root):
    config = cli.composed([*SMALL, f"data.demo_dir={demo_root}", "data.scale=0.1"])
    with pytest.raises(TypeError, match="got 'holdout'; allowed: kfold"):
        cross_validate(config, task.load_data(config))

"""Cross-validation: everything inside the fold, no copy on two sides, test never read, the numbers what they say."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL_HOG, make_tree, read_json, read_rows, save_image
from scipy.special import softmax
from sklearn.metrics import accuracy_score, f1_score
from test_network_runs import history_of, results_of, tiny

from spectro.classifiers import CnnClassifier, HogSvmClassifier
from spectro.classifiers.fit_context import FitContext, fit_context
from spectro.classifiers.temperature import fit_temperature
from spectro.cli import main as cli
from spectro.data import Record
from spectro.data.images import file_digest
from spectro.errors import ConfigError, DataError
from spectro.runs.crossval import CrossValidated, Folds, cross_validate
from spectro.runs.predictions import Predictions, read_predictions
from spectro.runs.runinfo import RunInfo
from spectro.runs.task import Task, load_data

KFOLD = ["validation=kfold", "tracking.uri=null", *SMALL_HOG]
FLAT = ["data=folder"]


def task_of(*overrides):
    config = cli.composed([*KFOLD, *overrides])
    return Task(config, load_data(config))


def validated(task):
    return cross_validate(task, Folds.of(task))


@pytest.fixture
def demo(demo_root):
    """A function that gives the task of a configuration of the small demo data."""
    return lambda *overrides: task_of(f"data.demo_dir={demo_root}", "data.scale=0.1", *overrides)


@pytest.fixture
def folds_of(monkeypatch):
    """A function that cross-validates a task and returns what each fold's fit was given, without fitting."""

    def run(task, family):
        calls = []

        def out_of_fold(model, X, y, X_val, y_val, X_new):
            calls.append((X, y, X_val, y_val, X_new))
            return np.full((len(X_new), len(set(y))), 1 / len(set(y)))

        monkeypatch.setattr(family, "out_of_fold", out_of_fold)
        validated(task)
        return calls

    return run


# --- What is in a fold ---


@pytest.mark.parametrize("augmentation", ["none", "mirror_halves"])
def test_copies_stay_with_their_record_and_only_originals_are_evaluated(demo, folds_of, augmentation):
    """A copy on both sides of a fold makes its scores too good."""
    task = demo("cascade_stage=flat", f"augmentation={augmentation}", "validation.k=3")
    pool = {record.digest for record in task.dataset.records if record.split != "test"}
    evaluated = []
    for X, y, X_val, _, X_new in folds_of(task, HogSvmClassifier):
        assert not set(X.digests) & set(X_new.digests)
        assert set(X.digests) | set(X_new.digests) == pool
        assert len(X) == len(y) == (4 if augmentation == "mirror_halves" else 1) * len(set(X.digests))
        assert set(X_new.views) == {"original"}
        assert len(X_val) == 0
        evaluated += list(X_new.digests)
    assert sorted(evaluated) == sorted(pool)


def test_networks_give_up_an_inner_val(demo_root, folds_of):
    """The epoch is chosen inside the fold, on records that the fold does not evaluate."""
    root = [f"data.demo_dir={demo_root}", "data.scale=0.1", "data.cache_dir=null"]
    config = cli.composed(
        [*tiny("resnet18", "cascade_stage=flat", "augmentation=mirror"), *root, "validation=kfold", "train.select=best"]
    )
    task = Task(config, load_data(config))
    pool = {record.digest for record in task.dataset.records if record.split != "test"}
    for X, y, X_val, y_val, X_new in folds_of(task, CnnClassifier):
        parts = [set(part.digests) for part in (X, X_val, X_new)]
        assert set.union(*parts) == pool
        assert sum(map(len, parts)) == len(pool)
        assert 0 < len(X_val) <= len(pool) / 3
        assert set(X_val.views) == {"original"}
        assert set(y_val) <= set(y)


def test_test_is_never_read(demo, monkeypatch):
    """Not one pixel and not one descriptor: a sweep over it would otherwise choose on test."""
    task = demo()
    cache, read = task.dataset.store.cache, []
    rows = cache.rows
    monkeypatch.setattr(cache, "rows", lambda kind, keys, *a: read.extend(keys) or rows(kind, keys, *a))
    cv = validated(task)
    of = {split: {r.digest for r in records} for split, records in task.records.items()}
    assert {key.split(":")[0] for key in read} == of["train"] | of["val"]
    assert not {record.digest for record in cv.stages[""][0].records} & of["test"]


def test_images_with_the_same_bytes_are_in_one_fold(tmp_path):
    """Under two names they are two sources, and yet one recording."""
    root = make_tree(tmp_path / "data", {"train": {"a": 6, "b": 6}, "val": {"a": 1, "b": 1}, "test": {"a": 1, "b": 1}})
    first = sorted((root / "train" / "a").iterdir())[0]
    for number in range(3):
        (root / "train" / "a" / f"twin{number}.png").write_bytes(first.read_bytes())
    folds = Folds.of(task_of(*FLAT, f"data.root={root}", "validation.k=3", "validation.repeats=4"))
    twins = np.array([record.digest for record in folds.records]) == file_digest(first)
    assert twins.sum() == 4
    assert all(len(set(numbers[twins])) == 1 for numbers in folds.number)


@pytest.mark.parametrize("stage", ["flat", "easy", "hard", "full"])
def test_every_stage_is_evaluated_in_the_same_folds(demo, stage):
    """Otherwise stages alone and together could not be compared."""
    cv = validated(demo(f"cascade_stage={stage}", "validation.k=3"))
    assert set(cv.stages) == ({"", "easy", "hard"} if stage == "full" else {""})
    for (predictions,) in cv.stages.values():
        assert predictions.probabilities.shape == (len(predictions.records), len(predictions.classes))
        np.testing.assert_allclose(predictions.probabilities.sum(axis=1), 1)
        assert set(predictions.y_true) == set(predictions.classes)
    if stage != "hard":
        whole = Folds.of(demo("cascade_stage=flat", "validation.k=3"))
        np.testing.assert_array_equal(cv.stages[""][0].fold, whole.number[0])
    if stage == "full":
        (alone,) = validated(demo("cascade_stage=easy", "validation.k=3")).stages[""]
        np.testing.assert_array_equal(cv.stages["easy"][0].probabilities, alone.probabilities)


def test_out_of_fold_is_what_a_fit_by_hand_gives(demo):
    """The shorter way of a family must be the same model."""
    task = demo("cascade_stage=flat", "augmentation=mirror", "validation.k=3")
    folds, (predictions,) = Folds.of(task), validated(task).stages[""]
    for fold in range(3):
        train, _, new = folds.split(0, fold, with_val=False)
        fitted = task.estimator().fit(*task.training_set(train))
        columns = np.searchsorted(predictions.classes, fitted.classes_)
        out_of_fold = predictions.probabilities[predictions.fold == fold][:, columns]
        np.testing.assert_allclose(out_of_fold, fitted.predict_proba(task.dataset.images(new)), atol=1e-3)


def test_a_fold_without_a_class_gives_it_no_probability(tmp_path):
    """A class of one source has no training records where it is evaluated; a warning names it."""
    counts = {"train": {"a": 8, "b": 2, "c": 1}, "val": {"a": 2, "b": 0, "c": 0}, "test": {"a": 1, "b": 1, "c": 1}}
    cv = validated(task_of(*FLAT, f"data.root={make_tree(tmp_path / 'data', counts)}"))
    (predictions,) = cv.stages[""]
    assert list(predictions.classes) == ["a", "b", "c"]
    single = predictions.y_true == "c"
    is_its_fold = predictions.fold == predictions.fold[single]
    np.testing.assert_array_equal(predictions.probabilities[:, 2] == 0, is_its_fold)
    assert (predictions.predicted[single] != "c").all()
    assert [any(f"class '{label}'" in line for line in cv.warnings) for label in "abc"] == [False, True, True]
    report = cv.report("", seed=0)
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
    groups = ["data=folder", "mapping.look_alikes={bc: [b, c]}"]
    cv = validated(task_of(*groups, f"data.root={root}", "validation.k=3"))
    assert (cv.stages["hard"][0].probabilities == 0).all()
    for stage in ("", "easy"):
        (predictions,) = cv.stages[stage]
        without_hard = predictions.fold == predictions.fold[predictions.y_true != "a"][0]
        np.testing.assert_allclose(predictions.probabilities[without_hard, 0], 1)


# --- What the numbers mean ---


def simulated(look_alikes=(), repeats=3, n=40):
    """Random predictions of three classes in four folds, and their true labels as text."""
    rng = np.random.default_rng(0)
    classes = np.array(["a", "b", "c"], dtype=object)
    probabilities = rng.dirichlet(np.ones(3), (repeats, n))
    folds = [rng.permutation(np.arange(n) % 4) for _ in range(repeats)]
    records = [Record(Path(f"{i}.png"), "train", "a", str(i)) for i in range(n)]
    y = classes[rng.integers(0, 3, n)]
    stage = [Predictions(records, y, classes, p, fold) for p, fold in zip(probabilities, folds, strict=True)]
    return CrossValidated({"": stage}, 4, look_alikes, [], {}), stage, y.astype(str)


def test_averages_are_scikit_learns():
    """Means over repeats of pooled records; spreads over folds and repeats."""
    cv, stage, y = simulated()
    predicted = [predictions.predicted.astype(str) for predictions in stage]
    pooled = [f1_score(y, p, average="macro") for p in predicted]
    by_fold = []
    for predictions, p in zip(stage, predicted, strict=True):
        folds = [predictions.fold == fold for fold in range(4)]
        by_fold.append([f1_score(y[i], p[i], labels=sorted(set(y[i])), average="macro") for i in folds])
    averages, report = cv.averages(), cv.report("", seed=0)
    assert averages["macro_f1"] == report["macro_f1"] == pytest.approx(np.mean(pooled))
    assert averages["macro_f1_std_repeats"] == pytest.approx(np.std(pooled, ddof=1))
    assert averages["macro_f1_std_folds"] == pytest.approx(np.std(by_fold, axis=1, ddof=1).mean())
    assert averages["accuracy"] == pytest.approx(np.mean([accuracy_score(y, p) for p in predicted]))
    assert (report["k"], report["repeats"], report["n_records"]) == (4, 3, 40)
    assert report["macro_f1_ci_low"] < pooled[0] < report["macro_f1_ci_high"]
    assert "hard_pair_f1" not in report


def test_the_hard_pair_is_a_mean_over_the_repeats():
    """As every other metric; one repeat has no spread over repeats."""
    cv, stage, y = simulated(look_alikes=["c", "a"])
    f1 = [f1_score(y, predictions.predicted.astype(str), average=None)[[0, 2]].mean() for predictions in stage]
    report = cv.report("", seed=0)
    assert cv.averages()["hard_pair_f1"] == report["hard_pair_f1"] == pytest.approx(np.mean(f1))
    assert report["hard_pair_f1_ci_low"] < f1[0] < report["hard_pair_f1_ci_high"]
    assert report["hard_pair_classes"] == ["a", "c"]
    averages = simulated(repeats=1)[0].averages()
    assert averages["macro_f1_std_repeats"] is None
    assert averages["macro_f1_std_folds"] > 0


def test_repeats_and_seeds_deal_other_folds_and_the_seed_of_the_run_does_not(demo):
    first = Folds.of(demo("validation.repeats=2")).number
    assert (first[0] != first[1]).any()
    np.testing.assert_array_equal(Folds.of(demo("seed=7")).number[0], first[0])
    assert (Folds.of(demo("validation.seed=1")).number[0] != first[0]).any()


# --- What is refused ---


def test_more_folds_than_sources(tmp_path, run_here):
    """Before anything is written."""
    root = make_tree(tmp_path / "data", {s: {"a": 2, "b": 1} for s in ("train", "val", "test")})
    with pytest.raises(DataError, match=r"validation.k: got 7 folds for 6 sources in train and val; allowed: 2 to 6"):
        run_here(*KFOLD, *FLAT, f"data.root={root}", "validation.k=7")
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["validation=kfold", "validation.k=1"], "validation.k: got 1; allowed: greater than or equal to 2"),
        (
            ["validation=kfold", "validation.repeats=0"],
            "validation.repeats: got 0; allowed: greater than or equal to 1",
        ),
        (["validation=kfold", "validation.k=2.5"], "validation.k: got 2.5; allowed: integer"),
        (["objective=cv/macro_f1"], "objective: got 'cv/macro_f1'; allowed: .*validation=kfold"),
        (["validation=kfold", "objective=cv/f1"], "objective: got 'cv/f1'; allowed: cv/macro_f1, cv/accuracy"),
        (["validation=kfold", "cascade_stage=flat", "objective=easy/cv/macro_f1"], "got 'easy/cv/macro_f1'"),
        (["cascade_stage=hard", "objective=val/hard_pair_f1"], "objective: got 'val/hard_pair_f1'"),
        (["mapping=identity", "cascade_stage=flat", "objective=val/hard_pair_f1"], "got 'val/hard_pair_f1'"),
    ],
)
def test_invalid_settings(overrides, message):
    """One message with the key, the value and what is allowed."""
    with pytest.raises(ConfigError, match=message):
        cli.composed(overrides)


def test_objectives_of_a_cross_validation():
    """cv/macro_f1 is the default; every metric and stage may be named, or none."""
    assert cli.composed(["validation=kfold"]).common.objective == "cv/macro_f1"
    for objective in (
        "cv/accuracy",
        "easy/cv/macro_f1",
        "hard/cv/balanced_accuracy",
        "cv/hard_pair_f1",
    ):
        assert cli.composed(["validation=kfold", f"objective={objective}"]).common.objective == objective
    assert cli.composed(["validation=kfold", "validation.refit=false", "objective=val/mcc"]).splits == ["val", "test"]
    with pytest.raises(ConfigError, match=r"objective: got 'val/mcc'; allowed: cv/.*with validation.refit=false"):
        cli.composed(["validation=kfold", "objective=val/mcc"])
    assert cli.composed(["validation=kfold", "objective=null"]).common.objective is None


# --- Whole runs ---


def test_a_run(run_here, demo_root, capsys):
    """metrics.json, oof_predictions.csv, figures, run.json and terminal have the cross-validation."""
    overrides = [*KFOLD, f"data.demo_dir={demo_root}", "data.scale=0.1", "validation.k=3", "validation.repeats=2"]
    run_dir = run_here(*overrides, "objective=hard/cv/accuracy", "figures=all")
    metrics, cv = read_json(run_dir / "metrics.json"), validated(task_of(*overrides))
    assert metrics["objective"] == metrics["stages"]["hard"]["cv"]["accuracy"]
    assert list(metrics) == ["cv", "test", "stages", "objective"]
    assert set(metrics["stages"]["easy"]) == {"cv", "test"}
    assert metrics["cv"].items() >= cv.report("", seed=0).items()
    assert metrics["stages"]["easy"]["cv"]["macro_f1"] == cv.averages("easy")["macro_f1"]
    rows = read_rows(run_dir / "oof_predictions.csv")
    assert list(rows[0])[:6] == ["repeat", "fold", "path", "source", "label", "predicted"]
    n = metrics["cv"]["n_records"]
    assert [(r["repeat"], r["path"]) for r in rows] == [(str(i), r["path"]) for i in (1, 2) for r in rows[:n]]
    assert {r["fold"] for r in rows} == {"1", "2", "3"}
    assert np.mean([r["label"] == r["predicted"] for r in rows]) == pytest.approx(metrics["cv"]["accuracy"])
    again = read_predictions(run_dir / "oof_predictions.csv", "repeat")
    for predictions, expected in zip(again.values(), cv.stages[""], strict=True):
        np.testing.assert_array_equal(predictions.probabilities, expected.probabilities)
        np.testing.assert_array_equal(predictions.fold, expected.fold)
    assert (run_dir / "figures" / "confusion_cv_hard.png").exists()
    info, shown = RunInfo.read(run_dir), capsys.readouterr().out
    assert info.wall_s["cross_validation"] > 0
    assert any("for 3 folds" in line for line in info.warnings)
    assert "3 folds" in shown
    assert "± folds" in shown


def test_the_final_model_is_fitted_to_train_and_val_and_calibrated_out_of_fold(run_here, demo_root):
    """Labels are what is missing: val left out is a fifth of them. A test record in the fit would be a leak."""
    overrides = [*KFOLD, "cascade_stage=flat", f"data.demo_dir={demo_root}", "data.scale=0.1", "validation.k=3"]
    run_dir, task = run_here(*overrides), task_of(*overrides)
    cv = read_predictions(run_dir / "oof_predictions.csv", "repeat")["1"]
    y = np.searchsorted(cv.classes, cv.y_true)
    temperature = fit_temperature(np.log(cv.probabilities), y)
    assert RunInfo.read(run_dir).temperature == {"flat": pytest.approx(temperature)}
    by_hand = task.estimator().fit(*task.training_set([*task.records["train"], *task.records["val"]]))
    expected = np.log(by_hand.predict_proba(task.dataset.images(task.records["test"]))) / temperature
    predictions = read_predictions(run_dir / "predictions.csv", "split")
    assert list(predictions) == ["test"]
    np.testing.assert_allclose(predictions["test"].probabilities, softmax(expected, axis=1), rtol=1e-6)


@pytest.mark.parametrize(("ensemble", "more"), [(2, []), (1, ["{}", "{train: {lr: 0.001}}"])])
def test_networks_take_their_number_of_epochs_from_the_folds(ensemble, more, run_here, demo_root):
    """Without val no epoch can be chosen: each stage has as many steps as the best epochs of its folds, by median.

    So has each member that has settings of its own.
    """
    overrides = tiny("resnet18", f"data.demo_dir={demo_root}", "data.scale=0.1", "data.cache_dir=null", epochs=5)
    overrides += ["validation=kfold", "validation.k=2", "validation.seed=1", "augmentation=none", "tracking.uri=null"]
    members = ["train.select=best", f"ensemble.members={ensemble}", f"ensemble.settings=[{','.join(more)}]"]
    # Slow enough that the first epoch is not the best one everywhere.
    slow = ["train.lr=0.003", "train.head_lr=0.0003", "train.warm_start=none", "train.precision=fp32"]
    rows = history_of(run_here(*overrides, *slow, *members))
    config = cli.composed(overrides)
    folds = Folds.of(Task(config, load_data(config)))
    share = {f"fold {i + 1}": len(folds.split(0, i, with_val=True)[0]) / len(folds.records) for i in range(2)}
    final = {}
    names = [f" settings {i}" for i in range(1, len(more) + 1)] or [""]
    for stage in (f"{stage}{name}" for stage in ("easy", "hard") for name in names):
        of_stage = [row for row in rows if row["stage"].startswith(stage)]
        best = [
            int(r["epoch"]) * part
            for r in of_stage
            for name, part in share.items()
            if name in r["stage"] and r["best"] == "True"
        ]
        assert len(best) == 2 * ensemble
        final[stage] = sum("fold" not in row["stage"] for row in of_stage) / ensemble
        assert final[stage] == max(1, round(np.median(best)))


def test_each_group_is_left_out_once(tmp_path, run_here):
    """Does it work at a new station? Records of the same one in training would answer another question."""
    root, seeds = tmp_path / "data", iter(range(99))
    for split, stations in (("train", "abc"), ("val", "d"), ("test", "ef")):
        for station, label, number in product(stations, ("x", "y"), range(2)):
            save_image(root / split / label / f"{station}{label}{number}.png", seed=next(seeds))
    overrides = ["validation=leave_one_group_out", "data.group='/([a-f])[xy]'", "model=pixels", "tracking.uri=null"]
    run_dir = run_here(*FLAT, *overrides, f"data.root={root}", "data.cache_dir=null")
    fold_of = {(row["source"], row["fold"]) for row in read_rows(run_dir / "oof_predictions.csv")}
    assert fold_of == {("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")}
    assert list(read_json(run_dir / "metrics.json")) == ["cv", "test", "stages", "objective"]
    for station, label in product("ab", "xy"):
        save_image(tmp_path / "two" / label / f"{station}{label}.png", seed=next(seeds))
    options = [*FLAT, "data.cache_dir=null", *overrides[:1], *overrides[2:], f"data.root={tmp_path / 'two'}"]
    config = cli.composed([*options, overrides[1]])
    with pytest.raises(DataError, match=r"data.group: got 1 group in train and val; allowed: two or more"):
        Folds.of(Task(config, load_data(config)))
    with pytest.raises(ConfigError, match=r"data.group: got null; allowed with validation=leave_one_group_out"):
        cli.composed(options)


def test_damaged_predictions_are_refused(tmp_path):
    """A table that somebody has edited is no result: the prediction is the largest probability."""
    path = tmp_path / "predictions.csv"
    for row, message in (
        ("test,a.png,a,x,y,0.75,0.25", "predicted is not the class of the largest"),
        ("test,a.png,a,x,z,0.75,0.25", "labels without a column: z"),
        ("test,a.png,a,x,x,nan,0.25", "NaN"),
        ("test,a.png,a,x", "line 2: "),
    ):
        path.write_text(f"split,path,source,label,predicted,p_x,p_y\n{row}\n")
        with pytest.raises(DataError, match=message):
            read_predictions(path)


def test_a_run_without_val_records(tmp_path, run_here):
    """Two images a class: val is empty, and cross-validation still has a result."""
    root = make_tree(tmp_path / "data", {"a": 2, "b": 2, "c": 2})
    overrides = [*KFOLD, *FLAT, f"data.root={root}", "validation.k=2", "validation.refit=false"]
    metrics = read_json(run_here(*overrides) / "metrics.json")
    assert metrics["objective"] == metrics["cv"]["macro_f1"]
    assert metrics["val"]["n_records"] == 0


def test_a_killed_run_of_networks_ends_as_if_it_had_not_been(run_here, demo_root, tmp_path):
    """Finished folds are not trained again, and the one that was interrupted is resumed."""
    overrides = tiny("deit_vpt", "vpt.prompt_dropout=0.2", f"data.demo_dir={demo_root}", "data.scale=0.1", epochs=2)
    overrides += ["validation=kfold", "validation.k=2", "augmentation=none"]
    whole = run_here(*overrides, name="whole")
    stages = list(dict.fromkeys(row["stage"] for row in history_of(whole)))
    assert stages == ["easy fold 1", "hard fold 1", "easy fold 2", "hard fold 2", "easy", "hard"]

    def kill(stage, history):
        if (stage, len(history)) == ("hard fold 2", 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_here(*overrides, on_epoch=kill)
    run_dir, trained = tmp_path / "run", []
    assert (run_dir / "checkpoints" / "fold_1.json").exists()
    assert not (run_dir / "checkpoints" / "fold_1").exists()
    assert list((run_dir / "checkpoints" / "fold_2").rglob("*.ckpt"))
    run_here(*overrides, before=RunInfo.read(run_dir), on_epoch=lambda stage, rows: trained.append((stage, len(rows))))
    assert ("hard fold 2", 2) in trained
    assert {("easy fold 2", 1), ("hard fold 1", 1)}.isdisjoint(trained)
    assert results_of(run_dir) == results_of(whole)
    assert (run_dir / "oof_predictions.csv").read_bytes() == (whole / "oof_predictions.csv").read_bytes()
    assert not (run_dir / "checkpoints").exists()


def test_a_finished_fold_of_another_configuration_is_ignored(demo_root, tmp_path):
    """Or of other data: its predictions would be those of another model."""
    small = tiny("resnet18", f"data.demo_dir={demo_root}", "data.scale=0.1", "cascade_stage=flat", epochs=1)
    small += ["data.cache_dir=null", "validation=kfold", "validation.k=2", "augmentation=none"]

    def trained(*overrides):
        epochs = []

        def on_epoch(stage, rows):
            epochs.extend((stage, row["seconds"], row["train_loss"]) for row in rows)

        config = cli.composed([*small, *overrides])
        with fit_context(FitContext(tmp_path, "flat", on_epoch)):
            validated(Task(config, load_data(config)))
        return epochs

    first = trained()
    assert [stage for stage, *_ in first] == ["flat fold 1", "flat fold 2"]
    assert trained() == first
    other = trained("loss.label_smoothing=0.2")
    assert [stage for stage, *_ in other] == ["flat fold 1", "flat fold 2"]
    assert not {loss for *_, loss in other} & {loss for *_, loss in first}


def test_without_a_folder_nothing_is_written_and_holdout_has_no_folds(demo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = demo("cascade_stage=flat", "validation.k=2")
    before = sorted(tmp_path.rglob("*"))
    validated(task)
    assert sorted(tmp_path.rglob("*")) == before
    assert Folds.of(demo("validation=holdout")) is None

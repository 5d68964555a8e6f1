"""Ensembles: the mean of their members, and nothing of theirs lost on the way."""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL_HOG, read_json, read_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from test_classifiers import LABELS, cnn, shortened, svm, toy
from test_network_runs import history_of, results_of, tiny

from spectro.classifiers import CascadeClassifier, EnsembleClassifier, PixelsClassifier
from spectro.data.manifest import Record
from spectro.data.splits import bootstrap
from spectro.runs import results
from spectro.runs.ensemble import choose
from spectro.runs.predictions import Predictions, read_predictions
from spectro.runs.review import tempered
from spectro.runs.runinfo import RunInfo


@settings(max_examples=50)
@given(
    groups=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3)), min_size=1, max_size=20), seed=st.integers(0, 99)
)
def test_a_sample_holds_whole_groups_and_every_class(groups, seed):
    """Half of a group in a sample would leave the other half for C's inner folds, and a missing class a column less."""
    y = np.concatenate([np.full(n, label) for label, n in groups])
    group = np.repeat(np.arange(len(groups)), [n for _, n in groups])
    rows = bootstrap(y, group, seed)
    assert set(y[rows]) == set(y)
    for number in set(group[rows]):
        counts = np.bincount(rows[group[rows] == number], minlength=len(y))[group == number]
        assert len(set(counts)) == 1
    np.testing.assert_array_equal(rows, bootstrap(y, group, seed))


@given(p_true=st.lists(st.lists(st.floats(0, 1), min_size=6, max_size=6), min_size=1, max_size=6), k=st.integers(1, 6))
def test_a_greedy_choice_is_no_worse_than_its_best_member(p_true, k):
    """It goes by log loss and ends where no member lowers it; a copy of a chosen one must not be taken for help."""
    records = [Record(Path(f"{i}.png"), "val", "a", str(i)) for i in range(6)]
    classes, p = np.array(["a", "b"], dtype=object), np.array(p_true)
    y = np.tile(classes, 3)
    of_a = np.where(y == "a", p, 1 - p)
    members = [Predictions(records, y, classes, np.stack([q, 1 - q], axis=1)) for q in of_a]
    chosen = choose([*members, *members], k)

    def loss(of):
        return -np.log(np.maximum(np.concatenate([p, p])[of].mean(axis=0), 1e-4)).mean()

    losses = [loss([i]) for i in range(len(members))]
    assert losses[chosen[0] % len(p)] == min(losses)
    means = [loss(chosen[: n + 1]) for n in range(len(chosen))]
    assert all(after < before for before, after in pairwise(means))
    assert len(set(chosen)) == len(chosen) <= k


def test_it_is_the_mean_of_members_that_differ():
    """One member is a network of that seed; several of a family without a seed are fitted to different samples."""
    X, y = toy((8, 6, 4))
    X_new, _ = toy((3, 3, 3), seed=2)
    network = shortened(cnn()).set_params(seed=4)
    expected = network.fit(X, y).predict_proba(X_new)
    np.testing.assert_allclose(EnsembleClassifier(network, 1).fit(X, y).predict_proba(X_new), expected, rtol=1e-5)
    pixels = PixelsClassifier().fit(X, y).predict_proba(X_new)
    np.testing.assert_allclose(EnsembleClassifier(PixelsClassifier(), 1).fit(X, y).predict_proba(X_new), pixels)
    ensemble = EnsembleClassifier(PixelsClassifier(), 3).fit(X, y)
    parts = [member.predict_proba(X_new) for member in ensemble.members_]
    np.testing.assert_allclose(ensemble.predict_proba(X_new), np.mean(parts, axis=0), rtol=1e-9)
    assert np.abs(parts[0] - parts[1]).max() > 1e-6
    other = EnsembleClassifier(PixelsClassifier(), 3, seed=1).fit(X, y).predict_proba(X_new)
    assert np.abs(ensemble.predict_proba(X_new) - other).max() > 1e-6
    cascade = CascadeClassifier(shortened(cnn()), PixelsClassifier(), {"merged": LABELS[:2]})
    assert [m.easy_.seed for m in EnsembleClassifier(cascade, 2).fit(X, y).members_] == [0, 1]
    with pytest.raises(ValueError, match="members: got 0; allowed: 1 or more"):
        EnsembleClassifier(svm(), 0).fit(X, y)


def test_a_run_that_is_killed_inside_a_member_ends_as_if_it_had_not_been(run_here, demo_root, tmp_path):
    """Finished members are not trained again; the epochs of all of them are on record."""
    overrides = tiny("resnet18", f"data.demo_dir={demo_root}", "data.scale=0.1", "cascade_stage=flat", epochs=2)
    overrides += ["ensemble.members=2", "ensemble.settings=[{},{train:{epochs:3}}]", "augmentation=none"]
    whole = run_here(*overrides, name="whole")
    stages = [f"flat settings {i} member {j}" for i in (1, 2) for j in (1, 2)]
    assert list(dict.fromkeys(row["stage"] for row in history_of(whole))) == stages
    assert RunInfo.read(whole).networks["flat"]["members"] == 4

    def kill(stage, history):
        if (stage, len(history)) == (stages[2], 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_here(*overrides, on_epoch=kill)
    trained = []
    run_here(
        *overrides,
        before=RunInfo.read(tmp_path / "run"),
        on_epoch=lambda stage, rows: trained.append((stage, len(rows))),
    )
    assert {(stages[0], 1), (stages[1], 1)}.isdisjoint(trained)
    assert results_of(tmp_path / "run") == results_of(whole)


def test_finished_runs_of_different_families_become_a_run(run_here, demo_root, tmp_path, spectro):
    """Its predictions are the means of theirs, its saved model predicts them, and runs that do not fit are refused."""
    fixed = [f"data.demo_dir={demo_root}", "data.scale=0.1"]
    folds = [*fixed, "validation=kfold", "validation.k=2"]
    pixels = run_here(*folds, "model=pixels", name="pixels")
    hog = run_here(*folds, "model=hog_svm", *SMALL_HOG, "ensemble.members=2", name="hog")
    flat = run_here(*fixed, "model=pixels", "cascade_stage=flat", name="flat")
    other, killed, seed = (tmp_path / name for name in ("other", "killed", "seed"))
    for folder, change in ((other, ("data", {"fingerprint": "f"})), (killed, ("status", "KILLED")), (seed, ())):
        shutil.copytree(hog, folder)
        info = read_json(folder / "run.json")
        for key, value in [change] if change else []:
            info[key] = {**info[key], **value} if isinstance(value, dict) else value
        (folder / "run.json").write_text(json.dumps(info))
    for runs, message in [
        ([hog], "got 1 run; allowed: two finished runs or more"),
        ([hog, flat], "cascade_stage: got flat and full"),
        ([hog, other], "data fingerprints differ"),
        ([hog, killed], "not finished"),
        (
            ["--greedy", hog, run_here(*fixed, "model=pixels", name="holdout")],
            "--greedy: got runs without the same folds",
        ),
    ]:
        done = spectro("ensemble", *runs)
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr
        assert not (tmp_path / "outputs" / "runs").exists()

    assert spectro("ensemble", hog, pixels, "--name", "both").returncode == 0
    (run_dir,) = (tmp_path / "outputs" / "runs").iterdir()
    info, metrics = RunInfo.read(run_dir), read_json(run_dir / "metrics.json")
    assert (info.status, info.config["model"]["name"], metrics["cv"]["k"]) == ("FINISHED", "both", 2)
    assert info.cost.fit_s == pytest.approx(sum(RunInfo.read(run).cost.fit_s for run in (hog, pixels)))
    tables = [{row["path"]: row for row in read_rows(run / "predictions.csv")} for run in (run_dir, hog, pixels)]
    for path, row in tables[0].items():
        for column in (key for key in row if key.startswith("p_")):
            mean, *parts = (float(table[path][column]) for table in tables)
            assert mean == pytest.approx(np.mean(parts))
    # Out of fold as well the members have the temperatures of the saved models.
    mean, *parts = (read_predictions(run / "oof_predictions.csv", "repeat")["1"] for run in (run_dir, hog, pixels))
    look_alikes = info.config["mapping"]["look_alikes"]
    for i, run in enumerate((hog, pixels)):
        p = tempered(parts[i], RunInfo.read(run).temperature, look_alikes)
        parts[i] = p.probabilities[np.argsort([str(record.path) for record in p.records])]
    np.testing.assert_allclose(mean.probabilities, np.mean(parts, axis=0), atol=1e-9)
    out = tmp_path / "new.csv"
    assert spectro("predict", run_dir, demo_root / "test", "--out", out).returncode == 0
    predicted = [[float(v) for k, v in row.items() if k.startswith("p_")] for row in read_rows(out)]
    rows = sorted(read_rows(run_dir / "predictions.csv"), key=lambda row: row["path"])
    np.testing.assert_allclose(predicted, [[float(v) for k, v in row.items() if k.startswith("p_")] for row in rows])
    compared = spectro("compare", pixels, run_dir)
    assert (compared.returncode, "both" in compared.stdout) == (0, True), compared.stderr
    # A copy of a member adds nothing, so that a greedy choice leaves it out.
    assert spectro("ensemble", hog, seed, "--greedy").returncode == 0
    newest = max((tmp_path / "outputs" / "runs").iterdir(), key=lambda folder: RunInfo.read(folder).started_at)
    chosen = RunInfo.read(newest).config
    assert (len(chosen["ensemble"]["runs"]), chosen["model"]["name"]) == (1, "hog_svm alone")


def test_frozen_weights_of_two_runs_are_one_file(tmp_path):
    """Each run of a network would keep fifty megabytes that the run before has; other content is left alone."""
    models = [tmp_path / "runs" / name / "model" for name in "abc"]
    for model, content in zip(models, (b"same", b"same", b"else"), strict=True):
        model.mkdir(parents=True)
        (model / "frozen_0.safetensors").write_bytes(content)
        results.share_weights(model, tmp_path)
    first, second, third = (model / "frozen_0.safetensors" for model in models)
    assert first.samefile(second)
    assert not first.samefile(third)
    assert third.read_bytes() == b"else"

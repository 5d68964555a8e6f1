"""Ensembles: the mean of their members, and nothing of theirs lost on the way."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_classifiers import cnn, shortened, svm, toy
from test_network_runs import history_of, results_of, tiny

from spectro.classifiers import EnsembleClassifier, PixelsClassifier
from spectro.data.splits import bootstrap
from spectro.runs.runinfo import RunInfo


@settings(max_examples=50, deadline=None)
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


def test_it_is_the_mean_of_members_that_differ():
    """One member is a network of that seed; several of a family without a seed are fitted to different samples."""
    X, y = toy((8, 6, 4))
    X_new, _ = toy((3, 3, 3), seed=2)
    network = shortened(cnn()).set_params(seed=4)
    expected = network.fit(X, y).predict_proba(X_new)
    np.testing.assert_allclose(EnsembleClassifier(network, 1).fit(X, y).predict_proba(X_new), expected, rtol=1e-5)
    ensemble = EnsembleClassifier(PixelsClassifier(), 3).fit(X, y)
    parts = [member.predict_proba(X_new) for member in ensemble.members_]
    np.testing.assert_allclose(ensemble.predict_proba(X_new), np.mean(parts, axis=0), rtol=1e-9)
    assert np.abs(parts[0] - parts[1]).max() > 1e-6
    with pytest.raises(ValueError, match="members: got 0; allowed: 1 or more"):
        EnsembleClassifier(svm(), 0).fit(X, y)


def test_a_run_that_is_killed_inside_a_member_ends_as_if_it_had_not_been(run_here, demo_root, tmp_path):
    """Finished members are not trained again; the epochs of all of them are on record."""
    overrides = tiny("resnet18", f"data.demo_dir={demo_root}", "data.scale=0.1", "cascade_stage=flat", epochs=2)
    overrides += ["ensemble.members=3", "augmentation=none"]
    whole = run_here(*overrides, name="whole")
    assert list(dict.fromkeys(row["stage"] for row in history_of(whole))) == [f"flat member {i}" for i in (1, 2, 3)]
    assert RunInfo.read(whole).networks["flat"]["members"] == 3

    def kill(stage, history):
        if (stage, len(history)) == ("flat member 3", 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_here(*overrides, on_epoch=kill)
    trained = []
    run_here(
        *overrides,
        before=RunInfo.read(tmp_path / "run"),
        on_epoch=lambda stage, rows: trained.append((stage, len(rows))),
    )
    assert {("flat member 1", 1), ("flat member 2", 1)}.isdisjoint(trained)
    assert results_of(tmp_path / "run") == results_of(whole)

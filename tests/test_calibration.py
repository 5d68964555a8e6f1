"""Calibration error and its chance level."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spectro.evaluation import calibration

CLASSES = ["a", "b", "c"]


def drawn(n, sharpened=1.0, seed=0):
    """Labels drawn with probabilities, and the probabilities to a power: above 1 they are overconfident."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet([0.5, 0.5, 0.5], n)
    labels = np.array([CLASSES[i] for i in (p.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)], dtype=object)
    sharp = p**sharpened
    return labels, sharp / sharp.sum(axis=1, keepdims=True)


def test_two_bins_by_hand():
    """Ten records make two bins of five: 0.6 and all right, 0.9 and four right."""
    p = np.array([[0.6, 0.4]] * 5 + [[0.9, 0.1]] * 5)
    report = calibration([*"aaaaaaaaab"], p, ["a", "b"])
    assert [(b["n"], b["accuracy"], b["confidence"]) for b in report["reliability"]] == [(5, 1.0, 0.6), (5, 0.8, 0.9)]
    np.testing.assert_allclose(report["ece"], (0.4 + 0.1) / 2)
    np.testing.assert_allclose(report["nll"], -np.log([0.6] * 5 + [0.9] * 4 + [0.1]).mean())
    np.testing.assert_allclose(report["brier"], 2 * np.mean([0.16] * 5 + [0.01] * 4 + [0.81]))


def test_a_calibrated_model_is_within_chance_about_19_times_of_20():
    """A level that it passes more often would call good models bad."""
    reports = [calibration(*drawn(24, seed=seed), CLASSES) for seed in range(150)]
    within = np.mean([r["ece"] <= r["ece_by_chance_high"] for r in reports])
    assert 0.90 <= within <= 0.99
    ratio = np.mean([r["ece"] for r in reports]) / np.mean([r["ece_by_chance"] for r in reports])
    assert 0.9 < ratio < 1.1


def test_an_overconfident_model_is_found_with_enough_records():
    report = calibration(*drawn(1000, sharpened=3.0), CLASSES)
    assert report["ece"] > 2 * report["ece_by_chance_high"]
    assert report["nll"] > calibration(*drawn(1000), CLASSES)["nll"]


@given(st.integers(0, 40).flatmap(lambda n: arrays(float, (n, 3), elements=st.sampled_from([0.1, 0.25, 0.5, 1.0]))))
def test_bins_hold_every_record_once_and_equal_probabilities_together(weights):
    """A tie that was cut by the order of the records would make the number depend on file names."""
    p = weights / weights.sum(axis=1, keepdims=True)
    labels = ["a"] * len(p)
    report = calibration(labels, p, CLASSES)
    assert sum(b["n"] for b in report["reliability"]) == len(p)
    assert all(b["accuracy_ci_low"] <= b["accuracy"] <= b["accuracy_ci_high"] for b in report["reliability"])
    backwards = calibration(labels[::-1], p[::-1], CLASSES)
    assert [b["n"] for b in backwards["reliability"]] == [b["n"] for b in report["reliability"]]
    if len(p):
        np.testing.assert_allclose(backwards["ece"], report["ece"], atol=1e-8)
        assert 0 <= report["ece"] <= 1
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_few_records_get_few_bins():
    """One bin for each of four records would be four throws of a coin."""
    assert [len(calibration(*drawn(n), CLASSES)["reliability"]) for n in (1, 4, 24, 1000)] == [1, 1, 4, 10]


def test_a_class_that_has_no_probability_is_expensive_but_finite():
    """metrics.json has no place for infinity."""
    assert calibration(["b"], [[1.0, 0.0]], ["a", "b"])["nll"] == pytest.approx(-np.log(1e-15))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"got \(1, 2\); allowed: \(1, 3\)"):
        calibration(["a"], [[0.5, 0.5]], CLASSES)
    with pytest.raises(ValueError, match="y_true: got z"):
        calibration(["z"], [[0.5, 0.5, 0]], CLASSES)

"""Intervals: known values, and the rules every interval must keep."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from spectro.evaluation import score, wilson
from spectro.evaluation.intervals import (
    design_effects,
    draw_tallies,
    number_sources,
    percentile_interval,
    pseudo_observations,
)


@given(st.integers(1, 200), st.data())
def test_wilson_agrees_with_scipy_and_holds_the_proportion(n, data):
    s = data.draw(st.integers(0, n))
    low, high = wilson(s, n)
    expected = binomtest(s, n).proportion_ci(0.95, method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert 0 <= low <= s / n <= high <= 1


def test_wilson_of_arrays_is_wilson_of_their_elements():
    low, high = wilson([0, 3, 5, 0], [4, 4, 5, 0])
    assert list(zip(low, high, strict=True)) == [wilson(0, 4), wilson(3, 4), wilson(5, 5), (0, 1)]


@pytest.mark.parametrize("arguments", [(5, 4), (-1, 4), (1, float("nan"))])
def test_wilson_rejects_what_is_no_proportion(arguments):
    with pytest.raises(ValueError, match="got"):
        wilson(*arguments)


def values_of(units, strata, pseudo=None, seed=0, resamples=1000):
    """Means of the first column in resamples."""
    sums = draw_tallies(
        np.asarray(units, float), np.asarray(strata), pseudo or {}, np.random.default_rng(seed), resamples
    )
    return sums[:, 0] / sums[:, 1]


def test_a_bootstrap_never_mixes_strata():
    """All of the variation is between the strata here: there is no interval."""
    units = np.column_stack([np.arange(40) % 2, np.ones(40)])
    assert percentile_interval(values_of(units, np.arange(40) % 2), 0.5) == (None, None)


def test_pseudo_observations_are_drawn_by_their_weight():
    """50 units of 1, a pseudo-observation of weight 50 of 0: the mean of a resample is that of 50 throws of a coin."""
    pseudo = np.array([[0.0, 1.0]]), np.array([50.0])
    low, high = percentile_interval(values_of(np.ones((50, 2)), np.zeros(50), {0: pseudo}, resamples=4000), 0.5)
    assert (low, high) == (pytest.approx(0.5 - 0.139, abs=0.021), pytest.approx(0.5 + 0.139, abs=0.021))
    assert np.ptp(values_of(np.ones((50, 2)), np.zeros(50), {1: pseudo})) == 0


@pytest.mark.parametrize("n_seeds", [(1,), (3, 2)])
def test_pseudo_observations_weigh_two_sources_in_all(n_seeds):
    """Half of one model's are right; the classes that occur share them."""
    sizes = np.zeros((3, 4))
    sizes[[0, 1, 2], [0, 0, 2]] = [4, 2, 1]
    pseudo = pseudo_observations(sizes, np.array([0, 0, 2]), 4, n_seeds)
    assert sorted(pseudo) == [0, 2]
    assert sum(weights.sum() for _, weights in pseudo.values()) == pytest.approx(2)
    for c, (tallies, weights) in pseudo.items():
        assert tallies.shape[1:] == (sum(n_seeds), 4, 4)
        assert weights @ tallies[:, 0, c, c] / weights.sum() == pytest.approx({0: 3, 2: 1}[c] / 2)


@pytest.mark.parametrize("n_seeds", [(1,), (2, 1)])
def test_a_pseudo_observation_of_sources_that_span_classes_spans_them_too(n_seeds):
    """A station that is all of one class would move the shares of the classes, and with them every metric."""
    sizes = np.array([[4.0, 2, 0], [2, 0, 6]])
    ((tallies, weights),) = pseudo_observations(sizes, np.array([0, 0]), 3, n_seeds).values()
    assert weights.sum() == pytest.approx(2)
    np.testing.assert_allclose(tallies.sum(axis=3), np.broadcast_to([3, 1, 3], (len(tallies), sum(n_seeds), 3)))
    share_right = np.trace(tallies, axis1=2, axis2=3) / 7
    assert set(share_right.ravel()) == {0, 1}
    assert weights @ share_right[:, 0] == pytest.approx(1)


def stations(n, *, agree):
    """Labels, predictions and stations of 3 x 4 records a station, half of them right: whole stations, or of each."""
    true, source = np.tile(np.repeat(["a", "b", "c"], 4), n), np.repeat(np.arange(n), 12)
    right = (np.arange(n) % 2 == 0)[source] if agree else np.arange(12 * n) % 2 == 0
    return true, np.where(right, true, np.where(true == "a", "b", "a")), source


def test_intervals_are_wider_where_the_records_of_a_group_agree():
    """Twelve records of a station that are right or wrong together are worth little more than one."""
    width = {}
    for agree in (True, False):
        true, pred, source = stations(10, agree=agree)
        for key, sources in (("records", None), ("groups", source)):
            report = score(true, pred, "abc", sources=sources)
            recall = report["per_class"]["b"]
            ends = recall["recall_ci_high"] - recall["recall_ci_low"], report["mcc_ci_high"] - report["mcc_ci_low"]
            width[agree, key] = np.array(ends)
    assert (width[True, "groups"] > 1.5 * width[True, "records"]).all()
    assert width[False, "groups"][0] == width[False, "records"][0]
    # Of stations that agree the recall's interval is that of ten throws of a coin.
    low, high = wilson(5, 10)
    assert width[True, "groups"][0] == pytest.approx(high - low)


def test_one_group_leaves_nearly_everything_open():
    """A test split of one station: no metric may have an interval that ends at what was observed."""
    report = score(*stations(1, agree=False)[:2], "abc", sources=[0] * 12)
    for metric in ("macro_f1", "accuracy", "balanced_accuracy", "mcc", "cohen_kappa"):
        assert report[f"{metric}_ci_low"] < report[metric] < report[f"{metric}_ci_high"] == 1


@given(st.data())
def test_design_effects_are_one_for_single_records_and_at_most_the_records_of_a_source(data):
    n = data.draw(st.integers(1, 40))
    columns = [data.draw(st.lists(st.integers(0, high), min_size=n, max_size=n)) for high in (2, 9, 1)]
    true, source, right = (np.array(column) for column in columns)
    np.testing.assert_array_equal(design_effects(true, right, np.arange(n), 3), 1)
    effects = design_effects(true, right, number_sources(source), 3)
    for label in set(true):
        of_class = true == label
        assert 1 <= effects[label] <= of_class.sum() / len(set(source[of_class]))


def test_a_resample_without_the_class_does_not_count():
    values = np.append(np.linspace(0, 1, 101), np.full(50, np.nan))
    assert percentile_interval(values, 0.5) == pytest.approx((0.025, 0.975))
    assert percentile_interval(np.full(5, np.nan), 0.5) == (None, None)

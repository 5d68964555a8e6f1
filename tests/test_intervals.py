"""Intervals: known values, and the rules every interval must keep."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from spectro.evaluation import wilson
from spectro.evaluation.intervals import draw_tallies, percentile_interval, pseudo_observations


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


def test_a_bootstrap_has_the_width_that_theory_gives():
    """A resampling that drew the wrong number of units would be too wide or too narrow."""
    units = np.column_stack([np.arange(400) % 2, np.ones(400)])
    low, high = percentile_interval(values_of(units, np.zeros(400), resamples=4000), 0.5)
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 400), rel=0.06)


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
    pseudo = pseudo_observations(np.array([4.0, 2.0, 1.0]), np.array([0, 0, 2]), 4, n_seeds)
    assert sorted(pseudo) == [0, 2]
    assert sum(weights.sum() for _, weights in pseudo.values()) == pytest.approx(2)
    for c, (tallies, weights) in pseudo.items():
        assert tallies.shape[1:] == (sum(n_seeds), 4, 4)
        assert weights @ tallies[:, 0, c, c] / weights.sum() == pytest.approx({0: 3, 2: 1}[c] / 2)

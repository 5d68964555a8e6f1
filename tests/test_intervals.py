"""Intervals: known values, and the rules every interval must keep."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from spectro.evaluation import bootstrap_ci, wilson


@given(st.integers(1, 200), st.data(), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_wilson_agrees_with_scipy_and_holds_the_proportion(n, data, level):
    s = data.draw(st.integers(0, n))
    low, high = wilson(s, n, level)
    expected = binomtest(s, n).proportion_ci(level, method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert 0 <= low <= s / n <= high <= 1


def test_wilson_without_trials_says_nothing():
    assert wilson(0, 0) == pytest.approx((0, 1))


def test_wilson_of_arrays_is_wilson_of_their_elements():
    low, high = wilson([0, 3, 5], [4, 4, 5])
    assert list(zip(low, high, strict=True)) == [wilson(0, 4), wilson(3, 4), wilson(5, 5)]


@pytest.mark.parametrize("arguments", [(5, 4), (-1, 4), (1, float("nan")), (1, 2, 1.0), (1, 2, 95)])
def test_wilson_rejects_what_is_no_proportion(arguments):
    with pytest.raises(ValueError, match="got"):
        wilson(*arguments)


def mean_of_first(sums):
    return sums[:, :1] / sums[:, 1:]


def test_bootstrap_has_the_width_that_theory_gives():
    """A resampling that drew the wrong number of units would be too wide or too narrow."""
    units = np.column_stack([np.arange(400) % 2, np.ones(400)])
    low, high = bootstrap_ci(units, np.zeros(400), mean_of_first, resamples=4000)
    assert (high - low)[0] == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 400), rel=0.06)


def test_bootstrap_never_mixes_strata():
    """All of the variation is between the strata here, so a stratified interval has no width."""
    units = np.column_stack([np.arange(40) % 2, np.ones(40)])
    low, high = bootstrap_ci(units, np.arange(40) % 2, mean_of_first)
    assert low == high == 0.5


def test_made_up_units_are_drawn_by_their_weight():
    """50 units say 1, a made-up one of weight 50 says 0: the mean of a resample is that of 50 throws of a coin."""
    units = np.ones((50, 2))
    low, high = bootstrap_ci(
        units, np.zeros(50), mean_of_first, prior={0: (np.array([[0, 1]]), np.array([50]))}, resamples=4000
    )
    assert (low, high) == (pytest.approx(0.5 - 0.139, abs=0.021), pytest.approx(0.5 + 0.139, abs=0.021))
    low, high = bootstrap_ci(units, np.zeros(50), mean_of_first, prior={1: (np.array([[0, 1]]), np.array([50]))})
    assert low == high == 1


def test_bootstrap_depends_on_the_seed_but_not_on_the_order_of_units():
    rng = np.random.default_rng(0)
    units = np.column_stack([rng.random(30), np.ones(30)])
    strata = np.arange(30) % 3
    order = rng.permutation(30)
    first = bootstrap_ci(units, strata, mean_of_first, seed=1)
    np.testing.assert_allclose(first, bootstrap_ci(units[order], strata[order], mean_of_first, seed=1), rtol=1e-12)
    assert not np.array_equal(first, bootstrap_ci(units, strata, mean_of_first, seed=2))


@pytest.mark.parametrize(
    ("units", "strata", "options"),
    [([], [], {}), ([[1, 1]], [0, 0], {}), ([[1, 1]], [0], {"resamples": 0}), ([[1, 1]], [0], {"level": 1.5})],
)
def test_bootstrap_rejects_what_it_cannot_resample(units, strata, options):
    with pytest.raises(ValueError, match="got"):
        bootstrap_ci(units, strata, mean_of_first, **options)

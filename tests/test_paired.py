"""Tests between models: values worked out by hand, and the rules that every such test must keep."""

from math import comb, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectro.evaluation import score
from spectro.evaluation.paired import corrected_resampled_t, differences, holm, mcnemar, score_over_seeds

LABELS = st.lists(st.sampled_from("abc"), min_size=2, max_size=30)


def models(n=40, seeds=3, classes="abcd", chance=(0.8, 0.5), seed=0):
    """Truth and two models' predictions, (seeds, n)."""
    rng = np.random.default_rng(seed)
    y = rng.choice(list(classes), n)
    a, b = (np.where(rng.random((seeds, n)) < p, y, rng.choice(list(classes), (seeds, n))) for p in chance)
    return y, a, b


# McNemar


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 5), st.integers(0, 5))
def test_mcnemar_is_twice_the_smaller_binomial_tail(only_a, only_b, both, neither):
    a = [True] * only_a + [False] * only_b + [True] * both + [False] * neither
    b = [False] * only_a + [True] * only_b + [True] * both + [False] * neither
    n = only_a + only_b
    tail = sum(comb(n, i) for i in range(min(only_a, only_b) + 1)) / 2**n
    result = mcnemar(a, b)
    assert (result.n_only_a, result.n_only_b) == (only_a, only_b)
    assert result.p_value == pytest.approx(min(1, 2 * tail))
    assert mcnemar(b, a).p_value == result.p_value


# Nadeau and Bengio


def test_corrected_t_is_the_formula_by_hand():
    """Differences 0.1, 0.2, 0.3: s² = 0.01; 90 and 10 records make the factor 1/3 + 1/9; t(0.975, 2) = 4.303."""
    result = corrected_resampled_t([0.1, 0.2, 0.3], 90, 10)
    assert result.mean == pytest.approx(0.2)
    assert result.std_error == pytest.approx(0.1 * sqrt(4 / 9))
    assert result.dof == 2
    # With two degrees of freedom the distribution has a closed form.
    t = 3.0
    assert result.p_value == pytest.approx(1 - t / sqrt(2 + t**2))
    assert (result.ci_low, result.ci_high) == pytest.approx((0.2 - 4.30265 / 15, 0.2 + 4.30265 / 15), abs=1e-5)


def test_differences_without_spread_promise_nothing():
    """0.1 + 0.2 - 0.3 is not 0 on a computer: dividing by such a spread would make any p."""
    assert corrected_resampled_t([0.0, 0.1 + 0.2 - 0.3], 4, 1).p_value == 1
    same = corrected_resampled_t([0.1, 0.1, 0.1], 4, 1)
    assert (same.p_value, same.ci_low, same.ci_high) == (None, None, None)
    one = corrected_resampled_t([0.1], 4, 1)
    assert (one.mean, one.std_error, one.p_value) == (0.1, None, None)


# Holm


def test_holm_by_hand():
    """0.01 * 3; 0.03 * 2; 0.04 * 1 is less than the one before it. A test that was not made is not counted."""
    assert holm([0.04, None, 0.01, 0.03]) == [pytest.approx(0.06), None, pytest.approx(0.03), pytest.approx(0.06)]
    assert holm([0.8, 0.9]) == [1, 1]
    assert holm([]) == []


# Difference and score


def difference(*arguments, metric="macro_f1", **options):
    return differences(*arguments, **options)[metric]


def estimate(*arguments, metric, **options):
    return score_over_seeds(*arguments, **options)[metric]


@settings(max_examples=25)
@given(LABELS, st.data())
def test_one_seed_is_scored_as_by_score(y, data):
    """Two ways to the same number or interval in one report would be one too many."""
    rows = st.lists(st.sampled_from("abc"), min_size=len(y), max_size=len(y))
    a, b = data.draw(rows), data.draw(rows)
    report, other = (score(y, pred, "abc", resamples=50, look_alikes="ab") for pred in (a, b))
    differ, alone = (
        differences(y, a, b, "abc", resamples=2),
        score_over_seeds(y, a, "abc", resamples=50, look_alikes="ab"),
    )
    assert set(report) >= set(alone) >= {"macro_f1", "accuracy", "balanced_accuracy", "mcc"}
    for name, result in alone.items():
        assert (result.value, result.ci_low, result.ci_high) == tuple(
            report[name + e] for e in ("", "_ci_low", "_ci_high")
        )
        assert result.std_seeds is None
        if name in differ:
            assert differ[name].value == pytest.approx(report[name] - other[name])


@settings(max_examples=25)
@given(st.integers(0, 50), st.integers(1, 3), st.integers(1, 3))
def test_a_minus_b_is_the_opposite_of_b_minus_a(seed, seeds_a, seeds_b):
    y, a, b = models(seed=seed, n=15)
    a, b = a[:seeds_a], b[:seeds_b]
    one, other = (difference(y, *pair, "abcd", resamples=50, seed=seed) for pair in ((a, b), (b, a)))
    assert one.value == pytest.approx(-other.value, abs=1e-12)
    assert (one.ci_low, one.ci_high) == pytest.approx((-other.ci_high, -other.ci_low), abs=1e-12)
    assert one.std_error == pytest.approx(other.std_error)
    assert one.ci_low <= one.value <= one.ci_high


def test_identical_models_differ_by_nothing():
    """On 4 records they may differ on others, on 4,000 they hardly can; with one class nothing else is possible."""
    few, many = (difference(["a", "b"] * n, ["a", "b"] * n, ["a", "b"] * n, "ab", resamples=500) for n in (2, 2000))
    assert few.value == many.value == 0
    assert few.ci_low < 0 < few.ci_high
    assert few.smallest == pytest.approx(2.8016 * few.std_error, rel=1e-4)  # 80 % of such test sets
    assert few.smallest > 0.2 > 0.01 > many.smallest
    result = difference(["a"] * 3, ["a"] * 3, ["a"] * 3, ["a"])
    assert (result.value, result.ci_low, result.ci_high, result.std_error, result.smallest) == (0, None, None, 0, None)


def test_neither_the_order_of_records_nor_the_names_of_sources_matter():
    y, a, b = models()
    sources = np.array([f"{label}{i // 8}" for i, label in enumerate(y)])
    order = np.random.default_rng(5).permutation(40)
    plain = difference(y, a, b, "abcd", resamples=200)
    assert difference(y[order], a[:, order], b[:, order], "abcd", resamples=200) == plain
    owned = difference(y, a, b, "abcd", resamples=200, sources=sources)
    shuffled = difference(y[order], a[:, order], b[:, order], "abcd", resamples=200, sources=sources[order])
    assert shuffled == owned
    assert owned != plain


def test_the_spread_of_records_is_that_of_theory():
    """Accuracy of one model on many records: sqrt(p (1 - p) / n). Fully paired models differ far less than that."""
    rng = np.random.default_rng(0)
    y = np.repeat(["a", "b"], 200)
    right = rng.random(400) < 0.7
    other = np.where(y == "a", "b", "a")
    a = np.where(right, y, other)
    b = np.where(right & (np.arange(400) > 4), y, other)
    low, high = (getattr(estimate(y, a, "ab", metric="accuracy"), end) for end in ("ci_low", "ci_high"))
    assert (high - low) / 3.92 == pytest.approx(sqrt(0.7 * 0.3 / 400), rel=0.1)
    assert difference(y, a, b, "ab", metric="accuracy").std_error < sqrt(0.7 * 0.3 / 400) / 3


def test_the_spread_of_seeds_is_that_of_theory():
    """Each seed is right on all records or on none of a class: nothing but seeds varies, by s / sqrt(seeds)."""
    y = np.repeat(["a", "b"], 500)
    rows = [np.where((np.arange(1000) < 500) | (s % 2 == 0), y, "a") for s in range(4)]
    values = [1.0, 0.5, 1.0, 0.5]
    result = estimate(y, rows, "ab", metric="accuracy")
    assert result.values == pytest.approx(values)
    assert result.std_seeds == pytest.approx(np.std(values, ddof=1))
    twice = difference(y, rows, [y] * 4, "ab", metric="accuracy")
    assert twice.std_error == pytest.approx(np.std(values, ddof=1) / 2, rel=0.1)
    # Seeds as many on both sides are drawn together: what they do to both models leaves the difference alone.
    together = difference(y, rows, rows, "ab", metric="accuracy")
    apart = difference(y, rows, rows[:3], "ab", metric="accuracy")
    assert together.std_error < 0.01 < 0.1 < apart.std_error

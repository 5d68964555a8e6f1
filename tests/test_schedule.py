"""The learning rate at its corners, and which records an epoch uses."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectro.classifiers.networks.schedule import batches_of, epoch_rows, lr_at


def test_warm_up_starts_above_zero_and_ends_at_the_peak():
    """A first step of 0 would be a step without learning."""
    rates = [lr_at(step, peak=1.0, steps=10, warmup=4) for step in range(10)]
    np.testing.assert_allclose(rates[:4], [0.25, 0.5, 0.75, 1.0])
    assert rates[4] == 1.0


def test_the_cosine_falls_to_nearly_nothing():
    rates = [lr_at(step, peak=1.0, steps=104, warmup=4) for step in range(104)]
    assert all(a > b for a, b in itertools.pairwise(rates[4:]))
    assert rates[54] == pytest.approx(0.5)
    assert 0 < rates[-1] < 1e-3


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 1), (5, 5), (5, 0)])
def test_short_trainings(steps, warmup):
    rates = [lr_at(step, peak=2.0, steps=steps, warmup=warmup) for step in range(steps)]
    assert all(0 < rate <= 2.0 for rate in rates)
    assert max(rates) == 2.0


def test_every_record_once():
    rows = epoch_rows(np.array([0, 0, 1, 2]), oversample=False, rng=np.random.default_rng(0))
    assert sorted(rows) == [0, 1, 2, 3]


def test_oversampling_makes_classes_equal():
    labels = np.array([0] * 7 + [1] * 3 + [2])
    rows = epoch_rows(labels, oversample=True, rng=np.random.default_rng(0))
    assert list(np.bincount(labels[rows])) == [7, 7, 7]
    counts = np.bincount(rows, minlength=11)
    assert set(counts[7:10]) <= {2, 3}
    assert counts[10] == 7


@given(st.integers(1, 200), st.integers(1, 40))
def test_batches_hold_every_row_once_and_are_even(n, size):
    """A last batch of one record would be the death of a batch norm."""
    batches = batches_of(np.arange(n), size)
    assert sorted(np.concatenate(batches)) == list(range(n))
    sizes = {len(batch) for batch in batches}
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1

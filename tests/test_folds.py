"""Folds: no source on two sides, and as even as can be."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectro.data.splits import folds, inner_val, uneven


@st.composite
def records(draw, *, single=False):
    """Labels and sources of 2 to 60 records, and a number of folds that they allow."""
    n = draw(st.integers(2, 60))
    labels = draw(st.lists(st.sampled_from("abcd"), min_size=n, max_size=n))
    sources = list(range(n)) if single else draw(st.lists(st.integers(0, n), min_size=n, max_size=n))
    if len(set(sources)) < 2:
        sources[0] = n + 1
    k = draw(st.integers(2, min(10, len(set(sources)))))
    return np.array(labels, dtype=object), np.array(sources), k


@given(records(), st.integers(0, 3))
def test_a_source_is_in_one_fold_and_no_fold_is_empty(given_records, seed):
    labels, sources, k = given_records
    fold = folds(labels, sources, k, seed)
    assert fold.shape == labels.shape
    assert set(fold) == set(range(k))
    for source in set(sources):
        assert len(set(fold[sources == source])) == 1


@given(records(single=True), st.integers(0, 3))
def test_single_records_are_dealt_evenly(given_records, seed):
    """In each class and altogether."""
    labels, sources, k = given_records
    fold = folds(labels, sources, k, seed)
    for in_class in [labels == label for label in set(labels)] + [np.ones(len(labels), bool)]:
        counts = np.bincount(fold[in_class], minlength=k)
        assert counts.max() - counts.min() <= 1


@given(records(), st.integers(0, 3), st.randoms())
def test_the_order_of_the_records_does_not_matter(given_records, seed, chance):
    labels, sources, k = given_records
    order = list(range(len(labels)))
    chance.shuffle(order)
    np.testing.assert_array_equal(folds(labels[order], sources[order], k, seed), folds(labels, sources, k, seed)[order])


def test_another_seed_makes_other_folds():
    labels, sources = np.repeat(["a", "b"], 20).astype(object), np.arange(40)
    np.testing.assert_array_equal(folds(labels, sources, 5, 3), folds(labels, sources, 5, 3))
    assert (folds(labels, sources, 5, 3) != folds(labels, sources, 5, 4)).any()
    assert (folds(labels, sources, 5, [0, 1]) != folds(labels, sources, 5, [1, 0])).any()


def test_large_sources_are_spread():
    """Ten records of one source must not meet the other large ones."""
    sources = np.repeat(np.arange(9), [6, 6, 6, 1, 1, 1, 1, 1, 1])
    fold = folds(np.full(len(sources), "a", dtype=object), sources, 3)
    assert sorted(Counter(fold).values()) == [8, 8, 8]


@pytest.mark.parametrize("k", [1, 4])
def test_more_folds_than_sources(k):
    with pytest.raises(ValueError, match=f"got {k} folds for 3 sources"):
        folds(["a", "a", "b", "b"], [1, 2, 3, 3], k)


def test_one_source_for_each_label():
    with pytest.raises(ValueError, match="got 2 labels and 1 sources"):
        folds(["a", "b"], [1], 2)


def test_what_uneven_classes_are_told():
    labels, sources = np.array(list("aaaaabbbc"), dtype=object), np.arange(9)
    assert uneven(labels, sources, folds(labels, sources, 5), 5) == [
        "cross-validation: class 'b' has 3 sources for 5 folds: in 2 folds none of it is evaluated",
        "cross-validation: class 'c' has 1 source for 5 folds: in 4 folds none of it is evaluated, and where it is "
        "evaluated, none of it is trained on",
    ]


@given(records(), st.integers(2, 6))
def test_inner_val_leaves_every_class_something_to_train_on(given_records, share):
    labels, sources, _ = given_records
    val = inner_val(labels, sources, share)
    assert set(labels[~val]) == set(labels)
    assert not set(sources[val]) & set(sources[~val])


def test_inner_val_is_about_its_share():
    labels = np.repeat(["a", "b", "c"], [50, 10, 1]).astype(object)
    val = inner_val(labels, np.arange(61), 5)
    assert Counter(labels[val]) == {"a": 10, "b": 2}
    assert not inner_val(labels[:1], np.arange(1), 5).any()

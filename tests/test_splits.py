"""Splits and folds without leaks: whole sources, every class trainable, even, the same for the same seed."""

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectro.data.manifest import SPLITS, Record
from spectro.data.splits import folds, groups_of, inner_val, split_records, uneven, with_training


def records_of(counts: dict[str, int], copies: int = 0) -> list[Record]:
    """Folders with so many sources of their own, and each source with so many copies."""
    return [
        Record(Path(folder, f"{folder}{i}_{copy}.png"), "", folder, f"{folder}{i}", f"{folder}{i}{copy}")
        for folder, n in counts.items()
        for i in range(n)
        for copy in range(1 + copies)
    ]


@st.composite
def tangled(draw) -> list[Record]:
    """Records whose sources and bytes span folders at will."""
    drawn = draw(
        st.lists(st.tuples(st.sampled_from("abcdefg"), st.integers(0, 30), st.integers(0, 60)), min_size=1, max_size=50)
    )
    return [
        Record(Path(folder, f"{i}.png"), "", folder, f"s{source}", f"d{digest}" if digest < 40 else "")
        for i, (folder, source, digest) in enumerate(drawn)
    ]


def by_folder(records: list[Record]) -> dict[str, Counter]:
    counts: dict[str, Counter] = defaultdict(Counter)
    for record in records:
        counts[record.folder][record.split] += 1
    return counts


SHARES = st.tuples(st.floats(0.05, 0.45), st.floats(0.05, 0.45))
SEEDS = st.integers(0, 2**32)


@given(tangled(), SHARES, SEEDS)
@settings(max_examples=200)
def test_no_source_and_no_bytes_stand_on_two_sides_and_every_folder_is_trained_on(records, shares, seed):
    split = split_records(records, val=shares[0], test=shares[1], seed=seed)
    assert [(r.path, r.folder) for r in split] == [(r.path, r.folder) for r in records]  # nothing lost, order kept
    assert all(r.split in SPLITS for r in split)
    for key in ("source", "digest"):
        sides = defaultdict(set)
        for record in split:
            sides[getattr(record, key)].add(record.split)
        assert all(len(splits) == 1 for name, splits in sides.items() if name)
    assert all(counts["train"] for counts in by_folder(split).values())


@given(tangled(), SHARES, SEEDS, st.randoms(use_true_random=False))
def test_the_cut_does_not_depend_on_the_order(records, shares, seed, shuffler):
    cut = {r.path: r.split for r in split_records(records, val=shares[0], test=shares[1], seed=seed)}
    shuffled = shuffler.sample(records, len(records))
    assert {r.path: r.split for r in split_records(shuffled, val=shares[0], test=shares[1], seed=seed)} == cut


def test_the_cut_depends_on_the_seed():
    plain = records_of({"a": 20})
    assert len({tuple(r.split for r in split_records(plain, val=0.2, test=0.2, seed=s)) for s in range(5)}) == 5


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 40), min_size=1),
    st.integers(0, 3),
    SHARES,
    SEEDS,
)
def test_shares_hold_in_each_folder_of_its_own_sources(counts, copies, shares, seed):
    split = split_records(records_of(counts, copies), val=shares[0], test=shares[1], seed=seed)
    for folder, of_split in by_folder(split).items():
        n = counts[folder]
        sources = {name: of_split[name] / (1 + copies) for name in SPLITS}
        if n >= 3:
            assert min(sources.values()) >= 1
        for name, share in zip(("val", "test"), shares, strict=True):
            assert abs(sources[name] - n * share) <= 1


@pytest.mark.parametrize(
    ("n", "expected"), [(1, (1, 0, 0)), (2, (1, 0, 1)), (3, (1, 1, 1)), (5, (3, 1, 1)), (10, (6, 2, 2))]
)
def test_tiny_classes_give_to_train_then_test_then_val(n, expected):
    for seed in range(10):
        counts = by_folder(split_records(records_of({"a": n, "big": 30}, 1), val=0.2, test=0.2, seed=seed))["a"]
        assert tuple(counts[name] // 2 for name in SPLITS) == expected


def test_groups_chain_through_a_third_record():
    chain = [
        Record(Path("1"), "", "a", "s", "x"),
        Record(Path("2"), "", "b", "t", "x"),
        Record(Path("3"), "", "c", "t", "y"),
        Record(Path("4"), "", "c", "u", ""),
        Record(Path("5"), "", "c", "v", ""),  # files that were never read have no bytes in common
    ]
    assert sorted(map(sorted, groups_of(chain))) == [[0, 1, 2], [3], [4]]
    assert groups_of([]) == []


def test_dropping_the_only_training_record_moves_another_group_val_first():
    split = split_records(records_of({"a": 3, "b": 5}, 1), val=0.2, test=0.2, seed=0)
    rest = [r for r in split if (r.folder, r.split) != ("a", "train")]
    moved = with_training(rest)
    assert {(b.split, a.split) for a, b in zip(moved, rest, strict=True) if a.split != b.split} == {("val", "train")}
    assert {r.split for r in moved if r.folder == "a"} == {"train", "test"}
    assert with_training(moved) == moved


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

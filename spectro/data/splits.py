"""Splits for a data set that comes without, and folds for cross-validation: stratified, by source, seeded.

``labels`` are the class of each record, ``sources`` what must stay together, both ``(n,)``.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from spectro.data.manifest import SPLITS, Record

Labels = Sequence[str] | np.ndarray
Sources = Sequence[Hashable] | np.ndarray
Seed = int | Sequence[int]


def group_numbers(records: Sequence[Record]) -> np.ndarray:
    """Numbers ``(n,)`` of what must stay together: one source, or the same bytes, directly or through a third."""
    nodes: dict[tuple[str, str], int] = {}
    edges = [
        (i, nodes.setdefault(key, len(records) + len(nodes)))
        for i, record in enumerate(records)
        for key in (("source", record.source), ("digest", record.digest))
        if key[1]
    ]
    size = len(records) + len(nodes)
    graph = coo_array((np.ones(len(edges)), tuple(np.array(edges).reshape(-1, 2).T)), shape=(size, size))
    return connected_components(graph, directed=False)[1][: len(records)].astype(int)


def groups_of(records: Sequence[Record]) -> list[list[int]]:
    """The indices of each group of `group_numbers`."""
    groups: dict[int, list[int]] = defaultdict(list)
    for i, number in enumerate(group_numbers(records)):
        groups[number].append(i)
    return list(groups.values())


def split_records(records: Sequence[Record], *, val: float, test: float, seed: int) -> list[Record]:
    """Puts every source into one split, each folder's share as near as possible to what is asked.

    Folders with few sources are dealt out first, and a folder with one or two sources gives to train before test and
    to test before val: a class that cannot be trained on is worth less than one that cannot be checked.

    Args:
        records: Records of any order; the result does not depend on it.
        val: Share of a folder's sources for val, between 0 and 1.
        test: Share for test; ``val + test`` is below 1.
        seed: Seed of the shuffle.

    Returns:
        The records, in the order given, with ``split`` set.
    """
    groups = sorted(groups_of(records), key=lambda g: min((records[i].folder, records[i].source) for i in g))
    np.random.default_rng(seed).shuffle(groups)
    folders = [{records[i].folder for i in group} for group in groups]
    n_groups, rarest = _rarest(folders)
    open_places = {folder: _split_sizes(n, val, test) for folder, n in n_groups.items()}
    split_of = [""] * len(records)
    for g in sorted(range(len(groups)), key=lambda g: (n_groups[rarest[g]], rarest[g])):
        places = open_places[rarest[g]]
        split = max(SPLITS, key=lambda s: (places[s] > 0, sum(open_places[f][s] for f in folders[g])))
        for folder in folders[g]:
            open_places[folder][split] -= 1
        for i in groups[g]:
            split_of[i] = split
    return with_training([replace(record, split=split) for record, split in zip(records, split_of, strict=True)])


def _split_sizes(n: int, val: float, test: float) -> dict[str, int]:
    """How many of ``n`` groups go where: at least one to each split if there are three, train first if not."""
    if n < 3:
        return {"train": 1, "val": 0, "test": n - 1}
    n_val, n_test = max(1, round(n * val)), max(1, round(n * test))
    while n_val + n_test > n - 1:
        n_val, n_test = (n_val - 1, n_test) if n_val >= n_test else (n_val, n_test - 1)
    return {"train": n - n_val - n_test, "val": n_val, "test": n_test}


def _rarest(classes_of: Sequence[Collection[str]]) -> tuple[Counter[str], list[str]]:
    """How many groups have each class, and for each group its rarest class.

    A group that spans classes is placed with its rarest one, where a wrong place costs most.
    """
    n_groups = Counter(label for classes in classes_of for label in classes)
    return n_groups, [min(classes, key=lambda label: (n_groups[label], label)) for classes in classes_of]


def with_training(records: Sequence[Record]) -> list[Record]:
    """Gives every folder a training record: where sources span folders, or bad files went, one may be without.

    Args:
        records: Records with ``split`` set, no group in two splits.

    Returns:
        The records, in the order given; for a folder without training records, one group of it moved to train: the one
        that spans the fewest folders, from val before test.
    """
    split_of = [record.split for record in records]
    groups_in: dict[str, list[list[int]]] = defaultdict(list)
    for group in groups_of(records):
        for folder in {records[i].folder for i in group}:
            groups_in[folder].append(group)

    def harm(group: list[int]) -> tuple[int, bool, tuple[str, str]]:
        names = [(records[i].folder, records[i].source) for i in group]
        return len({folder for folder, _ in names}), split_of[group[0]] == "test", min(names)

    for _, groups in sorted(groups_in.items()):
        if all(split_of[group[0]] != "train" for group in groups):
            for i in min(groups, key=harm):
                split_of[i] = "train"
    return [replace(record, split=split) for record, split in zip(records, split_of, strict=True)]


def folds(labels: Labels, sources: Sources, k: int, seed: Seed = 0) -> np.ndarray:
    """Deals sources to folds, class by class, the rarest first.

    A source goes to the fold that has fewest records of its class, of equal ones to the one with fewest records. Within
    a class the order is drawn by ``seed``, sources with more records first. A source with records of several classes
    counts as one of the rarest of them. Where every source has one record, folds differ by one record at most, in each
    class and altogether.

    Returns:
        The fold of each record, ``(n,)``, integers from 0 to ``k - 1``; no fold is empty, as long as there are ``k``
        sources. It does not depend on the order of the records.
    """
    records_of: dict[Any, list[int]] = defaultdict(list)
    for i, source in enumerate(sources):
        records_of[source].append(i)
    order = sorted(records_of)
    classes_of = {source: Counter(labels[i] for i in records_of[source]) for source in order}
    n_sources, rarest = _rarest(list(classes_of.values()))
    rarest_of = dict(zip(order, rarest, strict=True))
    np.random.default_rng(seed).shuffle(order)
    order.sort(key=lambda s: (n_sources[rarest_of[s]], rarest_of[s], -len(records_of[s])))
    size, of_class = [0] * k, {label: [0] * k for label in n_sources}
    out = np.empty(len(labels), dtype=int)
    for source in order:
        dealt = of_class[rarest_of[source]]
        fold = min(range(k), key=lambda f: (dealt[f], size[f]))
        for label, n in classes_of[source].items():
            of_class[label][fold] += n
        size[fold] += len(records_of[source])
        out[records_of[source]] = fold
    return out


def uneven(labels: np.ndarray, sources: np.ndarray, fold: np.ndarray, k: int) -> list[str]:
    """One warning for each class that has fewer sources than there are folds."""
    lines = []
    for label in sorted(set(labels)):
        n, n_folds = (len(set(array[labels == label])) for array in (sources, fold))
        if n_folds < k:
            line = f"cross-validation: class {label!r} has {n} source{'s' * (n > 1)} for {k} folds: "
            line += f"in {k - n_folds} fold{'s' * (k - n_folds > 1)} none of it is evaluated"
            lines.append(line + ", and where it is evaluated, none of it is trained on" * (n_folds == 1))
    return lines


def inner_val(labels: np.ndarray, sources: np.ndarray, share: int, seed: Seed = 0) -> np.ndarray:
    """Which records of a training set become a validation set, for families that choose on val.

    Returns:
        Mask ``(n,)``: of ``share`` folds the one with most classes, without sources that would leave a class untrained;
        none where there are fewer than two sources.
    """
    k = min(share, len(set(sources)))
    if k < 2:
        return np.zeros(len(labels), dtype=bool)
    fold = folds(labels, sources, k, seed)
    chosen = fold == max(range(k), key=lambda f: len(set(labels[fold == f])))
    for label in sorted(set(labels)):
        if chosen[labels == label].all():
            chosen &= ~np.isin(sources, sources[labels == label])
    return chosen


def part_of(labels: Labels, sources: Sources, share: float, seed: Seed = 0) -> np.ndarray:
    """Which records are left, ``(n,)``, if a share of them had been labelled: of each class that share of its sources.

    The share is above 0 and at most 1. Of one seed, a smaller one lies inside a larger one. A class keeps one source at
    least: scores of different shares are about the same classes. A source with records of several classes counts as one
    of the rarest of them.
    """
    rng, chosen = np.random.default_rng(seed), set()
    for members in _by_class(labels, sources):
        chosen |= {members[i] for i in rng.permutation(len(members))[: max(1, round(share * len(members)))]}
    return np.array([source in chosen for source in sources], dtype=bool)


def bootstrap(labels: Labels, sources: Sources, seed: Seed) -> np.ndarray:
    """Rows of as many sources as there are, drawn with replacement: a source as a whole, and within its class.

    A source with records of several classes counts as one of the rarest of them.

    Returns:
        Row numbers, sorted; all rows where a class would be missing.
    """
    rows_of: dict[Any, list[int]] = defaultdict(list)
    for row, source in enumerate(sources):
        rows_of[source].append(row)
    rng, rows = np.random.default_rng(seed), list[int]()
    for members in _by_class(labels, sources):
        rows += [row for i in rng.integers(len(members), size=len(members)) for row in rows_of[members[i]]]
    # Sources that span classes may leave one out.
    return np.sort(rows) if {labels[row] for row in rows} == set(labels) else np.arange(len(labels))


def _by_class(labels: Labels, sources: Sources) -> list[list[Any]]:
    """The sources of each class, sorted both; a source with several classes is with the rarest of them."""
    classes_of: dict[Any, set[str]] = defaultdict(set)
    for label, source in zip(labels, sources, strict=True):
        classes_of[source].add(label)
    order = sorted(classes_of)
    members: dict[str, list[Any]] = defaultdict(list)
    for source, label in zip(order, _rarest([classes_of[source] for source in order])[1], strict=True):
        members[label].append(source)
    return [members[label] for label in sorted(members)]

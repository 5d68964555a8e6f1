"""Train, val and test for a data set that comes without: stratified, by source, seeded."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from spectro.data.manifest import SPLITS, Record


def groups_of(records: Sequence[Record]) -> list[list[int]]:
    """Indices of records that must stay together: one source, or the same bytes, directly or through a third."""
    parent = list(range(len(records)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first_of: dict[tuple[str, str], int] = {}
    for i, record in enumerate(records):
        for key in (("source", record.source), ("digest", record.digest)):
            if key[1]:
                parent[root(i)] = root(first_of.setdefault(key, i))
    groups: dict[int, list[int]] = defaultdict(list)
    for i in range(len(records)):
        groups[root(i)].append(i)
    return list(groups.values())


def _wanted(n: int, val: float, test: float) -> dict[str, int]:
    """How many of ``n`` groups go where: at least one to each split if there are three, train first if not."""
    if n < 3:
        return {"train": 1, "val": 0, "test": n - 1}
    n_val, n_test = max(1, round(n * val)), max(1, round(n * test))
    while n_val + n_test > n - 1:
        if n_val >= n_test:
            n_val -= 1
        else:
            n_test -= 1
    return {"train": n - n_val - n_test, "val": n_val, "test": n_test}


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
    folders = [Counter(records[i].folder for i in group) for group in groups]
    total: Counter[str] = Counter()
    for counts in folders:
        total.update(counts.keys())
    open_places = {folder: _wanted(n, val, test) for folder, n in total.items()}
    # A group that spans folders is placed with its rarest one, where a wrong place costs most.
    rarest = [min(counts, key=lambda f: (total[f], f)) for counts in folders]
    split_of = [""] * len(records)
    for g in sorted(range(len(groups)), key=lambda g: (total[rarest[g]], rarest[g])):
        places = open_places[rarest[g]]
        split = max(SPLITS, key=lambda s: (places[s] > 0, sum(open_places[f][s] for f in folders[g])))
        for folder in folders[g]:
            open_places[folder][split] -= 1
        for i in groups[g]:
            split_of[i] = split
    return with_training([replace(record, split=split) for record, split in zip(records, split_of, strict=True)])


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

    for folder in sorted(groups_in):
        if all(split_of[group[0]] != "train" for group in groups_in[folder]):
            for i in min(groups_in[folder], key=harm):
                split_of[i] = "train"
    return [replace(record, split=split) for record, split in zip(records, split_of, strict=True)]

"""Folds for cross-validation: stratified, by source, seeded, as even as the sources allow."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np


def folds(
    labels: Sequence[str] | np.ndarray,
    sources: Sequence[Hashable] | np.ndarray,
    k: int,
    seed: int | Sequence[int] = 0,
) -> np.ndarray:
    """Deals sources to folds, class by class, the rarest first.

    A source goes to the fold that has fewest records of its class, of equal ones to the one with fewest records. Within
    a class the order is drawn by ``seed``, sources with more records first. A source with records of several classes
    counts as one of the rarest of them. Where every source has one record, folds differ by one record at most, in each
    class and altogether.

    Args:
        labels: The class of each record, ``(n,)``.
        sources: What must stay together, ``(n,)``. The result does not depend on the order of the records as long as
            sources can be sorted.
        k: Number of folds, 2 or more.
        seed: Seed of the order.

    Returns:
        The fold of each record, ``(n,)``, integers from 0; no fold is empty.

    Raises:
        ValueError: Fewer sources than folds, fewer than two folds, or not one source for each label.
    """
    if len(labels) != len(sources):
        raise ValueError(f"got {len(labels)} labels and {len(sources)} sources; allowed: as many")
    records_of: dict[Any, list[int]] = defaultdict(list)
    for i, source in enumerate(sources):
        records_of[source].append(i)
    if not 2 <= k <= len(records_of):
        raise ValueError(f"got {k} folds for {len(records_of)} sources; allowed: 2 to as many as there are sources")
    classes_of = {source: Counter(labels[i] for i in own) for source, own in records_of.items()}
    n_sources = Counter(label for counts in classes_of.values() for label in counts)
    # A source that spans classes is dealt with its rarest one, where a wrong place costs most.
    rarest = {source: min(counts, key=lambda c: (n_sources[c], c)) for source, counts in classes_of.items()}
    order = sorted(records_of)
    np.random.default_rng(seed).shuffle(order)
    order.sort(key=lambda s: (n_sources[rarest[s]], rarest[s], -len(records_of[s])))
    size, of_class = [0] * k, {label: [0] * k for label in n_sources}
    out = np.empty(len(labels), dtype=int)
    for source in order:
        dealt = of_class[rarest[source]]
        fold = min(range(k), key=lambda f: (dealt[f], size[f]))
        for label, n in classes_of[source].items():
            of_class[label][fold] += n
        size[fold] += len(records_of[source])
        out[records_of[source]] = fold
    return out


def uneven(labels: np.ndarray, sources: np.ndarray, fold: np.ndarray, k: int) -> list[str]:
    """One line for each class that has fewer sources than there are folds: what its score cannot say.

    Args:
        labels: The class of each record, ``(n,)``.
        sources: Their sources, ``(n,)``.
        fold: Their folds, ``(n,)``.
        k: Number of folds.
    """
    lines = []
    for label in sorted(set(labels)):
        own = labels == label
        n, without = len(set(sources[own])), k - len(set(fold[own]))
        if not without:
            continue
        told = f"cross-validation: class {label!r} has {n} source{'s' * (n > 1)} for {k} folds: "
        told += f"in {without} fold{'s' * (without > 1)} none of it is evaluated"
        if k - without == 1:
            told += ", and where it is evaluated, none of it is trained on"
        lines.append(told)
    return lines


def inner_val(labels: np.ndarray, sources: np.ndarray, share: int, seed: int | Sequence[int] = 0) -> np.ndarray:
    """Which records of a training set become its own val, for families that choose on val.

    Args:
        labels: The class of each record, ``(n,)``.
        sources: Their sources, ``(n,)``.
        share: About one of so many sources is taken, 2 or more.
        seed: Seed of the choice.

    Returns:
        Mask ``(n,)``: of `folds` the one with most classes, without sources that would leave a class untrained; none
        where there are fewer than two sources.
    """
    k = min(share, len(set(sources)))
    if k < 2:
        return np.zeros(len(labels), dtype=bool)
    fold = folds(labels, sources, k, seed)
    chosen = fold == max(range(k), key=lambda f: len(set(labels[fold == f])))
    for label in sorted(set(labels)):
        if not (~chosen & (labels == label)).any():
            chosen &= ~np.isin(sources, sources[labels == label])
    return chosen


def part_of(labels: np.ndarray, sources: np.ndarray, share: float, seed: int | Sequence[int] = 0) -> np.ndarray:
    """Which records are left if only a share of them had been labelled: of each class that share of its sources.

    Of one seed, a smaller share lies inside a larger one. A class keeps one source at least: scores of different shares
    are about the same classes. A source with records of several classes counts as one of the rarest of them.

    Args:
        labels: The class of each record, ``(n,)``.
        sources: Their sources, ``(n,)``; what must stay together.
        share: Above 0, at most 1.
        seed: Seed of the choice.

    Returns:
        Mask ``(n,)``.

    Raises:
        ValueError: ``share`` is out of its range.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share: got {share}; allowed: above 0, at most 1")
    classes_of: dict[Any, set[str]] = defaultdict(set)
    for label, source in zip(labels, sources, strict=True):
        classes_of[source].add(label)
    n_sources = Counter(label for own in classes_of.values() for label in own)
    of_class: dict[str, list[Any]] = defaultdict(list)
    for source in sorted(classes_of):
        of_class[min(classes_of[source], key=lambda c: (n_sources[c], c))].append(source)
    rng, kept = np.random.default_rng(seed), set()
    for label in sorted(of_class):
        order = rng.permutation(len(of_class[label]))
        kept |= {of_class[label][i] for i in order[: max(1, round(share * len(order)))]}
    return np.array([source in kept for source in sources], dtype=bool)

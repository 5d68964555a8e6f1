"""Learning rate and order of records: pure functions of the seed and of how far training is."""

import math

import numpy as np


def lr_at(step: int, *, peak: float, steps: int, warmup: int) -> float:
    """The learning rate of a step: linear warm-up, then a cosine down to 0 (Loshchilov and Hutter, 2017, "SGDR").

    The first step of a warm-up over w steps has ``peak / w``, not 0, the last one ``peak``. The cosine would reach 0 in
    the step after the last one.

    Args:
        step: From 0 to ``steps`` - 1.
        peak: The largest learning rate.
        steps: How many steps there are.
        warmup: How many of them are warm-up, from 0 to ``steps``.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def epoch_rows(labels: np.ndarray, *, oversample: bool, rng: np.random.Generator) -> np.ndarray:
    """The records of an epoch, shuffled.

    Args:
        labels: Column numbers ``(n,)``.
        oversample: Whether every class is repeated until it has as many records as the largest; the part of it that
            does not go in evenly is drawn anew each time.
        rng: Where chance comes from.

    Returns:
        Row numbers: each of ``n`` once, or more often with ``oversample``.
    """
    rows = np.arange(len(labels))
    if oversample:
        largest = np.bincount(labels).max()
        of_class = [rng.permutation(rows[labels == label]) for label in np.unique(labels)]
        rows = np.concatenate([np.resize(own, largest) for own in of_class])
    return rng.permutation(rows)


def batches_of(rows: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """An epoch cut into as few steps as can be, of sizes that differ by one at most: no record is left alone."""
    return np.array_split(rows, math.ceil(len(rows) / batch_size))

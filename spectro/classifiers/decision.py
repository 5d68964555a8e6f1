"""From probabilities to labels: the largest one, or within a pair of look-alikes a threshold that was chosen on val."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# With fewer val records of either class than this a threshold says more about chance than about the model.
MIN_RECORDS = 5


@dataclass(frozen=True)
class Threshold:
    """Where a pair of look-alike classes is divided.

    Attributes:
        first: A label.
        second: The other label.
        value: A record that falls to the pair is called ``second`` where p(second) / (p(first) + p(second)) is above
            it. 0.5 is the label of the largest probability, to the last bit.
    """

    first: str
    second: str
    value: float = 0.5


def decide(classes: np.ndarray, probabilities: np.ndarray, thresholds: Sequence[Threshold] = ()) -> np.ndarray:
    """Labels, ``(n,)``.

    A record *falls to a pair* if the label of its largest probability is one of the two. Then, and only then, the
    pair's threshold says which of the two it is: it takes no record from another class and gives none away.

    Args:
        classes: Labels, ``(k,)``.
        probabilities: ``(n, k)``, columns as ``classes``.
        thresholds: Of pairs without a common label; a pair that is not among the classes is passed over.
    """
    largest = probabilities.argmax(axis=1)
    chosen = largest.copy()
    for threshold in thresholds:
        pair = _columns(classes, threshold.first, threshold.second)
        if pair is None or threshold.value == 0.5:
            continue
        fallen = np.flatnonzero(np.isin(largest, pair))
        above = _share(probabilities[fallen][:, pair]) > threshold.value
        chosen[fallen] = np.where(above, pair[1], pair[0])
    return classes[chosen]


def choose_threshold(
    classes: np.ndarray,
    probabilities: np.ndarray,
    labels: np.ndarray,
    pair: Sequence[str],
    *,
    min_records: int = MIN_RECORDS,
) -> Threshold | None:
    """The threshold of a pair under which val records come out best.

    Best is the largest mean F1 of the two classes over all records, those of other classes that fall to the pair
    included; of equal thresholds it is the one nearest to 0.5. It is 0.5, or in the middle between two records: one
    that calls no val record the first, or none the second, has given the pair up.

    Args:
        classes: Labels, ``(k,)``.
        probabilities: What the model says of val, ``(n, k)``.
        labels: The truth of val, ``(n,)``.
        pair: Two of the labels.
        min_records: Records that each of the two must have.

    Returns:
        The threshold, or None where there are too few records to choose one.
    """
    first, second = sorted(pair)
    columns = _columns(classes, first, second)
    if columns is None or min((labels == first).sum(), (labels == second).sum()) < min_records:
        return None
    fallen = np.isin(probabilities.argmax(axis=1), columns)
    shares = np.unique(_share(probabilities[fallen][:, columns]))
    middles = shares[:-1] + (shares[1:] - shares[:-1]) / 2
    # Two shares may be neighbours among the floating-point numbers; then nothing lies between them.
    middles = np.where(middles < shares[1:], middles, shares[:-1])
    candidates = sorted({0.5, *middles.tolist()}, key=lambda value: (abs(value - 0.5), value))
    found = [Threshold(first, second, value) for value in candidates]
    scores = [_pair_f1(labels, decide(classes, probabilities, [threshold]), (first, second)) for threshold in found]
    return found[int(np.argmax(scores))]


def choose_thresholds(
    classes: np.ndarray,
    probabilities: np.ndarray,
    labels: np.ndarray,
    look_alikes: Mapping[str, Sequence[str]],
    *,
    min_records: int = MIN_RECORDS,
) -> tuple[list[Threshold], list[str]]:
    """A threshold for each pair of look-alikes, and a line for each group that keeps the largest probability.

    Args:
        classes: Labels, ``(k,)``.
        probabilities: What the model says of val, ``(n, k)``.
        labels: The truth of val, ``(n,)``.
        look_alikes: Merged label -> the classes that look alike.
        min_records: Records that each class of a pair must have.
    """
    chosen, left = [], []
    for group, members in look_alikes.items():
        own = sorted(set(members) & set(classes))
        if len(own) > 2:
            left.append(f"threshold: group {group!r} has {len(own)} classes, not two; it is left at argmax")
        if len(own) != 2:
            continue
        threshold = choose_threshold(classes, probabilities, labels, own, min_records=min_records)
        if threshold is not None:
            chosen.append(threshold)
            continue
        counts = " and ".join(f"{(labels == label).sum()} of {label}" for label in own)
        left.append(f"threshold: {counts} are too few val records to choose one ({min_records} each), left at 0.5")
    return chosen, left


def _columns(classes: np.ndarray, first: str, second: str) -> list[int] | None:
    """Where the two labels of a pair stand; None if not both are there."""
    where = [np.flatnonzero(classes == label) for label in (first, second)]
    return [int(found[0]) for found in where] if all(len(found) for found in where) else None


def _share(pair: np.ndarray) -> np.ndarray:
    """p(second) / (p(first) + p(second)) of ``(n, 2)``; 0 where both are 0, as the first column wins such a tie."""
    total = pair.sum(axis=1)
    return np.divide(pair[:, 1], total, out=np.zeros(len(pair)), where=total > 0)


def _pair_f1(labels: np.ndarray, predicted: np.ndarray, pair: Sequence[str]) -> float:
    """Mean F1 of two labels that both have records."""
    f1 = []
    for label in pair:
        is_it, called = labels == label, predicted == label
        f1.append(2 * (is_it & called).sum() / (is_it.sum() + called.sum()))
    return float(np.mean(f1))

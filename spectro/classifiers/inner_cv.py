"""A choice inside the training records, by cross-validation that keeps groups together."""

from collections.abc import Callable, Sequence

import numpy as np

from spectro.data.splits import folds
from spectro.evaluation.metrics import macro_f1

_K = 5

Predict = Callable[[float, np.ndarray, np.ndarray], np.ndarray]


def choose(
    candidates: Sequence[float], predict: Predict, labels: np.ndarray, groups: np.ndarray, seed: int = 0
) -> float:
    """The candidate with the largest macro-F1 over pooled out-of-fold predictions; of equal ones the first.

    Args:
        candidates: From the simplest model to the most complex one.
        predict: A candidate, training rows and new rows -> class numbers of the new rows ``(m,)``, by a model that is
            fitted to the training rows alone.
        labels: Class numbers ``(n,)``, 0 to k - 1, each at least once.
        groups: What stays together ``(n,)``, such as the views of one record.

    Returns:
        The candidate; the middle one where some class lies in fewer groups than two, which cannot be divided.
    """
    n_groups = [len(set(groups[labels == label])) for label in sorted(set(labels))]
    if min(n_groups) < 2:
        return candidates[len(candidates) // 2]
    k = max(2, min(_K, *n_groups))
    fold = folds(labels, groups, k, seed)
    scores = []
    for candidate in candidates:
        confusion = np.zeros((len(n_groups),) * 2)
        for number in range(k):
            train, new = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
            np.add.at(confusion, (labels[new], predict(candidate, train, new)), 1)
        scores.append(macro_f1(confusion, ()))
    return candidates[int(np.argmax(scores))]

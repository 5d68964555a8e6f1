"""Which hyperparameters decide the score of a search's trials."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_TREES, _PARTS, _POINTS = 128, 8, 512
# Fewer trials say nothing about more than their number.
MIN_TRIALS = 5


def total_effects(
    X: Floats, y: Floats, low: Floats, high: Floats, is_choice: NDArray[np.bool_]
) -> tuple[Floats, float]:
    """The share of the score's variance over the whole search space that each hyperparameter has a part in.

    A random forest is fitted to all trials. At points that are drawn evenly from the space, one hyperparameter at a
    time is drawn anew: half the mean squared change of the forest's value, divided by its variance, is the total-effect
    index of Sobol (Jansen, 1999, "Analysis of variance designs for model output"). Interactions count for each
    hyperparameter in them, so the sum may be above 1. Even draws matter: a search soon leaves a bad kernel alone, and
    what goes by its good trials, as PED-ANOVA does, then finds that the kernel hardly matters.

    Args:
        X: Trials ``(n, p)``; a choice as its number from 0, a logarithmic range as logarithms; NaN where a trial has no
            such hyperparameter.
        y: Their scores ``(n,)``.
        low: Lower ends of the space ``(p,)``.
        high: Upper ends; of a choice the number of its last value.
        is_choice: Which columns are choices ``(p,)``.

    Returns:
        The index of each hyperparameter by each of 8 parts of the forest, ``(8, p)``, all 0 where the scores are equal;
        and the share of the variance of trials that the trees that were not fitted to them explain.
    """
    from sklearn.ensemble import RandomForestRegressor

    # Below every value: a tree can separate trials that lack a hyperparameter.
    filled = np.where(np.isnan(X), low - 1, X)
    forest = RandomForestRegressor(_TREES, min_samples_leaf=2, oob_score=True, random_state=0).fit(filled, y)
    rng = np.random.default_rng(0)
    # Two sets of points: the second is where a hyperparameter is drawn anew.
    points, anew = rng.random((2, _POINTS, len(low))) * (high - low + is_choice) + low
    points, anew = (np.where(is_choice, np.floor(p), p) for p in (points, anew))
    moved = [np.where(np.arange(len(low)) == j, anew, points) for j in range(len(low))]

    def by_part(rows: Floats) -> Floats:
        trees = np.array([tree.predict(rows.astype(np.float32)) for tree in forest.estimators_])
        return trees.reshape(_PARTS, -1, len(rows)).mean(axis=1)

    base = by_part(points)
    change = np.array([((by_part(rows) - base) ** 2).mean(axis=1) / 2 for rows in moved]).T
    variance = base.var(axis=1, keepdims=True)
    shares = np.divide(change, variance, out=np.zeros_like(change), where=variance > 1e-12)
    return shares, float(forest.oob_score_)

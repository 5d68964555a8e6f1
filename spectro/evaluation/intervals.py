"""Intervals for numbers that come from few records."""

from collections.abc import Callable, Mapping
from statistics import NormalDist
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray


@overload
def wilson(successes: float, n: float, level: float = 0.95) -> tuple[float, float]: ...
@overload
def wilson(
    successes: ArrayLike, n: ArrayLike, level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
def wilson(successes: Any, n: Any, level: float = 0.95) -> tuple[Any, Any]:
    """Score interval of a proportion; keeps its coverage for few trials and for proportions of 0 and 1.

    With s successes in n trials and z the normal quantile of ``(1 + level) / 2``, the bounds are
    ``(s + z²/2 ± z * sqrt(s * (n - s) / n + z²/4)) / (n + z²)``: E. B. Wilson (1927), "Probable inference, the law
    of succession, and statistical inference", Journal of the American Statistical Association 22, 209-212.

    Args:
        successes: Number of successes, a scalar or an array.
        n: Number of trials, a scalar or an array that broadcasts with ``successes``. No trials give (0, 1).
        level: Confidence level, strictly between 0 and 1.

    Returns:
        Lower and upper bound, within [0, 1] and around ``successes / n``: floats for scalars, else arrays.

    Raises:
        ValueError: ``level`` is not between 0 and 1, or not ``0 <= successes <= n``.
    """
    _check_level(level)
    s, trials = np.broadcast_arrays(np.asarray(successes, dtype=float), np.asarray(n, dtype=float))
    if not np.all((s >= 0) & (s <= trials) & np.isfinite(trials)):
        raise ValueError(f"successes must lie between 0 and n; got successes={successes!r}, n={n!r}")
    z = NormalDist().inv_cdf((1 + level) / 2)
    spread = z * np.sqrt(s * (trials - s) / np.maximum(trials, 1) + z**2 / 4)
    # The ends are exact by the formula, but not in floating point.
    low = np.where(s == 0, 0.0, (s + z**2 / 2 - spread) / (trials + z**2))
    high = np.where(s == trials, 1.0, (s + z**2 / 2 + spread) / (trials + z**2))
    if low.ndim == 0:
        return float(low), float(high)
    return low, high


def bootstrap_ci(
    tallies: ArrayLike,
    strata: ArrayLike,
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    *,
    prior: Mapping[Any, tuple[NDArray[np.float64], NDArray[np.float64]]] | None = None,
    seed: int = 0,
    resamples: int = 1000,
    level: float = 0.95,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Percentile interval of a stratified bootstrap over units whose tallies add up.

    In each resample every stratum draws as many of its units as it has, with replacement, and the drawn tallies are
    summed; the interval is the central ``level`` of the statistic over the resamples: B. Efron and R. Tibshirani
    (1993), "An Introduction to the Bootstrap", chapters 8 (structured data) and 13 (percentile interval).

    With a ``prior`` a stratum is drawn from its units and from what else they might have been, mixed by weight: N. L.
    Hjort (1991), "Bayesian and empirical Bayesian bootstrapping", with as many draws as there are units. Without one
    a stratum of equal units never varies, and the interval of a few units is too narrow.

    Args:
        tallies: Counts of each unit, shape (units, ...).
        strata: Stratum of each unit, shape (units,).
        statistic: Maps the summed tallies of all resamples, (resamples, ...), to numbers, (resamples, q).
        prior: Stratum -> tallies of made-up units, shape (m, ...), and the weight of each, (m,), where that of a real
            unit is 1.
        seed: Seed of the resampling. The result does not depend on the order of the units.
        resamples: Number of resamples.
        level: Confidence level, strictly between 0 and 1.

    Returns:
        Lower and upper bounds, each of shape (q,).

    Raises:
        ValueError: No units, unequal lengths, no resamples, or ``level`` not between 0 and 1.
    """
    _check_level(level)
    units, groups = np.asarray(tallies, dtype=float), np.asarray(strata)
    if len(units) == 0 or groups.shape != (len(units),):
        raise ValueError(f"expected one stratum for each of at least 1 unit; got {len(units)} units, {groups.shape}")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1; got {resamples}")
    rng = np.random.default_rng(seed)
    flat = units.reshape(len(units), -1)
    sums = np.zeros((resamples, flat.shape[1]))
    for group in np.unique(groups):
        # Units with equal tallies are interchangeable, so it is enough to draw how many of each kind come up.
        kinds, counts = np.unique(flat[groups == group], axis=0, return_counts=True)
        p = counts
        if prior is not None and group in prior:
            made_up, weights = prior[group]
            # They come last: a row of draws is done as soon as it has enough, so that they cost next to nothing.
            kinds, p = np.concatenate([kinds, np.reshape(made_up, (len(weights), -1))]), np.append(counts, weights)
        sums += rng.multinomial(counts.sum(), p / p.sum(), size=resamples) @ kinds
    values = statistic(sums.reshape(resamples, *units.shape[1:]))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must lie strictly between 0 and 1; got {level}")

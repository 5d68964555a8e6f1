"""Intervals for numbers that come from few records: Wilson's for proportions, a smoothed bootstrap for all else.

docs/background/intervals.md has the measured coverage of both.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]
Sources = Sequence[Hashable] | NDArray[Any]
# Pseudo-observations in all; docs/background/intervals.md has the coverage with and without them.
SMOOTHING = 2.0
# Equal numbers that were added up in another order differ in their last digits.
NO_SPREAD = 1e-12


def wilson(successes: ArrayLike, n: ArrayLike) -> tuple[Any, Any]:
    """95 % score interval of a proportion; keeps its coverage for few trials and for proportions of 0 and 1.

    With s successes in n trials and z = 1.96 the bounds are ``(s + z²/2 ± z * sqrt(s * (n - s) / n + z²/4)) / (n +
    z²)``: E. B. Wilson (1927), "Probable inference, the law of succession, and statistical inference", Journal of the
    American Statistical Association 22, 209-212. scipy's `binomtest` takes neither arrays nor the fractions that means
    over seeds are.

    Args:
        successes: Number of successes, a scalar or an array.
        n: Number of trials, a scalar or an array that broadcasts with ``successes``. No trials give (0, 1).

    Returns:
        Lower and upper bound, within [0, 1] and around ``successes / n``: floats for scalars, else arrays.

    Raises:
        ValueError: Not ``0 <= successes <= n``.
    """
    s, trials = np.broadcast_arrays(np.asarray(successes, dtype=float), np.asarray(n, dtype=float))
    if not np.all((s >= 0) & (s <= trials)):
        raise ValueError(f"successes: got {successes!r} of n={n!r}; allowed: 0 to n")
    z = NormalDist().inv_cdf(0.975)
    spread = z * np.sqrt(s * (trials - s) / np.maximum(trials, 1) + z**2 / 4)
    # The ends are exact by the formula, but not in floating point.
    low = np.where(s == 0, 0.0, (s + z**2 / 2 - spread) / (trials + z**2))
    high = np.where(s == trials, 1.0, (s + z**2 / 2 + spread) / (trials + z**2))
    return (float(low), float(high)) if low.ndim == 0 else (low, high)


@dataclass(frozen=True)
class Resampled:
    """Confusion matrices of a model, as observed and in each resample; rows are the truth.

    Attributes:
        observed: (seeds, k, k).
        drawn: (resamples, seeds, k, k).
        seed_weights: Weight of each seed in each resample, (resamples, seeds); rows sum to 1.
    """

    observed: Floats
    drawn: Floats
    seed_weights: Floats

    def values(self, metric: Callable[[Floats], Floats]) -> tuple[Floats, Floats]:
        """Values of a metric: of each seed, (seeds,), and the mean over drawn seeds in each resample, (resamples,)."""
        return metric(self.observed), (metric(self.drawn) * self.seed_weights).sum(axis=1)


def resample(
    true: Codes, models: Sequence[Codes], k: int, *, sources: Sources, seed: int, resamples: int
) -> list[Resampled]:
    """Evaluates models on the same drawn sources, many times: a smoothed, stratified bootstrap.

    In each resample every class draws as many sources as it has, with replacement (B. Efron and R. Tibshirani, 1993,
    "An Introduction to the Bootstrap", chapter 8), from the real ones and from the `pseudo_observations`, mixed by
    weight (N. L. Hjort, 1991, "Bayesian and empirical Bayesian bootstrapping"). A source with records of several
    classes, such as a station, is drawn with those of the class that most sources have.

    A model's seeds are drawn where it has more than one; models with as many seeds get the same draws. Sources and
    seeds are drawn independently of one another (A. Owen, 2007, "The pigeonhole bootstrap", Annals of Applied
    Statistics 1, 386-411), which makes the variance rather too large than too small.

    Args:
        true: Number of each record's class, (n,); at least one record.
        models: For each model the numbers of the predicted classes, (seeds, n).
        k: Number of classes.
        sources: Source of each record, (n,).
        seed: Seed of the draws. The result depends neither on the order of the sources nor on that of the models.
    """
    source = number_sources(sources)
    sizes = np.zeros((source.max() + 1, k))
    np.add.at(sizes, (source, true), 1)
    strata = np.where(sizes > 0, (sizes > 0).sum(axis=0), 0).argmax(axis=1)
    rng = np.random.default_rng(seed)
    tallies = []
    for predicted in models:
        # The confusion matrix of each source and seed.
        tally = np.zeros((len(strata), len(predicted), k, k))
        np.add.at(tally, (source, np.arange(len(predicted))[:, None], true, predicted), 1)
        tallies.append(tally)
    order = list(range(len(models)))
    if len(models) > 1:
        order.sort(key=lambda m: sorted(tallies[m].reshape(len(strata), -1).tolist()))
    n_seeds = [len(models[m]) for m in order]
    pseudo = pseudo_observations(sizes, strata, k, n_seeds)
    drawn = draw_tallies(np.concatenate([tallies[m] for m in order], axis=1), strata, pseudo, rng, resamples)
    seed_weights = {n: draw_units(rng, n, resamples) / n for n in sorted(set(n_seeds))}
    parts = dict(zip(order, np.split(drawn, np.cumsum(n_seeds)[:-1], axis=1), strict=True))
    return [Resampled(t.sum(axis=0), parts[m], seed_weights[t.shape[1]]) for m, t in enumerate(tallies)]


def pseudo_observations(
    sizes: Floats, strata: Codes, k: int, n_seeds: Sequence[int] = (1,)
) -> dict[int, tuple[Floats, Floats]]:
    """Prior counts of the smoothed bootstrap: ``SMOOTHING`` sources, shared out among the classes that occur.

    Of each class there is one kind that all models predict right, one that all predict wrong, and for two models one
    for each that only one predicts right (A. Agresti and Y. Min, 2005, Statistics in Medicine 24, 729-740); all kinds
    have the same weight, and so have all wrong classes. A pseudo-source has as many records of each class as a real one
    of its stratum on average. Sharing them out keeps many classes from drawing a mean away from what was observed (R.
    M. Price and D. G. Bonett, 2004, Computational Statistics and Data Analysis 45, 449-456).

    Args:
        sizes: Number of records of each source and class, (sources, k).
        strata: Class that each source is drawn with, (sources,).
        k: Number of classes.
        n_seeds: For each model its number of seeds, ``r`` in all; a pseudo-source is the same for all of them.

    Returns:
        Class -> tallies (m, r, k, k) and the weight of each, (m,), where that of a real source is 1.
    """
    present, kinds, every = np.unique(strata), list(product((True, False), repeat=len(n_seeds))), np.arange(k)
    pseudo = {}
    for c in present.tolist():
        tallies, weights = [], []
        for wrong, is_right in product(range(k), kinds):
            if all(is_right) == (wrong == c):
                # Where a source spans classes, each of them is predicted as far off as c.
                shift = np.repeat([0 if right else wrong - c for right in is_right], n_seeds)[:, None]
                tally = np.zeros((len(shift), k, k))
                tally[np.arange(len(shift))[:, None], every, (every + shift) % k] = sizes[strata == c].mean(axis=0)
                tallies.append(tally)
                weights.append(SMOOTHING / len(present) / len(kinds) / (1 if all(is_right) else k - 1))
        pseudo[c] = np.array(tallies), np.array(weights)
    return pseudo


def draw_tallies(
    tallies: Floats,
    strata: Codes,
    pseudo: Mapping[int, tuple[Floats, Floats]],
    rng: np.random.Generator,
    resamples: int,
) -> Floats:
    """Draws sources within strata and sums their tallies, (sources, ...) to (resamples, ...).

    Args:
        tallies: Counts of each source.
        strata: Stratum of each source, (sources,).
        pseudo: Stratum -> tallies of further sources and their weights, see `pseudo_observations`.
    """
    flat = tallies.reshape(len(tallies), -1)
    sums = np.zeros((resamples, flat.shape[1]))
    for group in np.unique(strata):
        # Equal sources are interchangeable, so it is enough to draw how many of each kind come up.
        kinds, counts = np.unique(flat[strata == group], axis=0, return_counts=True)
        p = counts
        if group in pseudo:
            further, weights = pseudo[group]
            # They come last: a row of draws ends as soon as it has enough, so that they cost next to nothing.
            kinds, p = np.concatenate([kinds, further.reshape(len(weights), -1)]), np.append(counts, weights)
        sums += rng.multinomial(counts.sum(), p / p.sum(), size=resamples) @ kinds
    return sums.reshape(resamples, *tallies.shape[1:])


def draw_units(rng: np.random.Generator, n: int, resamples: int) -> Floats:
    """Weights of n interchangeable units, (resamples, n), rows sum to n.

    Drawing n of n makes a variance too small by (n - 1) / n, a half for two. So n - 1 are drawn, each with the weight
    n / (n - 1): J. Rao and C. Wu (1988), Journal of the American Statistical Association 83, 231-241.
    """
    if n == 1:
        return np.ones((resamples, 1))
    counts = rng.multinomial(n - 1, np.full(n, 1 / n), size=resamples)
    return counts.astype(np.float64) * (n / (n - 1))


def design_effects(true: Codes, right: NDArray[Any], source: Codes, k: int) -> Floats:
    """How much larger the variance of each class's recall is than with independent records, (k,).

    1 where every source has one record of the class; at most the mean number of them, which it is where all of them or
    none are right. J. Rao and A. Scott (1992), "A simple method for the analysis of clustered binary data", Biometrics
    48, 577-585.

    Args:
        true: Number of each record's class, (n,).
        right: Whether each record is predicted right, or how often, 0 to 1, (n,).
        source: Number of each record's source, (n,).
        k: Number of classes.
    """
    sizes, hits = np.zeros((2, source.max(initial=-1) + 1, k))
    np.add.at(sizes, (source, true), 1)
    np.add.at(hits, (source, true), right)
    support, n_sources = sizes.sum(axis=0), (sizes > 0).sum(axis=0)
    recall, largest = hits.sum(axis=0) / np.maximum(support, 1), np.maximum(support, 1) / np.maximum(n_sources, 1)
    # Sorted, so that the last digit does not depend on the order of the records.
    squares = np.sort((hits - recall * sizes) ** 2, axis=0)
    between = squares.sum(axis=0) * n_sources / np.maximum(n_sources - 1, 1)
    within = support * recall * (1 - recall)
    effects = np.divide(between, within, out=largest.copy(), where=(within > 0) & (n_sources > 1))
    return np.clip(effects, 1, largest)


def percentile_interval(drawn: Floats, value: float) -> tuple[float, float] | tuple[None, None]:
    """95 % percentile interval of resamples, (resamples,), widened to hold the value itself.

    None where the value is undefined, or where all resamples agree: an interval without width would claim certainty.
    Resamples in which it is undefined, as without a record of the class, do not count.
    """
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.quantile(drawn, [(1 - 0.95) / 2, (1 + 0.95) / 2]) if len(drawn) else (value, value)
    if not np.isfinite(value) or not high - low > NO_SPREAD:
        return None, None
    return float(min(low, value)), float(max(high, value))


def number_sources(sources: Sources) -> Codes:
    """The number of each record's source, (n,), in order of first appearance."""
    number: dict[Hashable, int] = {}
    return np.array([number.setdefault(source, len(number)) for source in sources], dtype=np.intp)

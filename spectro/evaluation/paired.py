"""Is one model better than another on the same records, and how sure can one be?

Three questions with a test each (see docs/statistics.md): `mcnemar`, `corrected_resampled_t` and the interval of
`difference`. `holm` keeps many tests from finding something by chance.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectro.evaluation.resampling import NO_SPREAD, Labels, SeedLabels, by_seed, interval, resample

# A two-sided test at 5 % finds a difference of (1.96 + 0.84) standard errors in 80 % of test sets.
_POWER = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)


@dataclass(frozen=True)
class McNemar:
    """What `mcnemar` returns: records that only one of the models got right, and the two-sided p-value."""

    n_only_a: int
    n_only_b: int
    p_value: float


@dataclass(frozen=True)
class ResampledT:
    """What `corrected_resampled_t` returns; None where the differences do not show their spread."""

    mean: float
    std_error: float | None
    dof: int
    p_value: float | None
    ci_low: float | None
    ci_high: float | None


@dataclass(frozen=True)
class Difference:
    """What `difference` returns: a minus b. Interval and ``smallest`` are None with a single class."""

    value: float
    ci_low: float | None
    ci_high: float | None
    std_error: float
    smallest: float | None


@dataclass(frozen=True)
class Estimate:
    """What `score_over_seeds` returns; ``std_seeds`` is None for one seed, the interval with a single class."""

    value: float
    ci_low: float | None
    ci_high: float | None
    std_seeds: float | None
    values: tuple[float, ...]


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike) -> McNemar:
    """Exact test of whether two models get the same share of records right.

    Records that both get right or both get wrong say nothing. If the models are equally good, each of the n others is
    right with a or with b by the throw of a coin, so that p is twice the smaller tail of a binomial distribution with
    n and 1/2, at most 1. Q. McNemar (1947), "Note on the sampling error of the difference between correlated
    proportions or percentages", Psychometrika 12, 153-157, in its exact form. It counts every record as independent:
    give it one record of a source.

    Args:
        correct_a: Whether model a gets each record right, bool, (n,).
        correct_b: The same for model b and the same records.

    Returns:
        Counts of the records that only a or only b gets right, and p; 1 where there are no such records.

    Raises:
        ValueError: The arrays are not one-dimensional and equally long.
    """
    from scipy.special import bdtr

    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"expected two arrays of the same shape (n,); got {a.shape} and {b.shape}")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    tail = float(bdtr(min(only_a, only_b), only_a + only_b, 0.5))
    return McNemar(only_a, only_b, min(1.0, 2 * tail))


def corrected_resampled_t(differences: ArrayLike, n_train: float, n_test: float) -> ResampledT:
    """Test of a mean difference over folds or other resamples of the same records.

    Such differences are not independent, as their training sets share records. The t-test therefore takes the
    variance of their mean to be ``s² * (1 / J + n_test / n_train)`` in place of ``s² / J``: C. Nadeau and Y. Bengio
    (2003), "Inference for the generalization error", Machine Learning 52, 239-281; for repeated cross-validation
    R. Bouckaert and E. Frank (2004), "Evaluating the replicability of significance tests for comparing learning
    algorithms", PAKDD, 3-12. J - 1 degrees of freedom.

    Args:
        differences: One metric's difference in each fold of each repeat, (J,).
        n_train: Number of records that a fold's model is trained on; the mean if folds differ.
        n_test: Number of records that a fold is evaluated on.

    Returns:
        Mean, its corrected standard error, degrees of freedom, two-sided p-value and 95 % interval. Where all
        differences are 0, p is 1 and the standard error 0. Where they are all the same other number, or there is only
        one, their spread is not known: p and interval are None.

    Raises:
        ValueError: No differences, some that are not finite, or a number of records that is not positive.
    """
    from scipy.special import stdtr, stdtrit

    d = np.asarray(differences, dtype=float)
    if d.ndim != 1 or not len(d) or not np.isfinite(d).all():
        raise ValueError(f"expected at least one finite difference, shape (J,); got {differences!r}")
    if not (n_train > 0 and n_test > 0):
        raise ValueError(f"n_train and n_test must be positive; got {n_train} and {n_test}")
    mean, dof = float(d.mean()), len(d) - 1
    if dof == 0:
        return ResampledT(mean, None, dof, None, None, None)
    if np.ptp(d) < NO_SPREAD:
        return ResampledT(mean, 0.0, dof, 1.0 if abs(mean) < NO_SPREAD else None, None, None)
    std_error = float(d.std(ddof=1) * np.sqrt(1 / len(d) + n_test / n_train))
    p, reach = 2 * float(stdtr(dof, -abs(mean) / std_error)), float(stdtrit(dof, 0.975)) * std_error
    return ResampledT(mean, std_error, dof, p, mean - reach, mean + reach)


def holm(p_values: Sequence[float | None] | NDArray[np.float64]) -> NDArray[np.float64]:
    """P-values of several tests, adjusted so that the chance of any false alarm stays below the level.

    The smallest of m is multiplied by m, the next by m - 1 and so on; none is smaller than one before it, or larger
    than 1: S. Holm (1979), "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6, 65-70. It holds whatever the tests have to do with one another.

    Args:
        p_values: P-values, (m,). None or NaN stands for a test that could not be made; it is not counted.

    Returns:
        Adjusted p-values in the order given, (m,); NaN where there was no test.

    Raises:
        ValueError: A p-value is not between 0 and 1.
    """
    p = np.array([np.nan if value is None else value for value in p_values], dtype=float)
    made = np.flatnonzero(~np.isnan(p))
    if np.any((p[made] < 0) | (p[made] > 1)):
        raise ValueError(f"p-values must lie between 0 and 1; got {p_values!r}")
    order = made[np.argsort(p[made], kind="stable")]
    p[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return p


def vote(predictions: SeedLabels) -> NDArray[Any]:
    """The most frequent label over seeds; of equally frequent ones the label of the earliest seed.

    The alphabet would favour the same class each time; with two seeds this is the first seed.

    Args:
        predictions: Labels, (seeds, n), or (n,) for one seed.

    Returns:
        Labels, (n,).
    """
    rows = by_seed(predictions, "predictions")
    frequency = (rows[:, None, :] == rows[None, :, :]).sum(axis=1)
    # argmax takes the first of equal ones.
    return rows[frequency.argmax(axis=0), np.arange(rows.shape[1])]


def difference(
    y_true: Labels,
    pred_a: SeedLabels,
    pred_b: SeedLabels,
    classes: Labels,
    *,
    sources: Sequence[Hashable] | NDArray[Any] | None = None,
    seed: int = 0,
    resamples: int = 2000,
    metric: str = "macro_f1",
) -> Difference:
    """How much better a is than b, mean over seeds, with a 95 % interval over records and seeds.

    A paired bootstrap: in each resample both models are evaluated on the same drawn sources, and on the same drawn
    seeds where both have as many. `spectro.evaluation.resampling.resample` says how they are drawn.

    Args:
        y_true: True labels, (n,).
        pred_a: Predicted labels of model a, (seeds, n), or (n,) for one seed.
        pred_b: The same of model b; the number of seeds may differ.
        classes: All labels that may occur, (k,).
        sources: Source of each record, (n,). By default every record is its own source.
        seed: Seed of the bootstrap.
        resamples: Number of resamples.
        metric: A name in `METRICS`, not one of look-alikes.

    Returns:
        The difference, its percentile interval and standard error, and the smallest difference that would be found
        (interval without 0) in 80 % of such test sets, ``(z_0.975 + z_0.8) * std_error``.

    Raises:
        ValueError: As `score_over_seeds`.
    """
    a, b = resample(y_true, (pred_a, pred_b), classes, sources=sources, seed=seed, resamples=resamples, metric=metric)
    value, drawn = float(a.values.mean() - b.values.mean()), a.drawn - b.drawn
    low, high = interval(drawn, value)
    if low is None or high is None:
        return Difference(value, None, None, 0.0, None)
    std_error = float(drawn.std(ddof=1))
    return Difference(value, low, high, std_error, _POWER * std_error)


def score_over_seeds(
    y_true: Labels,
    preds: SeedLabels,
    classes: Labels,
    *,
    sources: Sequence[Hashable] | NDArray[Any] | None = None,
    seed: int = 0,
    resamples: int = 2000,
    metric: str = "macro_f1",
    look_alikes: Sequence[str] = (),
) -> Estimate:
    """Mean of a metric over seeds, with a 95 % interval over records and seeds.

    Args:
        y_true: True labels, (n,).
        preds: Predicted labels, (seeds, n), or (n,) for one seed.
        classes: All labels that may occur, (k,).
        sources: Source of each record, (n,). By default every record is its own source.
        seed: Seed of the bootstrap.
        resamples: Number of resamples.
        metric: A name in `METRICS`.
        look_alikes: The look-alike classes, for a metric of these.

    Returns:
        Mean over seeds, its percentile interval, the seeds' standard deviation and each seed's value.

    Raises:
        ValueError: No records, unequal lengths, a label that is not a class, an unknown metric, or no resamples.
    """
    (found,) = resample(
        y_true,
        (preds,),
        classes,
        sources=sources,
        seed=seed,
        resamples=resamples,
        metric=metric,
        look_alikes=look_alikes,
    )
    low, high = interval(found.drawn, float(found.values.mean()))
    values = found.values
    std = float(values.std(ddof=1)) if len(values) > 1 else None
    return Estimate(float(values.mean()), low, high, std, tuple(values.tolist()))

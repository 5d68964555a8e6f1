"""Is one model better than another on the same records, and how certain is that?

Three questions with a test each (docs/background/statistics.md): `mcnemar`, `corrected_resampled_t` and the interval of
`differences`. `holm` keeps many tests from finding something by chance.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectro.evaluation.format import format_number
from spectro.evaluation.intervals import NO_SPREAD, Resampled, Sources, percentile_interval, resample
from spectro.evaluation.metrics import applicable_metrics, encode

Labels = Sequence[str] | NDArray[Any]
# One row of labels for each seed, or the labels of a single seed.
SeedLabels = Sequence[str] | Sequence[Sequence[str]] | NDArray[Any]
# A two-sided test at 5 % finds a difference of (1.96 + 0.84) standard errors in 80 % of test sets.
_POWER = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)


@dataclass(frozen=True)
class McNemar:
    """What `mcnemar` returns: records that only one of the models predicts right, and the two-sided p-value."""

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
    """A metric of model a minus that of model b, mean over seeds.

    Attributes:
        ci_low, ci_high: 95 % percentile interval; None where no resample differs, as with a single class.
        std_error: Standard error over resamples.
        smallest: The smallest difference that is found (interval without 0) in 80 % of such test sets,
            ``(z_0.975 + z_0.8) * std_error``; None without an interval.
    """

    value: float
    ci_low: float | None
    ci_high: float | None
    std_error: float
    smallest: float | None

    def __str__(self) -> str:
        """``+0.08 [0.01, 0.15]``."""
        return format_number(self.value, self.ci_low, self.ci_high, signed=True)


@dataclass(frozen=True)
class Estimate:
    """A metric of one model: mean over seeds, interval as of `Difference`, deviation over seeds, value of each seed."""

    value: float
    ci_low: float | None
    ci_high: float | None
    std_seeds: float | None
    values: tuple[float, ...]

    def __str__(self) -> str:
        """``0.89 [0.80, 0.97]``."""
        return format_number(self.value, self.ci_low, self.ci_high)


def axis_start(scores: Iterable[Estimate]) -> float:
    """Where an axis of scores begins that ends at 1: a multiple of 0.2 below all of them, at most 0.8."""
    return min(0.8, math.floor(5 * min(e.value if e.ci_low is None else e.ci_low for e in scores)) / 5)


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike) -> McNemar:
    """Exact test of whether two models predict the same share of records right.

    Records that both predict right or both wrong carry no information. If the models are equally good, each of the n
    others is right with a or with b by the throw of a coin, a binomial distribution with n and 1/2. Q. McNemar (1947),
    "Note on the sampling error of the difference between correlated proportions or percentages", Psychometrika 12,
    153-157, in its exact form. It counts every record as independent: give it one record of a source.

    Args:
        correct_a: Whether model a predicts each record right, bool, (n,).
        correct_b: The same for model b and the same records.

    Returns:
        Counts of the records that only a or only b predicts right, and p; 1 where there are no such records.
    """
    from scipy.stats import binomtest

    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    n = only_a + only_b
    return McNemar(only_a, only_b, float(binomtest(only_a, n).pvalue) if n else 1.0)


def corrected_resampled_t(differences: ArrayLike, n_train: float, n_test: float) -> ResampledT:
    """Test of a mean difference over folds or other resamples of the same records.

    Such differences are not independent, as their training sets share records. The t-test therefore takes the
    variance of their mean to be ``s² * (1 / J + n_test / n_train)`` in place of ``s² / J``: C. Nadeau and Y. Bengio
    (2003), "Inference for the generalization error", Machine Learning 52, 239-281; for repeated cross-validation
    R. Bouckaert and E. Frank (2004), "Evaluating the replicability of significance tests for comparing learning
    algorithms", PAKDD, 3-12. J - 1 degrees of freedom.

    Args:
        differences: One metric's difference in each fold of each repeat, (J,), at least one.
        n_train: Number of records that a fold's model is trained on; the mean if folds differ.
        n_test: Number of records that a fold is evaluated on.

    Returns:
        Mean, its corrected standard error, degrees of freedom, two-sided p-value and 95 % interval. Where all
        differences are 0, p is 1 and the standard error 0. Where they are all the same other number, or there is only
        one, their spread is not known: p and interval are None.
    """
    from scipy.stats import t

    d = np.asarray(differences, dtype=float)
    mean, dof = float(d.mean()), len(d) - 1
    if dof == 0:
        return ResampledT(mean, None, dof, None, None, None)
    if np.ptp(d) < NO_SPREAD:
        return ResampledT(mean, 0.0, dof, 1.0 if abs(mean) < NO_SPREAD else None, None, None)
    std_error = float(d.std(ddof=1) * np.sqrt(1 / len(d) + n_test / n_train))
    p, reach = 2 * float(t.sf(abs(mean) / std_error, dof)), float(t.ppf(0.975, dof)) * std_error
    return ResampledT(mean, std_error, dof, p, mean - reach, mean + reach)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values of several tests, adjusted so that the chance of any false alarm stays below the level.

    The smallest of m is multiplied by m, the next by m - 1 and so on; none is smaller than one before it, or larger
    than 1: S. Holm (1979), "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6, 65-70. It holds whatever the tests have to do with one another.

    Args:
        p_values: P-values, m. None stands for a test that could not be made; it is not counted.

    Returns:
        Adjusted p-values in the order given; None where there was no test.
    """
    adjusted: list[float | None] = [None] * len(p_values)
    tests = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    floor = 0.0
    for rank, (p, i) in enumerate(tests):
        floor = adjusted[i] = min(1.0, max(floor, p * (len(tests) - rank)))
    return adjusted


def differences(
    y_true: Labels,
    pred_a: SeedLabels,
    pred_b: SeedLabels,
    classes: Labels,
    *,
    sources: Sources | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> dict[str, Difference]:
    """How much better a is than b in each metric, mean over seeds, with 95 % intervals over records and seeds.

    A paired bootstrap: in each resample both models are evaluated on the same drawn sources, and on the same drawn
    seeds where both have as many, see `spectro.evaluation.intervals.resample`.

    Args:
        y_true: True labels, (n,), at least one.
        pred_a: Predicted labels of model a, (seeds, n), or (n,) for one seed.
        pred_b: The same of model b; the number of seeds may differ.
        classes: All labels that may occur, (k,).
        sources: Source of each record, (n,). By default every record is its own source.

    Returns:
        Metric -> difference, without metrics of look-alikes and those that are undefined for these records.

    Raises:
        ValueError: Unequal lengths, or a label that is not a class.
    """
    a, b = _resample(y_true, (pred_a, pred_b), classes, sources, seed, resamples)
    results = {}
    for metric in applicable_metrics(list(classes)):
        function = partial(metric, classes=list(classes))
        (values_a, drawn_a), (values_b, drawn_b) = a.values(function), b.values(function)
        value, drawn = float(values_a.mean() - values_b.mean()), drawn_a - drawn_b
        low, high = percentile_interval(drawn, value)
        std_error = 0.0 if low is None else float(np.nanstd(drawn, ddof=1))
        if np.isfinite(value):
            results[metric.name] = Difference(value, low, high, std_error, None if low is None else _POWER * std_error)
    return results


def score_over_seeds(
    y_true: Labels,
    preds: SeedLabels,
    classes: Labels,
    *,
    sources: Sources | None = None,
    seed: int = 0,
    resamples: int = 2000,
    look_alikes: Collection[str] = (),
) -> dict[str, Estimate]:
    """Mean of each metric over seeds, with 95 % intervals over records and seeds.

    Args:
        y_true: True labels, (n,), at least one.
        preds: Predicted labels, (seeds, n), or (n,) for one seed.
        classes: All labels that may occur, (k,).
        sources, seed, resamples: As of `differences`.
        look_alikes: The classes that are hard to tell apart, for the metrics of these.

    Returns:
        Metric -> estimate, without those that are undefined for these records.

    Raises:
        ValueError: As `differences`.
    """
    (model,) = _resample(y_true, (preds,), classes, sources, seed, resamples)
    results = {}
    for metric in applicable_metrics(list(classes), look_alikes):
        values, drawn = model.values(partial(metric, classes=list(classes), look_alikes=look_alikes))
        mean = float(values.mean())
        std = float(values.std(ddof=1)) if len(values) > 1 else None
        if np.isfinite(mean):
            low, high = percentile_interval(drawn, mean)
            results[metric.name] = Estimate(mean, low, high, std, tuple(values.tolist()))
    return results


def _resample(
    y_true: Labels,
    models: Sequence[SeedLabels],
    classes: Labels,
    sources: Sources | None,
    seed: int,
    resamples: int,
) -> list[Resampled]:
    """Checks the labels and resamples the models."""
    labels = [str(label) for label in classes]
    true = encode(y_true, labels, "y_true")
    predicted = [np.atleast_2d(encode(model, labels, "y_pred")) for model in models]
    sources = range(len(true)) if sources is None else sources
    lengths = [len(true), *(model.shape[1] for model in predicted), len(sources)]
    if len(set(lengths)) > 1:
        raise ValueError(f"expected labels, predictions and sources of equal lengths; got {lengths}")
    return resample(true, predicted, len(labels), sources=sources, seed=seed, resamples=resamples)

"""The bootstrap over sources and seeds: what a metric could have been with other records and other seeds."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spectro.evaluation.metrics import METRICS
from spectro.evaluation.report import SMOOTHING

Labels = Sequence[str] | NDArray[Any]
# One row of labels for each seed, or the labels of a single seed.
SeedLabels = Sequence[str] | Sequence[Sequence[str]] | NDArray[Any]
# Equal numbers that were added up in another order differ in their last digits.
NO_SPREAD = 1e-12


class Resampled(NamedTuple):
    """A metric of one model: of each seed, (seeds,), and the mean over drawn seeds in each resample, (resamples,)."""

    values: NDArray[np.float64]
    drawn: NDArray[np.float64]


def by_seed(predictions: SeedLabels, what: str) -> NDArray[Any]:
    """Labels as (seeds, n), also where a single seed came as (n,)."""
    rows = np.asarray(predictions)
    if rows.ndim not in (1, 2) or rows.size == 0:
        raise ValueError(f"{what}: expected labels, (n,) or (seeds, n), at least one; got an array of {rows.shape}")
    return np.atleast_2d(rows)


def resample(
    y_true: Labels,
    models: Sequence[SeedLabels],
    classes: Labels,
    *,
    sources: Sequence[Hashable] | NDArray[Any] | None,
    seed: int,
    resamples: int,
    metric: str,
    look_alikes: Sequence[str] = (),
) -> list[Resampled]:
    """Evaluate models on the same drawn sources, many times.

    Sources are drawn within classes, as many as there are (a source of several classes belongs to the first of them
    in ``classes``). Drawn from are the real ones and a few made-up ones, 2 in all, shared out among the classes that
    occur: one kind that every model gets right, one that every model gets wrong, and for two models one for each that
    only one gets right, all kinds alike, wrong in every way alike. This is how A. Agresti and Y. Min (2005), "Simple
    improved confidence intervals for comparing matched proportions", Statistics in Medicine 24, 729-740, add half a
    record to each cell. Without them a class with one source never varies.

    A model's seeds are drawn where it has more than one; models with as many seeds get the same draws. Drawing n of n
    makes a variance too small by (n - 1) / n, a half for two seeds. So n - 1 are drawn, each with the weight
    n / (n - 1): J. Rao and C. Wu (1988), "Resampling inference with complex survey data", Journal of the American
    Statistical Association 83, 231-241. Sources and seeds are drawn independently of one another: A. Owen (2007),
    "The pigeonhole bootstrap", Annals of Applied Statistics 1, 386-411. The variance is on the large side, as what a
    seed makes of a record is drawn on both sides.

    Args:
        y_true: True labels, (n,).
        models: For each model its predicted labels, (seeds, n), or (n,) for one seed.
        classes: All labels that may occur, (k,).
        sources: Source of each record, (n,). By default every record is its own source.
        seed: Seed of the draws. The result depends neither on the order of the records nor on that of the models.
        resamples: Number of resamples.
        metric: A name in `METRICS`.
        look_alikes: The look-alike classes, for a metric of these; some of them must have records.

    Returns:
        For each model its values and those of the resamples.

    Raises:
        ValueError: No records, unequal lengths, a label that is not a class, an unknown metric, or no resamples.
    """
    if metric not in METRICS:
        raise ValueError(f"metric: got {metric!r}; allowed: {', '.join(METRICS)}")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1; got {resamples}")
    names = [str(name) for name in classes]
    true = _encode(by_seed(y_true, "y_true"), names, "y_true")[0]
    predicted = [_encode(by_seed(model, "predictions"), names, "predictions") for model in models]
    owners = np.arange(len(true)) if sources is None else np.asarray(sources)
    lengths = [len(true), len(owners), *(model.shape[1] for model in predicted)]
    if len(set(lengths)) > 1:
        raise ValueError(f"y_true, sources and predictions must have equal lengths; got {lengths}")

    # An order of models and of records that depends on nothing but what they are.
    rank = sorted(range(len(models)), key=lambda m: sorted(np.vstack([true, predicted[m]]).T.tolist()))
    keys = [true, *(row for m in rank for row in predicted[m])]
    order = np.lexsort([*([] if sources is None else [owners.astype(str)]), *reversed(keys)])
    true, owners, predicted = true[order], owners[order], [model[:, order] for model in predicted]

    rng = np.random.default_rng(seed)
    source = numbered(owners)
    k, function = len(names), METRICS[metric]
    if function.needs_look_alikes and not np.isin([names.index(name) for name in look_alikes], true).any():
        raise ValueError(f"look_alikes: got {list(look_alikes)}; allowed: classes of which some have records")
    made_up = _made_up(true, source, k, len(models))
    weights = _draw_smoothed(_strata(true, source), made_up, rng, resamples)
    own_seeds = {n: _draw(rng, n, resamples) / n for n in sorted({len(model) for model in predicted})}
    found = []
    for m, model in enumerate(predicted):
        values, drawn = np.empty(len(model)), np.empty((resamples, len(model)))
        for s, pred in enumerate(model):
            tallies = np.zeros((source.max() + 1, k, k))
            np.add.at(tallies, (source, true, pred), 1)
            values[s] = function(tallies.sum(axis=0), names, look_alikes)
            others = np.zeros((len(made_up.true), k, k))
            others[np.arange(len(others)), made_up.true, made_up.predicted[rank.index(m)]] = made_up.n_records
            sums = weights @ np.concatenate([tallies, others]).reshape(-1, k * k)
            drawn[:, s] = function(sums.reshape(resamples, k, k), names, look_alikes)
        found.append(Resampled(values, (drawn * own_seeds[len(model)]).sum(axis=1)))
    return found


def interval(drawn: NDArray[np.float64], value: float) -> tuple[float, float] | tuple[None, None]:
    """95 % percentile interval that holds the value itself.

    None where all resamples agree, as an interval without width would claim certainty.
    """
    low, high = np.quantile(drawn, [0.025, 0.975])
    return (float(min(low, value)), float(max(high, value))) if high - low > NO_SPREAD else (None, None)


def _encode(labels: NDArray[Any], names: list[str], what: str) -> NDArray[np.intp]:
    """Position of each label in ``names``."""
    position = {name: i for i, name in enumerate(names)}
    found, at = np.unique(labels, return_inverse=True)
    unknown = [str(label) for label in found if label not in position]
    if unknown:
        raise ValueError(f"{what} holds {unknown}, allowed are the classes {names}")
    return np.array([position[label] for label in found], dtype=np.intp)[at.reshape(labels.shape)]


def numbered(owners: NDArray[Any]) -> NDArray[np.intp]:
    """The number of each record's source, in order of first appearance."""
    number: dict[Hashable, int] = {}
    return np.array([number.setdefault(owner, len(number)) for owner in owners.tolist()], dtype=np.intp)


def draw_sources(
    true: NDArray[np.intp], source: NDArray[np.intp], rng: np.random.Generator, resamples: int
) -> NDArray[np.float64]:
    """How much each source counts in each resample of sources within classes, (resamples, sources); none made up."""
    stratum = _strata(true, source)
    weights = np.empty((resamples, len(stratum)))
    for group in np.unique(stratum):
        own = stratum == group
        weights[:, own] = _draw(rng, int(own.sum()), resamples)
    return weights


class _MadeUp(NamedTuple):
    """Made-up sources: class, (q,), what each model says, (models, q), size in records, (q,), and weight, (q,)."""

    true: NDArray[np.intp]
    predicted: NDArray[np.intp]
    n_records: NDArray[np.float64]
    weight: NDArray[np.float64]


def _made_up(true: NDArray[np.intp], source: NDArray[np.intp], k: int, n_models: int) -> _MadeUp:
    """Every kind of right and wrong for each class that occurs, as large as a real source of it is on average."""
    stratum = _strata(true, source)
    size = np.bincount(source)
    present = np.unique(stratum)
    rows = []
    for c in present.tolist():
        n_records, wrong = float(size[stratum == c].mean()), [w for w in range(k) if w != c]
        kinds = list(product((True, False), repeat=n_models))
        for right in kinds:
            ways = [c] if all(right) else wrong
            for w in ways:
                weight = SMOOTHING / len(present) / len(kinds) / len(ways)
                rows.append((c, [c if is_right else w for is_right in right], n_records, weight))
    columns = list(zip(*rows, strict=True))
    return _MadeUp(np.array(columns[0]), np.array(columns[1]).T, np.array(columns[2]), np.array(columns[3]))


def _draw_smoothed(
    stratum: NDArray[np.intp], made_up: _MadeUp, rng: np.random.Generator, resamples: int
) -> NDArray[np.float64]:
    """How often each source, real ones first, is drawn, (resamples, sources + q); as many of a class as are real."""
    groups = np.concatenate([stratum, made_up.true])
    chance = np.concatenate([np.ones(len(stratum)), made_up.weight])
    weights = np.empty((resamples, len(groups)))
    for group in np.unique(stratum):
        own = groups == group
        weights[:, own] = rng.multinomial((stratum == group).sum(), chance[own] / chance[own].sum(), size=resamples)
    return weights


def _strata(true: NDArray[np.intp], source: NDArray[np.intp]) -> NDArray[np.intp]:
    """The first class of each source."""
    stratum = np.full(source.max() + 1, np.iinfo(np.intp).max)
    np.minimum.at(stratum, source, true)
    return stratum


def _draw(rng: np.random.Generator, n: int, resamples: int) -> NDArray[np.float64]:
    """Weights of n interchangeable units, (resamples, n), with a sum of n."""
    if n == 1:
        return np.ones((resamples, 1))
    counts = rng.multinomial(n - 1, np.full(n, 1 / n), size=resamples)
    return counts.astype(np.float64) * (n / (n - 1))

"""How well scores tell two look-alikes apart at every threshold, with the uncertainty of the areas."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectro.evaluation.intervals import Sources, draw_units, number_sources, percentile_interval
from spectro.evaluation.metrics import ratio


@dataclass(frozen=True)
class PairCurves:
    """What `pair_curves` returns; an area's interval is None where no resample differs.

    Attributes:
        roc: False positive rate and true positive rate, (2, points).
        precision_recall: Recall and precision, (2, points).
        auc: Area under the ROC curve: the chance that a positive record has a larger score than a negative one.
        average_precision: Mean of the precision over the positive records.
        auc_ci, average_precision_ci: Their 95 % intervals.
        n_positive, n_negative: Number of records of each class.
    """

    roc: NDArray[np.float64]
    precision_recall: NDArray[np.float64]
    auc: float
    auc_ci: tuple[float, float] | tuple[None, None]
    average_precision: float
    average_precision_ci: tuple[float, float] | tuple[None, None]
    n_positive: int
    n_negative: int


def pair_curves(
    y_true: ArrayLike, scores: ArrayLike, *, sources: Sources | None = None, seed: int = 0, resamples: int = 1000
) -> PairCurves:
    """ROC and precision-recall of one of two look-alikes, over the records that truly are one of them.

    Curves are scikit-learn's; the intervals of the areas are percentile intervals of a bootstrap over sources, drawn
    within the classes. Where the scores separate the classes no resample differs, and there is no interval.

    Args:
        y_true: Whether each record is of the positive class, bool, (n,); both classes have records.
        scores: The probability of the positive class, or its share of the two probabilities, (n,).
        sources: Source of each record, (n,). By default every record is its own source.
    """
    from sklearn.metrics import precision_recall_curve, roc_curve

    positive, score = np.asarray(y_true, dtype=bool), np.asarray(scores, dtype=float)
    owners = np.arange(len(positive)) if sources is None else np.asarray(sources)
    fpr, tpr, _ = roc_curve(positive, score)
    precision, recall, _ = precision_recall_curve(positive, score)
    # Decreasing scores; equal ones in an order that does not depend on that of the records.
    order = np.lexsort([owners.astype(str), positive, -score] if sources is not None else [positive, -score])
    positive, score, source = positive[order], score[order], number_sources(owners[order])
    rng, is_positive = np.random.default_rng(seed), np.bincount(source, ~positive) == 0
    weights = np.empty((resamples, len(is_positive)))
    for stratum in (~is_positive, is_positive):
        if stratum.any():
            weights[:, stratum] = draw_units(rng, int(stratum.sum()), resamples)
    (auc,), (average_precision,) = _areas(positive, score, np.ones((1, len(score))))
    drawn_auc, drawn_precision = _areas(positive, score, weights[:, source])
    return PairCurves(
        roc=np.stack([fpr, tpr]),
        precision_recall=np.stack([recall, precision]),
        auc=float(auc),
        auc_ci=percentile_interval(drawn_auc, auc),
        average_precision=float(average_precision),
        average_precision_ci=percentile_interval(drawn_precision, average_precision),
        n_positive=int(positive.sum()),
        n_negative=int((~positive).sum()),
    )


def _areas(
    positive: NDArray[np.bool_], score: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Area under the ROC curve and average precision of records in decreasing order of scores, for many weights.

    As scikit-learn's, which would take a second for so many. NaN where one of the classes has no record.
    """
    # A threshold takes in all records of one score.
    last = np.flatnonzero(np.append(np.diff(score) != 0, True))
    hits = np.pad(np.cumsum(weights * positive, axis=1)[:, last], [(0, 0), (1, 0)])
    alarms = np.pad(np.cumsum(weights * ~positive, axis=1)[:, last], [(0, 0), (1, 0)])
    area = (np.diff(alarms, axis=1) * (hits[:, 1:] + hits[:, :-1]) / 2).sum(axis=1)
    auc = ratio(area, hits[:, -1] * alarms[:, -1], empty=np.nan)
    called = hits[:, 1:] + alarms[:, 1:]
    area = (np.diff(hits, axis=1) * ratio(hits[:, 1:], called)).sum(axis=1)
    return auc, ratio(area, hits[:, -1], empty=np.nan)

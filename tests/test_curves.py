"""ROC and precision-recall of a pair of look-alikes: areas as scikit-learn's, and honest intervals."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from spectro.evaluation.curves import pair_curves


def test_areas_are_scikit_learns():
    """Ties included: a threshold takes in all records of one score."""
    rng = np.random.default_rng(0)
    score, positive = rng.integers(0, 8, 40) / 8, rng.random(40) < 0.5
    result = pair_curves(positive, score, resamples=50)
    assert result.auc == pytest.approx(roc_auc_score(positive, score))
    assert result.average_precision == pytest.approx(average_precision_score(positive, score))


def test_curves_do_not_depend_on_the_order_of_records():
    rng = np.random.default_rng(0)
    positive, score, sources = rng.random(30) < 0.5, rng.integers(0, 5, 30), np.arange(30) // 2
    order = rng.permutation(30)
    one = pair_curves(positive, score, sources=sources)
    other = pair_curves(positive[order], score[order], sources=sources[order])
    assert (one.auc, one.auc_ci) == (other.auc, other.auc_ci)
    assert one.average_precision_ci == other.average_precision_ci
    assert one.auc_ci[0] <= one.auc <= one.auc_ci[1]


def test_intervals_of_areas_have_the_width_of_theory():
    """For scores that say nothing the standard error of the area is sqrt((n + m + 1) / (12 n m)), as of ranks."""
    rng = np.random.default_rng(1)
    result = pair_curves(np.arange(200) < 100, rng.random(200), resamples=2000)
    width = result.auc_ci[1] - result.auc_ci[0]
    assert width / 3.92 == pytest.approx(np.sqrt(201 / (12 * 100 * 100)), rel=0.1)


def test_more_records_of_a_source_are_no_new_records():
    rng = np.random.default_rng(1)
    positive, score = np.arange(40) < 20, rng.random(40)
    once = pair_curves(positive, score)
    copied = pair_curves(np.tile(positive, 3), np.tile(score, 3), sources=np.tile(np.arange(40), 3))
    assert np.diff(copied.auc_ci) == pytest.approx(np.diff(once.auc_ci), rel=0.1)

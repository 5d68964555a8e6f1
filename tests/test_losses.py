"""Losses against numbers worked out by hand, and against torch's own cross-entropy."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from spectro.classifiers.networks.losses import class_weights, focal_loss, make_loss
from spectro.classifiers.networks.settings import Loss
from spectro.errors import ConfigError


@pytest.mark.parametrize(
    ("probabilities", "labels", "weights", "options", "by_hand"),
    [
        (  # -w_y (1 - p_y)^gamma log p_y, summed, over the sum of w_y
            [[0.7, 0.2, 0.1], [0.3, 0.3, 0.4]],
            [0, 2],
            [1.0, 3.0, 2.0],
            {"gamma": 2.0},
            (1 * 0.3**2 * -math.log(0.7) + 2 * 0.6**2 * -math.log(0.4)) / (1 + 2),
        ),
        (  # smoothed: every class counts with its share of the target, its weight, and its own distance from 1
            [[0.7, 0.3]],
            [0],
            [1.0, 4.0],
            {"gamma": 1.0, "label_smoothing": 0.2},
            0.9 * 1 * 0.3 * -math.log(0.7) + 0.1 * 4 * 0.7 * -math.log(0.3),
        ),
    ],
)
def test_focal_loss_by_hand(probabilities, labels, weights, options, by_hand):
    logits, weights = (torch.tensor(values, dtype=torch.float64) for values in (probabilities, weights))
    loss = focal_loss(logits.log(), torch.tensor(labels), weights, **options)
    assert loss.item() == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_torchs(smoothing):
    """Gamma has no part in it, and 0 is no other loss than its neighbours."""
    torch.manual_seed(0)
    logits, weights = torch.randn(9, 4, dtype=torch.float64), torch.rand(4, dtype=torch.float64) + 0.1
    labels = torch.randint(4, (9,))
    exact = functional.cross_entropy(logits, labels, weights, label_smoothing=smoothing)
    for settings in (Loss("focal", 0.0, label_smoothing=smoothing), Loss("cross_entropy", label_smoothing=smoothing)):
        assert make_loss(settings, weights)(logits, labels) == exact
    near = make_loss(Loss("focal", 1e-9, label_smoothing=smoothing), weights)(logits, labels)
    assert near.item() == pytest.approx(exact.item(), rel=1e-6)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_certain_predictions_have_finite_gradients(gamma):
    """Below gamma = 1 the slope of (1 - p)^gamma has a pole at p = 1: one sure record would end a training."""
    logits = torch.tensor([[200.0, 0.0], [-200.0, 0.0]], requires_grad=True)
    loss = focal_loss(logits, torch.tensor([0, 0]), torch.ones(2), gamma=gamma)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("balanced", [10 / 18, 10 / 9, 10 / 3]),  # N / (K * n_i) with N = 10 and K = 3
        ("none", [1, 1, 1]),
        ({"c": 3.0, "a": 1.0, "merged": 9.0, "b": 2.0}, [1, 2, 3]),  # by label; some are for the other stage
    ],
    ids=str,
)
def test_class_weights(setting, expected):
    labels = np.array([0] * 6 + [1] * 3 + [2])
    np.testing.assert_allclose(class_weights(setting, labels, ["a", "b", "c"]), expected)


def test_a_label_without_a_weight():
    with pytest.raises(ConfigError, match=r"loss.class_weights: got no number for b; allowed: one for each of a, b"):
        class_weights({"a": 1.0}, np.array([0, 1]), ["a", "b"])

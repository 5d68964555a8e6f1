"""Losses against numbers worked out by hand, and against torch's own cross-entropy."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from spectro.classifiers.networks.losses import class_weights, focal_loss, make_loss
from spectro.classifiers.networks.settings import Loss
from spectro.errors import ConfigError


def logits_for(probabilities):
    return torch.tensor(probabilities, dtype=torch.float64).log()


def test_focal_loss_of_two_records_by_hand():
    """-w_y (1 - p_y)^gamma log p_y, summed, over the sum of w_y."""
    logits = logits_for([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4]])
    weights = torch.tensor([1.0, 3.0, 2.0], dtype=torch.float64)
    loss = focal_loss(logits, torch.tensor([0, 2]), weights, gamma=2.0)
    by_hand = (1 * 0.3**2 * -math.log(0.7) + 2 * 0.6**2 * -math.log(0.4)) / (1 + 2)
    assert loss.item() == pytest.approx(by_hand, rel=1e-12)


def test_smoothed_focal_loss_by_hand():
    """Every class counts with its share of the target, its weight, and its own distance from 1."""
    logits = logits_for([[0.7, 0.3]])
    weights = torch.tensor([1.0, 4.0], dtype=torch.float64)
    loss = focal_loss(logits, torch.tensor([0]), weights, gamma=1.0, label_smoothing=0.2)
    by_hand = 0.9 * 1 * 0.3 * -math.log(0.7) + 0.1 * 4 * 0.7 * -math.log(0.3)
    assert loss.item() == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gamma_zero_is_weighted_cross_entropy_exactly(smoothing):
    torch.manual_seed(0)
    logits, labels, weights = torch.randn(9, 4), torch.randint(4, (9,)), torch.rand(4) + 0.1
    ours = make_loss(Loss("focal", gamma=0.0, label_smoothing=smoothing), weights)(logits, labels)
    assert ours == functional.cross_entropy(logits, labels, weights, label_smoothing=smoothing)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_focal_formula_goes_over_into_cross_entropy(smoothing):
    """So that gamma = 0 is no other loss than its neighbours."""
    torch.manual_seed(0)
    logits, labels = torch.randn(9, 4, dtype=torch.float64), torch.randint(4, (9,))
    weights = torch.rand(4, dtype=torch.float64) + 0.1
    near = focal_loss(logits, labels, weights, gamma=1e-9, label_smoothing=smoothing)
    exact = functional.cross_entropy(logits, labels, weights, label_smoothing=smoothing)
    assert near.item() == pytest.approx(exact.item(), rel=1e-6)


def test_cross_entropy_has_no_gamma():
    torch.manual_seed(0)
    logits, labels, weights = torch.randn(5, 3), torch.randint(3, (5,)), torch.ones(3)
    ours = make_loss(Loss("cross_entropy", gamma=5.0), weights)(logits, labels)
    assert ours == functional.cross_entropy(logits, labels, weights)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_certain_predictions_have_finite_gradients(gamma):
    """Below gamma = 1 the slope of (1 - p)^gamma has a pole at p = 1: one sure record would end a training."""
    logits = torch.tensor([[200.0, 0.0], [-200.0, 0.0]], requires_grad=True)
    loss = focal_loss(logits, torch.tensor([0, 0]), torch.ones(2), gamma=gamma)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


class TestClassWeights:
    labels = np.array([0] * 6 + [1] * 3 + [2])

    def test_balanced_on_a_counted_set(self):
        """N / (K * n_i) with N = 10 and K = 3; records then weigh as many as there are."""
        weights = class_weights("balanced", self.labels, ["a", "b", "c"])
        np.testing.assert_allclose(weights, [10 / 18, 10 / 9, 10 / 3])
        assert weights[self.labels].sum() == pytest.approx(10)

    def test_none(self):
        np.testing.assert_array_equal(class_weights("none", self.labels, ["a", "b", "c"]), [1, 1, 1])

    def test_numbers_go_by_label(self):
        """Those of labels that only the other stage has are not for this one."""
        weights = class_weights({"c": 3.0, "a": 1.0, "merged": 9.0, "b": 2.0}, self.labels, ["a", "b", "c"])
        np.testing.assert_array_equal(weights, [1, 2, 3])

    def test_a_label_without_a_number(self):
        with pytest.raises(
            ConfigError, match=r"loss.class_weights: got no number for b; allowed: one for each of a, b"
        ):
            class_weights({"a": 1.0}, np.array([0, 1]), ["a", "b"])

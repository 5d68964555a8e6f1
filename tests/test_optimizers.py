"""Learning rate, and what is decayed."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from spectro.classifiers.networks.settings import Training
from spectro.classifiers.networks.training import lr_at, make_optimizer


def rates(steps, warmup, peak=1.0):
    return [lr_at(step, peak=peak, steps=steps, warmup=warmup) for step in range(steps)]


def test_warm_up_to_the_peak_and_a_cosine_to_nearly_nothing():
    """A first step of 0 would be a step without learning."""
    rising_falling = rates(104, 4)
    np.testing.assert_allclose(rising_falling[:5], [0.25, 0.5, 0.75, 1.0, 1.0])
    assert all(a > b for a, b in itertools.pairwise(rising_falling[4:]))
    assert rising_falling[54] == pytest.approx(0.5)
    assert 0 < rising_falling[-1] < 1e-3


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 1), (5, 5), (5, 0)])
def test_short_trainings(steps, warmup):
    """A rate of 0, or above the peak, in a training of few steps."""
    assert min(rates(steps, warmup, 2.0)) > 0
    assert max(rates(steps, warmup, 2.0)) == 2.0


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_biases_norms_and_frozen_weights_are_not_decayed(name):
    """Decay of a norm's scale changes what the configured weight_decay means."""
    network = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Linear(2, 2).requires_grad_(False))
    groups = make_optimizer(network, Training(optimizer=name, weight_decay=0.1), torch.device("cpu")).param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert [decay.get(id(p)) for p in network.parameters()] == [0.1, 0.0, 0.0, 0.0, None, None]

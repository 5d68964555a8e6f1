"""Losses of a batch, weighted by class."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor
from torch.nn import functional

from spectro.classifiers.networks.settings import Loss
from spectro.errors import ConfigError

# Logits (n, k) and column numbers (n,) -> the loss.
LossFunction = Callable[[Tensor, Tensor], Tensor]


def make_loss(settings: Loss, weights: Tensor) -> LossFunction:
    """The configured loss; ``weights`` is ``(k,)``, one number for each class."""
    gamma = settings.gamma if settings.name == "focal" else 0.0
    return partial(focal_loss, weights=weights, gamma=gamma, label_smoothing=settings.label_smoothing)


def focal_loss(
    logits: Tensor, labels: Tensor, weights: Tensor, *, gamma: float = 0.0, label_smoothing: float = 0.0
) -> Tensor:
    """Softmax focal loss (Lin et al., 2017, "Focal loss for dense object detection"), class-weighted.

    A record of class y with probabilities p has the loss ``sum_c q_c w_c (1 - p_c)^gamma (-log p_c)``, where q is 1 at
    y and 0 elsewhere, or with label smoothing e: ``1 - e + e/k`` at y and ``e/k`` elsewhere. The mean over a batch is
    weighted: the sum of the records' losses over the sum of their ``w_y``, as torch's cross-entropy takes it. With
    gamma = 0 it *is* torch's weighted cross-entropy.

    Args:
        logits: ``(n, k)``.
        labels: Column numbers ``(n,)``.
        weights: ``(k,)``.
        gamma: 0 or more.
        label_smoothing: e, from 0 to below 1.

    Returns:
        The weighted mean, a tensor without dimensions.
    """
    if gamma == 0:
        return functional.cross_entropy(logits, labels, weights, label_smoothing=label_smoothing)
    log_p = functional.log_softmax(logits, dim=1)
    targets = torch.zeros_like(log_p).scatter(1, labels[:, None], 1.0)
    targets = targets * (1 - label_smoothing) + label_smoothing / logits.shape[1]
    # 1 - p without cancellation; exactly 0 would have an infinite slope under an exponent below 1.
    wrong = (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).tiny)
    per_record = -(targets * weights * wrong**gamma * log_p).sum(dim=1)
    return per_record.sum() / weights[labels].sum()


def class_weights(setting: str | Mapping[str, float], labels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """A weight for each class.

    Args:
        setting: ``balanced``: N / (K * n_i) for a class with n_i of the N records, K classes; ``none``: 1; or numbers
            by label, of which those of other labels are not used.
        labels: The column numbers of the training records ``(N,)``, of every class.
        classes: The labels, K of them.

    Returns:
        Weights ``(K,)``.

    Raises:
        ConfigError: A label has no number.
    """
    if not isinstance(setting, Mapping):
        return compute_class_weight(None if setting == "none" else setting, classes=np.arange(len(classes)), y=labels)
    if missing := [label for label in classes if label not in setting]:
        raise ConfigError(
            f"loss.class_weights: got no number for {', '.join(missing)}; allowed: one for each of "
            f"{', '.join(classes)}, or balanced, or none"
        )
    return np.array([setting[label] for label in classes], dtype=float)

"""The base of the networks: a timm backbone, what is trained on it, and where it computes."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from spectro.classifiers.networks.device import Place

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Network(nn.Module, ABC):
    """Normalised images ``(n, 3, height, width)`` -> logits ``(n, k)``, fp32 both.

    Attributes:
        place: Device and precision.
    """

    def __init__(self) -> None:
        super().__init__()
        self.place = Place(torch.device("cpu"), "fp32")

    @property
    @abstractmethod
    def backbone(self) -> Any:
        """The timm model."""

    @abstractmethod
    def prepare(self, place: Place) -> None:
        """Moves to a device, and to its precision where weights are stored in it."""

    def effects(self, images: Tensor, labels: Tensor, others: Tensor) -> Tensor | None:
        """HiResCAM (Draelos and Carin, 2020): the places of images that raise one logit above another; in eval mode.

        A place counts with the sum over channels of its features times their gradient. Where the head is a mean over
        places and a linear layer, as in a ResNet, that is Grad-CAM (Selvaraju et al., 2017), and the sum over all
        places is the difference of the logits but for the biases.

        Args:
            images: ``(n, 3, height, width)``.
            labels: Column of the first logit, ``(n,)``.
            others: Column of the second one, ``(n,)``.

        Returns:
            ``(n, h, w)``, with their sign; None where the backbone's features are no grid.
        """
        return None

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel in the backbone's training, of pixels from 0 to 1."""
        cfg = getattr(self.backbone, "pretrained_cfg", None) or {}
        return cfg.get("mean") or _IMAGENET_MEAN, cfg.get("std") or _IMAGENET_STD

    @property
    def n_parameters(self) -> dict[str, int]:
        """Numbers that are trained, and all of them."""
        trainable = sum(p.numel() for p in self.parameters() if p.requires_grad)
        return {"trainable": trainable, "total": sum(p.numel() for p in self.parameters())}


def features_times_gradient(logits: Tensor, features: Tensor, labels: Tensor, others: Tensor) -> Tensor:
    """Of the margin between two logits; each record has its own."""
    margin = (logits.gather(1, labels[:, None]) - logits.gather(1, others[:, None])).sum()
    (gradient,) = torch.autograd.grad(margin, features)
    return (gradient * features).float().detach()

"""A convolutional timm model, whole or in part frozen."""

import re
from typing import Self

import torch
from torch import Tensor, nn

from spectro.classifiers.networks.device import Place
from spectro.errors import ConfigError


class Convolution(nn.Module):
    """A timm model with a head for our classes.

    Args:
        model: The model.
        freeze: ``none``: everything is trained; ``stem``: all but the stem, as timm delimits it; ``backbone``: the head
            alone.
    """

    def __init__(self, model: nn.Module, freeze: str):
        super().__init__()
        self.model = model
        self.place = Place(torch.device("cpu"), "fp32")
        if freeze == "backbone":
            model.requires_grad_(False)
            heads = model.get_classifier()  # type: ignore[operator]
            for head in heads if isinstance(heads, tuple) else (heads,):
                head.requires_grad_(True)
        elif freeze == "stem":
            stem = model.group_matcher(coarse=True)["stem"]  # type: ignore[operator]
            patterns = [stem] if isinstance(stem, str) else [s[0] if isinstance(s, tuple) else s for s in stem]
            frozen = [p for name, p in model.named_parameters() if any(re.match(pattern, name) for pattern in patterns)]
            if not frozen:
                raise ConfigError("cnn.freeze: got 'stem', but timm names no stem of this backbone; allowed: none")
            for parameter in frozen:
                parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Training mode for what is trained: the running statistics of frozen batch norms stay where they are."""
        super().train(mode)
        for module in self.modules():
            parameters = list(module.parameters())
            if parameters and not any(p.requires_grad for p in parameters):
                module.eval()
        return self

    def prepare(self, place: Place) -> None:
        """Moves to a device, in the order of memory in which convolutions are fastest."""
        self.place = place
        self.to(place.device).to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images ``(n, 3, height, width)`` -> logits ``(n, k)``, fp32 both."""
        with self.place.autocast():
            return self.model(images).float()

"""A convolutional timm model, whole or in part frozen."""

import re
from typing import Any, Self

import torch
from torch import Tensor, nn

from spectro.classifiers.networks.device import Place
from spectro.classifiers.networks.module import Network, features_times_gradient
from spectro.errors import ConfigError


class Convolution(Network):
    """A timm model with a new head.

    Args:
        model: The model.
        freeze: ``none``: everything is trained; ``stem``: all but the stem, as timm delimits it; ``backbone``: the head
            alone.
    """

    def __init__(self, model: nn.Module, freeze: str):
        super().__init__()
        self.model = model
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

    @property
    def backbone(self) -> Any:
        """The timm model, its head included."""
        return self.model

    def train(self, mode: bool = True) -> Self:
        """Training mode for what is trained: running statistics of frozen batch norms do not change."""
        super().train(mode)
        for module in self.modules():
            parameters = list(module.parameters())
            if parameters and not any(p.requires_grad for p in parameters):
                module.eval()
        return self

    def prepare(self, place: Place) -> None:
        """Moves to a device, in the memory format in which convolutions are fastest."""
        self.place = place
        self.to(place.device).to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images ``(n, 3, height, width)`` -> logits ``(n, k)``, fp32 both."""
        with self.place.autocast():
            return self.model(images).float()

    def effects(self, images: Tensor, labels: Tensor, others: Tensor) -> Tensor | None:
        """At the end of the backbone, see `Network.effects`."""
        with torch.no_grad(), self.place.autocast():
            features = self.backbone.forward_features(images)
        if not isinstance(features, Tensor) or features.ndim != 4:
            return None
        features = features.detach().float().requires_grad_()
        effects = features_times_gradient(self.backbone.forward_head(features), features, labels, others)
        # Some backbones have channels last.
        return effects.sum(dim=1 if features.shape[1] == self.backbone.num_features else -1)

"""Networks: a timm backbone, what is trained on it, and where it computes."""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from spectro.classifiers.networks.device import Place
from spectro.errors import ConfigError

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Network(nn.Module, ABC):
    """Normalised images ``(n, 3, height, width)`` -> logits ``(n, k)``, fp32 both.

    Images -> `frozen`, which training never changes -> `features`, the inputs of the head -> logits.

    Args:
        backbone: The timm model, without a head.
        blocks: Number of inputs of the head of each kind, and their weight, see `standardisation`.
        num_classes: Outputs of the head.
        dropout: Of the inputs of the head, each value of each record.

    Attributes:
        head: Linear.
        mean: Subtracted from each input of the head, ``(d,)``; 0 until `standardise` is called.
        scale: By which it is then multiplied, ``(d,)``; 1 until `standardise` is called.
        place: Device and precision.
    """

    mean: Tensor
    scale: Tensor
    place = Place(torch.device("cpu"), "fp32")

    def __init__(self, backbone: Any, blocks: Sequence[tuple[int, float]], num_classes: int, dropout: float = 0.0):
        super().__init__()
        self.backbone, self.blocks = backbone, tuple(blocks)
        d = sum(size for size, _ in blocks)
        self.register_buffer("mean", torch.zeros(d))
        self.register_buffer("scale", torch.ones(d))
        self.head_dropout = nn.Dropout(dropout)
        self.head = nn.Linear(d, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images ``(n, 3, height, width)`` -> logits ``(n, k)``, fp32 both."""
        return self.forward_from(self.frozen(images))

    def features(self, images: Tensor) -> Tensor:
        """The inputs of the head before dropout, ``(n, d)``, fp32."""
        return self.features_from(self.frozen(images))

    def forward_from(self, frozen: Tensor) -> Tensor:
        """What `frozen` gives -> logits ``(n, k)``, fp32."""
        return self.head(self.head_dropout(self.features_from(frozen)))

    def features_from(self, frozen: Tensor) -> Tensor:
        """What `frozen` gives -> the inputs of the head before dropout, ``(n, d)``, fp32."""
        return (self.inputs_from(frozen) - self.mean) * self.scale

    def frozen(self, images: Tensor) -> Tensor:
        """What everything before the first trained part gives for images; the images where nothing is frozen."""
        return images

    @abstractmethod
    def inputs_from(self, frozen: Tensor) -> Tensor:
        """`features_from` before they are standardised."""

    def standardise(self, mean: Tensor, scale: Tensor) -> None:
        """Sets the fixed affine map before the head, ``(d,)`` both: features become ``(features - mean) * scale``."""
        self.mean.copy_(mean)
        self.scale.copy_(scale)

    def standardisation(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and scale ``(d,)`` that give each block of features ``(n, d)`` its weight squared as total variance.

        One number scales a whole block: values that vary little over the records stay small.
        """
        scales = [
            weight / part.var(dim=0, correction=0).sum().sqrt().clamp_min(1e-6).expand(size)
            for part, (size, weight) in zip(features.split([n for n, _ in self.blocks], 1), self.blocks, strict=True)
        ]
        return features.mean(dim=0), torch.cat(scales)

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


class Convolution(Network):
    """A convolutional timm model, whole or in part frozen.

    Args:
        model: The model, without a head.
        num_classes: Outputs of the head.
        freeze: ``none``: everything is trained; ``stem``: all but the stem, as timm delimits it; ``backbone``: the head
            alone.
    """

    def __init__(self, model: Any, num_classes: int, freeze: str):
        super().__init__(model, [(model.head_hidden_size, 1.0)], num_classes)
        if freeze == "backbone":
            model.requires_grad_(False)
        elif freeze == "stem":
            stem = model.group_matcher(coarse=True)["stem"]
            patterns = [stem] if isinstance(stem, str) else [s[0] if isinstance(s, tuple) else s for s in stem]
            frozen = [p for name, p in model.named_parameters() if any(re.match(pattern, name) for pattern in patterns)]
            if not frozen:
                raise ConfigError("cnn.freeze: got 'stem', but timm names no stem of this backbone; allowed: none")
            for parameter in frozen:
                parameter.requires_grad_(False)

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

    def inputs_from(self, frozen: Tensor) -> Tensor:
        """As the base class states."""
        with self.place.autocast():
            return self.backbone(frozen).float()

    def effects(self, images: Tensor, labels: Tensor, others: Tensor) -> Tensor | None:
        """At the end of the backbone, see `Network.effects`."""
        with torch.no_grad(), self.place.autocast():
            features = self.backbone.forward_features(images)
        if not isinstance(features, Tensor) or features.ndim != 4:
            return None
        features = features.detach().float().requires_grad_()
        inputs = self.backbone.forward_head(features, pre_logits=True)
        effects = features_times_gradient(self.head((inputs - self.mean) * self.scale), features, labels, others)
        # Some backbones have channels last.
        return effects.sum(dim=1 if features.shape[1] == self.backbone.num_features else -1)


def features_times_gradient(logits: Tensor, features: Tensor, labels: Tensor, others: Tensor) -> Tensor:
    """Of the margin between two logits; each record has its own."""
    margin = (logits.gather(1, labels[:, None]) - logits.gather(1, others[:, None])).sum()
    (gradient,) = torch.autograd.grad(margin, features)
    return (gradient * features).float().detach()

"""Convolutional networks: transfer learning from a timm backbone."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from spectro.classifiers.networks.network import NetworkClassifier
from spectro.classifiers.networks.settings import Training
from spectro.classifiers.registry import register_family

if TYPE_CHECKING:
    from spectro.classifiers.networks.module import Network


@register_family("cnn")
@dataclass(eq=False, kw_only=True, repr=False)
class CnnClassifier(NetworkClassifier):
    """A timm convolutional backbone with a new head.

    Args:
        backbone: timm's name of the backbone.
        backbone_options: timm's own arguments of it, e.g. ``{"drop_rate": 0.1}``.
        pretrained: Start from pretrained weights; without, from random ones.
        weights: A safetensors or torch file of them, with a head of any size; None: timm downloads them.
        freeze: ``none``, ``stem`` or ``backbone``: what is not trained. Frozen batch norms keep their statistics.
        size_px: Height and width of the images.
        image_fit: ``squash``, ``center_crop`` or ``pad``.
        training: How it is trained.
        loss: The loss function.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        seed: Of all random numbers.
    """

    backbone: Annotated[str, Field(min_length=1)] = "resnet18.tv_in1k"
    freeze: Literal["none", "stem", "backbone"] = "none"
    image_fit: Annotated[Literal["squash", "center_crop", "pad"], "{family}.fit"] = "squash"
    training: Annotated[Training, "train"] = field(
        default_factory=lambda: Training(optimizer="adam", warmup_epochs=0.0, patience=None)
    )

    def _build(self, num_classes: int, *, empty: bool) -> "tuple[Network, dict[str, str | None]]":
        from spectro.classifiers.networks.convolution import Convolution

        model, origin = self._backbone(num_classes, empty=empty)
        return Convolution(model, self.freeze), origin

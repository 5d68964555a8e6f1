"""Convolutional networks: transfer learning from a timm backbone."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from spectro.classifiers.networks.network import NetworkClassifier
from spectro.classifiers.networks.settings import BackboneKnobs, Loss, NetworkKnobs, Training

if TYPE_CHECKING:
    from torch import Tensor, nn


_TRAINING = Training(optimizer="adam", lr=1e-3, epochs=30, warmup_epochs=0.0, patience=None)
_LOSS = Loss()


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
        loss: What is made small.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        seed: Of everything random.
    """

    family: ClassVar[str] = "cnn"
    section: ClassVar[str] = "cnn"
    _places_are: ClassVar[str] = "Grad-CAM"

    def __init__(
        self,
        *,
        backbone: str = "resnet18.tv_in1k",
        backbone_options: Mapping[str, Any] | None = None,
        pretrained: bool = True,
        weights: str | None = None,
        freeze: str = "none",
        size_px: int = 224,
        image_fit: Literal["squash", "center_crop", "pad"] = "squash",
        training: Training = _TRAINING,
        loss: Loss = _LOSS,
        device: str = "auto",
        seed: int = 0,
    ):
        self.backbone = backbone
        self.backbone_options = backbone_options
        self.pretrained = pretrained
        self.weights = weights
        self.freeze = freeze
        self.size_px = size_px
        self.image_fit = image_fit
        self.training = training
        self.loss = loss
        self.device = device
        self.seed = seed

    def _build(self, num_classes: int, *, empty: bool) -> "tuple[nn.Module, dict[str, str | None]]":
        from spectro.classifiers.networks.convolution import Convolution
        from spectro.classifiers.networks.weights import create

        model, origin = create(self._backbone(), num_classes, empty=empty)
        return Convolution(model, self.freeze), origin

    def _places(self, images: "Tensor", labels: "Tensor", others: "Tensor") -> "Tensor | None":
        from spectro.classifiers.networks.gradients import grad_cam

        return grad_cam(self.network_, images, labels, others)  # type: ignore[arg-type]


class CnnKnobs(BackboneKnobs):
    """The network."""

    freeze: Literal["none", "stem", "backbone"]


class Knobs(NetworkKnobs):
    """What a user can set under ``model=resnet18``."""

    cnn: CnnKnobs

    def build(self, seed: int) -> CnnClassifier:
        """The unfitted classifier."""
        return CnnClassifier(**self.arguments(self.cnn, seed))


CLASSIFIER = CnnClassifier

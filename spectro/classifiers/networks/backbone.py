"""The parameters of a timm backbone, whatever is made of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from spectro.classifiers.base import ImageClassifier
from spectro.data.decode import ImageSpec
from spectro.errors import ModelError

if TYPE_CHECKING:
    from torch import nn


@dataclass(eq=False, kw_only=True, repr=False)
class BackboneParams(ImageClassifier):
    """A family on a timm backbone.

    Args:
        backbone: timm's name of the backbone.
        backbone_options: timm's own arguments of it, e.g. ``{"drop_rate": 0.1}``.
        pretrained: Start from pretrained weights; without, from random ones.
        weights: A safetensors or torch file of them, with a head of any size; None: timm downloads them.
        size_px: Height and width of the images.
        image_fit: ``squash``, ``center_crop`` or ``pad``, as in `ImageSpec`.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
    """

    backbone: Annotated[str, Field(min_length=1)]
    backbone_options: dict[str, Any] | None = None
    pretrained: bool = True
    weights: str | None = None
    size_px: Annotated[int, Field(ge=16, le=1024)] = 112
    image_fit: Annotated[Literal["squash", "center_crop", "pad"], "{family}.fit"] = "squash"
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], "device"] = "auto"

    def contradictions(self) -> list[tuple[str, str]]:
        """A file of weights is for a pretrained network."""
        if self.weights is None or self.pretrained:
            return []
        text = f"got {self.weights!r}; allowed: null, as {self.family}.pretrained=false starts from random weights"
        return [(f"{self.family}.weights", text)]

    @property
    def specs(self) -> list[ImageSpec]:
        """Colour squares."""
        return [ImageSpec(self.size_px, "RGB", self.image_fit)]

    def _check_weights(self) -> None:
        """Raises a ModelError if the file is not there, before the seconds that torch and timm take to be imported."""
        if self.weights is not None and not Path(self.weights).expanduser().is_file():
            raise ModelError(
                f"{self.family}.weights: got {self.weights!r}, no such file; allowed: a safetensors or torch "
                f"file of the weights of {self.backbone}"
            )

    def _backbone(self, *, empty: bool, **options: Any) -> "tuple[nn.Module, dict[str, str | None]]":
        """The timm model without a head, see `weights.create`; `backbone_options` override ``options``."""
        from spectro.classifiers.networks.weights import create

        return create(
            self.backbone,
            0,
            family=self.family,
            options=options | (self.backbone_options or {}),
            pretrained=self.pretrained and not empty,
            weights=self.weights,
        )

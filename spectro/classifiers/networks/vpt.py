"""Visual prompt tuning: a frozen vision transformer that is told by a few learned tokens what to look for."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from spectro.classifiers.networks.network import NetworkClassifier
from spectro.classifiers.networks.settings import Training
from spectro.classifiers.registry import register_family
from spectro.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn


@register_family("vpt")
@dataclass(eq=False, kw_only=True, repr=False)
class VptClassifier(NetworkClassifier):
    """Visual prompt tuning (Jia et al., 2022) of a timm vision transformer: prompts and head are trained, little else.

    Args:
        variant: ``shallow``: prompts enter the first block; ``deep``: every block has its own.
        prompt_length: How many prompts.
        prompt_dropout: Share of prompt values that are left out in training.
        prompt_projection: Width of the prompts where it is not that of the tokens; None: it is.
        backbone: timm's name of the backbone.
        backbone_options: timm's own arguments of it.
        pretrained: Start from pretrained weights; without, from random ones.
        weights: A safetensors or torch file of them, with a head of any size; None: timm downloads them.
        size_px: Height and width of the images.
        image_fit: ``squash``, ``center_crop`` or ``pad``.
        training: How it is trained.
        loss: What is made small.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        seed: Of everything random.
    """

    _places_are: ClassVar[str] = "HiResCAM"

    variant: Literal["shallow", "deep"] = "shallow"
    prompt_length: Annotated[int, Field(ge=0, le=1000)] = 10
    prompt_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    prompt_projection: Annotated[int, Field(ge=1)] | None = None
    backbone: Annotated[str, Field(min_length=1)] = "deit_small_patch16_224"
    image_fit: Annotated[Literal["squash", "center_crop", "pad"], "{family}.fit"] = "center_crop"
    training: Annotated[Training, "train"] = field(
        default_factory=lambda: Training(lr=5e-3, weight_decay=1e-4, warmup_epochs=2.0)
    )

    def _build(self, num_classes: int, *, empty: bool) -> "tuple[nn.Module, dict[str, str | None]]":
        from timm.models.vision_transformer import VisionTransformer

        from spectro.classifiers.networks.prompts import PromptedViT
        from spectro.classifiers.networks.weights import create

        vit, origin = create(self._backbone(img_size=self.size_px), 0, empty=empty)
        if not isinstance(vit, VisionTransformer):
            raise ConfigError(f"vpt.backbone: got {self.backbone!r}; allowed: a timm VisionTransformer")
        network = PromptedViT(
            vit,
            num_classes,
            deep=self.variant == "deep",
            length=self.prompt_length,
            dropout=self.prompt_dropout,
            projection=self.prompt_projection,
        )
        return network, origin

    def _places(self, images: "Tensor", labels: "Tensor", others: "Tensor") -> "Tensor | None":
        from spectro.classifiers.networks.attribution import vit_effects

        return vit_effects(self.network_, images, labels, others)  # type: ignore[arg-type]

"""Visual prompt tuning: a frozen vision transformer that is told by a few learned tokens what to look for."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from spectro.classifiers.networks.network import NetworkClassifier
from spectro.classifiers.networks.settings import BackboneKnobs, Loss, NetworkKnobs, Training
from spectro.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn


_TRAINING = Training(lr=5e-3, weight_decay=1e-4, warmup_epochs=2.0)
_LOSS = Loss()


class VptClassifier(NetworkClassifier):
    """Visual prompt tuning (Jia et al., 2022) of a timm vision transformer: prompts and head are trained, little else.

    Args:
        variant: ``shallow``: prompts enter the first block; ``deep``: every block has its own.
        prompt_length: How many prompts.
        prompt_dropout: Share of prompt values that are left out in training.
        prompt_projection: Width of the prompts where it is not that of the tokens; None: it is.
        unfreeze_blocks: So many of the last blocks are trained as well.
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

    family: ClassVar[str] = "vpt"
    section: ClassVar[str] = "vpt"
    _places_are: ClassVar[str] = "gradient-weighted attention"

    def __init__(
        self,
        *,
        variant: str = "shallow",
        prompt_length: int = 10,
        prompt_dropout: float = 0.0,
        prompt_projection: int | None = None,
        unfreeze_blocks: int = 0,
        backbone: str = "deit_small_patch16_224",
        backbone_options: Mapping[str, Any] | None = None,
        pretrained: bool = True,
        weights: str | None = None,
        size_px: int = 224,
        image_fit: Literal["squash", "center_crop", "pad"] = "center_crop",
        training: Training = _TRAINING,
        loss: Loss = _LOSS,
        device: str = "auto",
        seed: int = 0,
    ):
        self.variant = variant
        self.prompt_length = prompt_length
        self.prompt_dropout = prompt_dropout
        self.prompt_projection = prompt_projection
        self.unfreeze_blocks = unfreeze_blocks
        self.backbone = backbone
        self.backbone_options = backbone_options
        self.pretrained = pretrained
        self.weights = weights
        self.size_px = size_px
        self.image_fit = image_fit
        self.training = training
        self.loss = loss
        self.device = device
        self.seed = seed

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
            unfreeze_blocks=self.unfreeze_blocks,
        )
        return network, origin

    def _places(self, images: "Tensor", labels: "Tensor", others: "Tensor") -> "Tensor | None":
        from spectro.classifiers.networks.gradients import relevance

        return relevance(self.network_, images, labels, others)  # type: ignore[arg-type]


class VptKnobs(BackboneKnobs):
    """The network."""

    variant: Literal["shallow", "deep"]
    prompt_length: Annotated[int, Field(ge=0, le=1000)]
    prompt_dropout: Annotated[float, Field(ge=0, lt=1)]
    prompt_projection: Annotated[int, Field(ge=1)] | None
    unfreeze_blocks: Annotated[int, Field(ge=0)]


class Knobs(NetworkKnobs):
    """What a user can set under ``model=deit_vpt``."""

    vpt: VptKnobs

    def build(self, seed: int) -> VptClassifier:
        """The unfitted classifier."""
        return VptClassifier(**self.arguments(self.vpt, seed))


CLASSIFIER = VptClassifier

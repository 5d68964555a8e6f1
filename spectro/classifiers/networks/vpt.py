"""Visual prompt tuning: a frozen vision transformer with a few trained tokens."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from spectro.classifiers.networks.network import NetworkClassifier
from spectro.classifiers.networks.settings import Training
from spectro.classifiers.registry import register_family
from spectro.errors import ConfigError

if TYPE_CHECKING:
    from spectro.classifiers.networks.module import Network


@register_family("vpt")
@dataclass(eq=False, kw_only=True, repr=False)
class VptClassifier(NetworkClassifier):
    """Visual prompt tuning (Jia et al., 2022) of a timm vision transformer: prompts and head are trained, little else.

    Args:
        variant: ``shallow``: prompts enter one block; ``deep``: every block from there on has its own.
        pool: ``token``: the backbone's own pooling; ``grid``: means of the patches over the cells of a grid.
        blocks: How many blocks of the backbone are used; None: all.
        first_block: The block that prompts enter, from 0; what those before it give is computed once for each image.
        prompt_length: Number of prompts.
        prompt_dropout: Share of prompt values that are left out in training.
        backbone: And all others: see `NetworkClassifier`.
    """

    variant: Literal["shallow", "deep"] = "shallow"
    pool: Literal["token", "grid"] = "token"
    blocks: Annotated[int, Field(ge=1)] | None = None
    first_block: Annotated[int, Field(ge=0)] = 0
    prompt_length: Annotated[int, Field(ge=0, le=1000)] = 10
    prompt_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    backbone: Annotated[str, Field(min_length=1)] = "deit_small_patch16_224"
    training: Annotated[Training, "train"] = field(
        default_factory=lambda: Training(lr=5e-3, weight_decay=1e-4, epochs=15, warmup_epochs=2.0)
    )

    def _build(self, num_classes: int, *, empty: bool) -> "tuple[Network, dict[str, Any]]":
        from spectro.classifiers.networks.prompts import PromptedViT, Transformer

        vit, origin = self._backbone(empty=empty)
        if not isinstance(vit, Transformer):
            raise ConfigError(f"vpt.backbone: got {self.backbone!r}; allowed: a timm VisionTransformer, Eva or Beit")
        prompts: Any = {"deep": self.variant == "deep", "length": self.prompt_length, "dropout": self.prompt_dropout}
        blocks: Any = {"blocks": self.blocks, "first_block": self.first_block}
        return PromptedViT(vit, num_classes, **prompts, **blocks, **self._head), origin

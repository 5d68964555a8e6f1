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
        freeze: ``none``, ``stem`` or ``backbone``: what is not trained. Frozen batch norms keep their statistics.
        backbone: And all others: see `NetworkClassifier`.
    """

    backbone: Annotated[str, Field(min_length=1)] = "resnet18.tv_in1k"
    freeze: Literal["none", "stem", "backbone"] = "none"
    training: Annotated[Training, "train"] = field(
        default_factory=lambda: Training(optimizer="adam", warmup_epochs=0.0, patience=None)
    )

    def _build(self, num_classes: int, *, empty: bool) -> "tuple[Network, dict[str, str | None]]":
        from spectro.classifiers.networks.module import Convolution

        model, origin = self._backbone(empty=empty)
        return Convolution(model, num_classes, self.freeze), origin

"""Convolutional networks: transfer learning from a timm backbone."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
        pool: ``avg``: the backbone's own pooling; ``grid``: means over the cells of a grid.
        stages: How many stages of the backbone are used; None: all. The third one of a ResNet ends at stride 16.
        freeze: What is not trained: ``none``; ``stem``, as timm delimits it; ``backbone``: all but the head; or a
            number of stages, with the stem.
        freeze_norm: Whether batch norms keep the backbone's statistics though their weights are trained; None: if it is
            pretrained.
        backbone: And all others: see `NetworkClassifier`.
    """

    backbone: Annotated[str, Field(min_length=1)] = "resnet18.tv_in1k"
    pool: Literal["avg", "grid"] = "avg"
    stages: Annotated[int, Field(ge=1)] | None = None
    freeze: Literal["none", "stem", "backbone"] | Annotated[int, Field(ge=1)] = "none"
    freeze_norm: bool | None = None
    training: Annotated[Training, "train"] = field(
        default_factory=lambda: Training(optimizer="adam", lr=3e-4, head_lr=1e-4, warm_start="probe", warmup_epochs=0.0)
    )

    def _build(self, num_classes: int, *, empty: bool) -> "tuple[Network, dict[str, Any]]":
        from spectro.classifiers.networks.module import Convolution

        model, origin = self._backbone(empty=empty)
        size, freeze_norm = self.specs[0].shape[:2], self.pretrained if self.freeze_norm is None else self.freeze_norm
        frozen: Any = {"freeze": self.freeze, "freeze_norm": freeze_norm}
        return Convolution(model, num_classes, size, stages=self.stages, **frozen, **self._head), origin

"""What can be set about the training of a network, for Python and for configuration files."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from spectro.knobs import Section


@dataclass(frozen=True)
class Training:
    """How a network is trained.

    Attributes:
        optimizer: ``adam``, ``adamw`` or ``sgd`` (momentum 0.9).
        lr: Learning rate at the end of the warm-up.
        weight_decay: For weights of two or more dimensions; biases and norms are not decayed.
        batch_size: Records in a step at most; an epoch is cut into steps of nearly equal size.
        epochs: Times through the training records at most.
        warmup_epochs: Over so many epochs the learning rate rises; then it falls to 0 along a cosine.
        patience: Training ends after so many epochs without a better val macro-F1; None: it does not.
        oversample: Repeat the records of rare classes until every class has as many as the largest.
        precision: ``fp32``, ``bf16``, or ``auto``: bf16 where the device is faster with it.
        compile: ``auto``, ``always`` or ``never``: torch.compile, which takes up to a minute.
    """

    optimizer: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.0
    batch_size: int = 16
    epochs: int = 30
    warmup_epochs: float = 1.0
    patience: int | None = 10
    oversample: bool = False
    precision: str = "auto"
    compile: str = "auto"


@dataclass(frozen=True)
class Loss:
    """What training makes small; the formulas stand in `spectro.classifiers.networks.losses`.

    Attributes:
        name: ``focal`` or ``cross_entropy``.
        gamma: Of the focal loss: how much less a record counts that is right already.
        class_weights: ``balanced``, ``none``, or a number for each label.
        label_smoothing: Share of the target that is spread evenly over all classes.
    """

    name: str = "cross_entropy"
    gamma: float = 2.0
    class_weights: str | Mapping[str, float] = "balanced"
    label_smoothing: float = 0.0


class TrainKnobs(Section):
    """The training."""

    optimizer: Literal["adam", "adamw", "sgd"]
    lr: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    batch_size: Annotated[int, Field(ge=1)]
    epochs: Annotated[int, Field(ge=1)]
    warmup_epochs: Annotated[float, Field(ge=0)]
    patience: Annotated[int, Field(ge=1)] | None
    oversample: bool
    precision: Literal["auto", "bf16", "fp32"]
    compile: Literal["auto", "always", "never"]

    @property
    def settings(self) -> Training:
        """As a classifier takes it."""
        return Training(**self.model_dump())


class LossKnobs(Section):
    """The loss."""

    name: Literal["focal", "cross_entropy"]
    gamma: Annotated[float, Field(ge=0)]
    class_weights: Literal["balanced", "none"] | dict[str, Annotated[float, Field(ge=0)]]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]

    @property
    def settings(self) -> Loss:
        """As a classifier takes it."""
        return Loss(**self.model_dump())


class BackboneKnobs(Section):
    """What both network families can set about their backbone."""

    backbone: Annotated[str, Field(min_length=1)]
    backbone_options: dict[str, Any] | None
    pretrained: bool
    weights: str | None
    size_px: Annotated[int, Field(ge=16, le=1024)]
    fit: Literal["squash", "center_crop", "pad"]

    @field_validator("weights")
    @classmethod
    def _are_used(cls, weights: str | None, info: ValidationInfo) -> str | None:
        if weights is not None and info.data.get("pretrained") is False:
            raise ValueError("null, as pretrained=false starts from random weights")
        return weights


class NetworkKnobs(Section):
    """What both network families can set beside their own section."""

    draws_variants: ClassVar[bool] = True

    train: TrainKnobs
    loss: LossKnobs
    device: Literal["auto", "cpu", "cuda", "mps"]

    def arguments(self, own: BackboneKnobs, seed: int) -> dict[str, Any]:
        """The classifier's keyword arguments; ``own`` is the family's section."""
        values = own.model_dump()
        return {
            "image_fit": values.pop("fit"),
            **values,
            "training": self.train.settings,
            "loss": self.loss.settings,
            "device": self.device,
            "seed": seed,
        }

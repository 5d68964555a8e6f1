"""Training and loss of a network: their parameters, as scikit-learn's tools and configuration files set them."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field
from sklearn.base import BaseEstimator


@dataclass(repr=False)
class Training(BaseEstimator):
    """How a network is trained.

    Args:
        optimizer: ``adam``, ``adamw`` or ``sgd`` (momentum 0.9).
        lr: Learning rate at the end of the warm-up.
        head_lr: The same of the head; None: as all others.
        warm_start: ``probe``: the head starts as a regularised logistic regression on the features before training, and
            keeps its regularisation; ``none``: from random numbers.
        weight_decay: For weights of two or more dimensions; biases and norms are not decayed.
        batch_size: Maximum number of records in a step; an epoch is cut into steps of nearly equal size.
        epochs: Maximum number of epochs.
        warmup_epochs: Epochs over which the learning rate rises; then it falls to 0 along a cosine.
        select: The weights of which epoch are taken: ``last``; ``best``, by val; or ``average``, of several last
            ones (P. Izmailov et al., 2018, "Averaging weights leads to wider optima and better generalization").
        average_last: Of how many epochs the mean is.
        patience: For the best, training ends after so many epochs without a better val macro-F1; None: never.
        precision: ``fp32``, ``bf16``, or ``auto``: bf16 where the device is faster with it.
        compile: ``auto``, ``always`` or ``never``: torch.compile, which takes up to a minute.
    """

    optimizer: Literal["adam", "adamw", "sgd"] = "adamw"
    lr: Annotated[float, Field(gt=0)] = 1e-3
    head_lr: Annotated[float, Field(gt=0)] | None = None
    warm_start: Literal["none", "probe"] = "none"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    batch_size: Annotated[int, Field(ge=1)] = 16
    epochs: Annotated[int, Field(ge=1)] = 12
    warmup_epochs: Annotated[float, Field(ge=0)] = 1.0
    select: Literal["last", "best", "average"] = "last"
    average_last: Annotated[int, Field(ge=1)] = 5
    patience: Annotated[int, Field(ge=1)] | None = None
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    compile: Literal["auto", "always", "never"] = "auto"


@dataclass(repr=False)
class Loss(BaseEstimator):
    """The loss function; the formulas stand in `spectro.classifiers.networks.losses`.

    Args:
        name: ``focal`` or ``cross_entropy``.
        gamma: Focusing parameter of the focal loss; 0 is cross-entropy.
        class_weights: ``balanced``, ``none``, or a number for each label.
        label_smoothing: Share of the target that is spread evenly over all classes.
    """

    name: Literal["focal", "cross_entropy"] = "cross_entropy"
    gamma: Annotated[float, Field(ge=0)] = 2.0
    class_weights: Literal["balanced", "none"] | dict[str, Annotated[float, Field(ge=0)]] = "balanced"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0

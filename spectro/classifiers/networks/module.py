"""Networks: a timm backbone, what is trained on it, and where it computes."""

import hashlib
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Self

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from spectro.classifiers.networks.device import Place
from spectro.classifiers.networks.weights import normalisation
from spectro.errors import ConfigError

_LUMA = (0.299, 0.587, 0.114)
# Standard deviation of a thumbnail beside that of the backbone's features, which is 1: more costs on new speakers.
_PIXELS_WEIGHT = 0.2
# Stride at which the first stage of a convolutional backbone ends; what comes before is its stem.
_FIRST_STRIDE = 4
# Images in which a processor computes what is frozen, always as many: in batches of another size a product of matrices
# may be rounded differently.
_CHUNK = 8


class Network(nn.Module, ABC):
    """Normalised images ``(n, 3, height, width)`` -> logits ``(n, k)``, fp32 both.

    Images -> `frozen`, which training never changes -> `features`, the inputs of the head -> logits.

    Args:
        backbone: The timm model, without a head.
        n_features: Features of the backbone that the head reads.
        frozen_shape: What `prefix` gives for one image, where it holds a large part of the network that training never
            changes; None: `frozen` gives the images.
        pixels: Width and height of a grey thumbnail whose pixels the head reads beside the features; None: none.
        head_dropout: Of the inputs of the head, each value of each record.

    Attributes:
        blocks: Number of inputs of the head of each kind, and their weight, see `standardise`.
        mean: Subtracted from each input of the head, ``(d,)``; 0 until `standardise` is called.
        ridge: Of the head's weights, whose sum of squares times this is added to the loss of each step.
        scale: By which it is then multiplied, ``(d,)``; 1 until `standardise` is called.
        place: Device and precision.
        name: Names what the backbone was made of.
    """

    mean: Tensor
    scale: Tensor
    ridge: Tensor
    place = Place(torch.device("cpu"), "fp32")
    name = ""
    grid: Sequence[int] | None = None

    def __init__(
        self, backbone: Any, num_classes: int, n_features: int, frozen_shape: Any, pixels: Any, head_dropout: float
    ):
        super().__init__()
        self.backbone, self.frozen_shape, self.pixels = backbone, frozen_shape, pixels
        self.blocks = [(n_features, 1.0), *([(math.prod(pixels), _PIXELS_WEIGHT)] if pixels else [])]
        d = sum(size for size, _ in self.blocks)
        self.register_buffer("mean", torch.zeros(d))
        self.register_buffer("scale", torch.ones(d))
        self.register_buffer("ridge", torch.zeros(()))
        self.head_dropout = nn.Dropout(head_dropout)
        self.head = nn.Linear(d, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images ``(n, 3, height, width)`` -> logits ``(n, k)``, fp32 both."""
        return self.forward_from(self.frozen(images))

    def forward_from(self, frozen: Tensor) -> Tensor:
        """What `frozen` gives -> logits ``(n, k)``, fp32."""
        return self.head(self.head_dropout(self.features_from(frozen)))

    def features_from(self, frozen: Tensor) -> Tensor:
        """What `frozen` gives -> the inputs of the head before dropout, ``(n, d)``, fp32."""
        if self.frozen_shape is None:
            values, thumbnails = self.prefix(frozen), self.thumbnails(frozen)
        else:
            values, thumbnails = frozen.tensor_split([math.prod(self.frozen_shape)], dim=1)
            values = values.unflatten(1, self.frozen_shape)
        return self._standardised(self.rest(values).float(), thumbnails)

    def frozen(self, images: Tensor) -> Tensor:
        """What everything before the first trained part gives for images, ``(n, values and thumbnail)``, fp32.

        The images themselves where nothing is frozen. On a processor the values of an image are the same to the last
        bit whatever others are beside it.
        """
        if self.frozen_shape is None:
            return images
        n, size = len(images), _CHUNK if images.device.type == "cpu" else max(len(images), 1)
        with torch.no_grad():
            padded = functional.pad(images, (0, 0, 0, 0, 0, 0, 0, -n % size))
            chunks = (chunk.contiguous(memory_format=torch.channels_last) for chunk in padded.split(size))
            values = torch.cat([self.prefix(chunk).flatten(1).float() for chunk in chunks])[:n]
            return torch.cat([values, self.thumbnails(images)], dim=1)

    @abstractmethod
    def prefix(self, images: Tensor) -> Tensor:
        """The part of the backbone before the first trained one: images -> ``(n, *frozen_shape)``."""

    @abstractmethod
    def rest(self, values: Tensor) -> Tensor:
        """The rest of the backbone: what `prefix` gives -> features ``(n, n_features)``."""

    @abstractmethod
    def prefix_state(self) -> Iterator[tuple[str, Tensor]]:
        """Everything that `prefix` depends on, by name."""

    def thumbnails(self, images: Tensor) -> Tensor:
        """Grey means of 0 to 1 ``(n, width * height)``, row by row; ``(n, 0)`` where none are configured."""
        if self.pixels is None:
            return images.new_zeros(images.shape[0], 0)
        channels = zip(_LUMA, *self.normalisation, images.float().unbind(1), strict=True)
        grey: Any = sum(luma * (channel * std + mean) for luma, mean, std, channel in channels)
        return pooled_to(grey[:, None], self.pixels[::-1])

    @cached_property
    def frozen_identity(self) -> str:
        """Names everything that `frozen` depends on besides the images."""
        made_of = [self.name, self.frozen_shape, self.pixels, self.blocks, self.place]
        digest = hashlib.sha256(repr([*made_of, torch.__version__, timm.__version__]).encode())
        for name, tensor in self.prefix_state():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def standardise(self, features: Tensor) -> None:
        """Sets `mean` and `scale` so that each block of features ``(n, d)`` has its weight squared as total variance.

        One number scales a whole block: values that vary little over the records stay small.
        """
        scales = [
            weight / part.var(dim=0, correction=0).sum().sqrt().clamp_min(1e-6).expand(size)
            for part, (size, weight) in zip(features.split([n for n, _ in self.blocks], 1), self.blocks, strict=True)
        ]
        self.mean.copy_(features.mean(dim=0))
        self.scale.copy_(torch.cat(scales))

    @abstractmethod
    def prepare(self, place: Place) -> None:
        """Moves to a device, and to its precision where weights are stored in it."""

    @abstractmethod
    def effects(self, images: Tensor, labels: Tensor, others: Tensor) -> Tensor | None:
        """HiResCAM (Draelos and Carin, 2020): the places of images that raise one logit above another; in eval mode.

        A place counts with the sum over channels of its features times their gradient. Where the head is a mean over
        places and a linear layer, as in a ResNet, that is Grad-CAM (Selvaraju et al., 2017), and the sum over all
        places is the difference of the logits but for the biases. A thumbnail's pixels, less their mean, are added to
        the places that they lie in.

        Args:
            images: ``(n, 3, height, width)``.
            labels: Column of the first logit, ``(n,)``.
            others: Column of the second one, ``(n,)``.

        Returns:
            ``(n, h, w)``, with their sign; None where the backbone's features are no grid.
        """

    def _standardised(self, features: Tensor, thumbnails: Tensor) -> Tensor:
        return (torch.cat([features, thumbnails], dim=1) - self.mean) * self.scale

    def _effects(self, places: Tensor, features: Tensor, images: Tensor, *columns: Tensor, as_map: Any) -> Tensor:
        """`effects` of places, of which ``features`` were computed; ``as_map``: values of them -> ``(n, h, w)``."""
        thumbnails = self.thumbnails(images).requires_grad_()
        logits = self.head(self._standardised(features, thumbnails))
        label, other = (logits.gather(1, column[:, None]) for column in columns)
        gradient, of_pixels = torch.autograd.grad((label - other).sum(), (places, thumbnails))
        effects = as_map((gradient * places).float().detach())
        if self.pixels is None:
            return effects
        (width, height), (h, w) = self.pixels, effects.shape[1:]
        pixels = of_pixels * (thumbnails.detach() - self.mean[-thumbnails.shape[1] :])
        fine = pixels.unflatten(1, (height, width)).repeat_interleave(h, 1).repeat_interleave(w, 2) / (h * w)
        return effects + fine.unflatten(2, (w, width)).unflatten(1, (h, height)).sum(dim=(2, 4))

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel in the backbone's training, of pixels from 0 to 1."""
        return normalisation(self.backbone)

    @property
    def frozen_parameters(self) -> set[str]:
        """The names of the parameters that training never changes."""
        return {name for name, p in self.named_parameters() if not p.requires_grad}

    @property
    def n_parameters(self) -> dict[str, int]:
        """Numbers that are trained, and all of them."""
        trainable = sum(p.numel() for p in self.parameters() if p.requires_grad)
        return {"trainable": trainable, "total": sum(p.numel() for p in self.parameters())}


def pooled_to(places: Tensor, grid: Sequence[int]) -> Tensor:
    """Means ``(n, channels * rows * columns)`` of places ``(n, channels, h, w)`` over the cells of a grid, fp32."""
    rows, columns = grid
    return functional.adaptive_avg_pool2d(places.float(), (rows, columns)).flatten(1)


def check_grid(key: str, grid: Sequence[int], places: Sequence[int]) -> None:
    """Raises a ConfigError where a grid has more rows or columns than there are places."""
    if any(cells > size for cells, size in zip(grid, places, strict=True)):
        shown, most = (" x ".join(map(str, numbers)) for numbers in (grid, places))
        raise ConfigError(f"{key}: got {shown}; allowed: at most {most}, the features of the backbone at this size")


class Convolution(Network):
    """A convolutional timm model, whole or in part, of which the first stages may be frozen.

    A stage ends where the stride has doubled: the first one of a ResNet at 4, the third at 16.

    Args, besides those of `Network` and `CnnClassifier`:
        size: Height and width of the images.
        grid: Rows and columns of the means that the head reads; None: the backbone's own pooling.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: Any,
        num_classes: int,
        size: Sequence[int] = (224, 224),
        *,
        freeze: str | int = "none",
        freeze_norm: bool = False,
        stages: int | None = None,
        grid: Sequence[int] | None = None,
        pixels: Sequence[int] | None = None,
        head_dropout: float = 0.0,
    ):
        ends = [i for i, info in enumerate(getattr(model, "feature_info", [])) if info["reduction"] >= _FIRST_STRIDE]
        names = [model.feature_info[i]["module"] for i in ends]
        for key, number in (("stages", stages), ("freeze", freeze)):
            if isinstance(number, int) and number > len(ends):
                raise ConfigError(f"cnn.{key}: got {number}; allowed: at most {len(ends)}, the stages of this backbone")
        if stages is not None:
            if not hasattr(model, "prune_intermediate_layers"):
                raise ConfigError(f"cnn.stages: got {stages}; allowed: null, as timm cannot cut this backbone")
            model.prune_intermediate_layers([ends[stages - 1]], prune_norm=True)
            grid = grid or (1, 1)
        n_features, shape, parts, n_frozen = model.head_hidden_size, None, [], 0
        probe = torch.sin(torch.arange(3.0 * math.prod(size))).view(1, 3, *size)
        try:
            places = model.eval().forward_features(probe)
        except (AssertionError, RuntimeError) as error:
            raise ConfigError(f"cnn.size_px: got {list(size)}, which this backbone refuses ({error})") from error
        if not isinstance(places, Tensor) or places.ndim != 4:
            raise ConfigError(
                f"cnn.backbone: got a {type(model).__name__}, whose features are no map; allowed: a convolutional timm "
                "model (a transformer: model=deit_vpt vpt.backbone=..., or model=embed embed.backbone=...)"
            )
        if grid or freeze != "none":
            parts = _parts(model, probe, places)
            if grid:
                places = _channels_first(model, places)
                check_grid("cnn.grid", grid, places.shape[2:])
                n_features = places.shape[1] * math.prod(grid)
            n_frozen = _freeze(model, freeze, parts, names[:stages])
            for _, part in parts[:n_frozen]:
                probe = part(probe)
            shape = tuple(probe.shape[1:]) if n_frozen else None
        is_frozen = not any(p.requires_grad for p in model.parameters())
        super().__init__(model, num_classes, n_features, (n_features,) if is_frozen else shape, pixels, head_dropout)
        self.grid, self.freeze_norm, self.is_frozen = grid, freeze_norm, is_frozen
        self._prefix, self._rest = parts[:n_frozen], [part for _, part in parts[n_frozen:]]

    def train(self, mode: bool = True) -> Self:
        """Training mode for what is trained: running statistics of frozen batch norms do not change."""
        super().train(mode)
        for module in self.modules():
            parameters = list(module.parameters())
            is_frozen = self.freeze_norm and isinstance(module, nn.modules.batchnorm._BatchNorm)
            if is_frozen or (parameters and not any(p.requires_grad for p in parameters)):
                module.eval()
        return self

    def prepare(self, place: Place) -> None:
        """Moves to a device, in the memory format in which convolutions are fastest."""
        self.place = place
        self.to(place.device).to(memory_format=torch.channels_last)

    def prefix(self, images: Tensor) -> Tensor:
        """As the base class states; where all is frozen, features."""
        with self.place.autocast():
            for _, part in self._prefix if not self.is_frozen else []:
                images = part(images)
        return self._pooled(self._places(images)) if self.is_frozen else images

    def rest(self, values: Tensor) -> Tensor:
        """As the base class states."""
        if self.is_frozen:
            return values
        if not self._prefix:
            return self._pooled(self._places(values))
        values = values.to(self.place.dtype)
        values = values.contiguous(memory_format=torch.channels_last) if values.ndim == 4 else values
        with self.place.autocast():
            for part in self._rest:
                values = part(values)
        return self._pooled(values)

    def prefix_state(self) -> Iterator[tuple[str, Tensor]]:
        """As the base class states."""
        for name, part in [(str(self.grid), self.backbone)] if self.is_frozen else self._prefix:
            yield from ((f"{name}.{key}", tensor) for key, tensor in part.state_dict().items())

    def effects(self, images: Tensor, labels: Tensor, others: Tensor) -> Tensor:
        """At the end of the backbone, see `Network.effects`."""
        with torch.no_grad():
            places = self._places(images)
        places = places.detach().float().requires_grad_()
        features, model = self._pooled(places).float(), self.backbone
        as_map = lambda effects: _channels_first(model, effects).sum(dim=1)  # noqa: E731
        return self._effects(places, features, images, labels, others, as_map=as_map)

    def _places(self, images: Tensor) -> Tensor:
        with self.place.autocast():
            return self.backbone.forward_features(images)

    def _pooled(self, places: Tensor) -> Tensor:
        if self.grid:
            return pooled_to(_channels_first(self.backbone, places), self.grid)
        with self.place.autocast():
            return self.backbone.forward_head(places, pre_logits=True)


def _channels_first(model: Any, places: Tensor) -> Tensor:
    """Some backbones have channels last."""
    return places if places.shape[1] == model.num_features else places.permute(0, 3, 1, 2)


def _parts(model: Any, images: Tensor, places: Tensor) -> list[tuple[str, nn.Module]]:
    """Name and module of the parts that make features of images one after the other; none if a model is not so made."""
    children: list[tuple[str, nn.Module]] = []
    for name, child in model.named_children():
        inner = child.named_children() if isinstance(child, nn.Sequential) else [("", child)]
        children += [(f"{name}.{key}".rstrip("."), module) for key, module in inner]
    for number, (_, module) in enumerate(children):
        try:
            images = module(images)
        except (RuntimeError, TypeError, ValueError, NotImplementedError):
            break
        if isinstance(images, Tensor) and torch.equal(images, places):
            return children[: number + 1]
    return []


def _freeze(model: Any, freeze: str | int, parts: Sequence[tuple[str, nn.Module]], stages: Sequence[str]) -> int:
    """Freezes a model as `Convolution` states, and counts the frozen parts at its beginning."""
    frozen: Any = []
    if freeze == "backbone" or (isinstance(freeze, int) and freeze >= len(stages)):
        frozen = model.parameters()
    elif isinstance(freeze, int):
        last = [i for i, (name, _) in enumerate(parts) if f"{name}.".startswith(f"{stages[freeze - 1]}.")]
        if not last:
            raise ConfigError(f"cnn.freeze: got {freeze}; allowed: none, backbone (it has no stages in a row)")
        frozen = [p for _, part in parts[: last[-1] + 1] for p in part.parameters()]
    elif freeze == "stem":
        stem = model.group_matcher(coarse=True)["stem"]
        patterns = [stem] if isinstance(stem, str) else [s[0] if isinstance(s, tuple) else s for s in stem]
        frozen = [p for name, p in model.named_parameters() if any(re.match(pattern, name) for pattern in patterns)]
        if not frozen:
            raise ConfigError("cnn.freeze: got 'stem', but timm names no stem of this backbone; allowed: none")
    for parameter in frozen:
        parameter.requires_grad_(False)
    is_trained = [any(p.requires_grad for p in part.parameters()) for _, part in parts]
    n_frozen = is_trained.index(True) if True in is_trained else len(parts)
    return n_frozen if any(True for _, part in parts[:n_frozen] for _ in part.parameters()) else 0

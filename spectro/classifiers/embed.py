"""Frozen features of a pretrained backbone + support vector machine: seconds to fit, hardly anything to set."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from spectro.classifiers.base import Effects
from spectro.classifiers.inputs import SizePx, Thumbnail
from spectro.classifiers.manifest import load_frozen, save_frozen
from spectro.classifiers.networks.backbone import BackboneParams, ImageSize, Pair
from spectro.classifiers.registry import register_family
from spectro.classifiers.svm import Gamma, Strength, SvmClassifier
from spectro.data.cache import RowKind
from spectro.data.decode import ImageSpec
from spectro.data.images import Images, cached_rows, pixels_of
from spectro.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

# Part of every cache key: raise it when the same images give other values.
_CODE_VERSION = 2
# Images that go through the backbone together. A last batch is filled up: matrices of another shape round differently,
# and features would depend on what was in the cache before.
_BATCH = 8


@register_family("embed")
@dataclass(eq=False, kw_only=True, repr=False)
class EmbedClassifier(BackboneParams, SvmClassifier):
    """A support vector machine on what a middle block of a frozen backbone gives for places of an image.

    The outputs of a block are averaged over the fields of a grid: where something is stays known, which the
    class token or the mean of the last block have lost. Every grid of every block, and the thumbnail, are scaled to a
    total variance of their own, see `spectro.classifiers.inputs.block_scaler`.

    Args:
        blocks: Blocks of a transformer, or stages of a convolutional network, counted from 1; the backbone ends with
            the last of them.
        grids: Fields along each side of each grid; a pair is rows and columns.
        pixels: Width and height of a thumbnail whose grey values are inputs as well; None: without.
        pixels_weight: The thumbnail's standard deviation, as a multiple of that of a grid.
        backbone: And all others: see `BackboneParams` and `SvmClassifier`.
    """

    backbone: Annotated[str, Field(min_length=1)] = "vit_small_patch14_dinov2.lvd142m"
    size_px: ImageSize = 112
    blocks: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)] = field(default_factory=lambda: [6])
    grids: Annotated[list[Annotated[int, Field(ge=1)] | Pair], Field(min_length=1)] = field(
        default_factory=lambda: [2, 8]
    )
    pixels: SizePx | None = field(default_factory=lambda: [20, 15])
    pixels_weight: Annotated[float, Field(gt=0)] = 0.45
    C: Strength = None
    gamma: Gamma = "0.05x"

    def contradictions(self) -> list[tuple[str, str]]:
        """Also: a thumbnail must fit into a square."""
        wrong = [] if self.pixels is None else Thumbnail(*self.pixels).contradictions("embed.pixels")
        return super().contradictions() + wrong

    @property
    def specs(self) -> list[ImageSpec]:
        """Colour images, and grey squares for the thumbnail."""
        return super().specs + ([] if self.pixels is None else [Thumbnail(*self.pixels).spec])

    @property
    def facts(self) -> dict[str, Any]:
        """Parameters, weights and device; empty where there is no backbone."""
        if not hasattr(self, "backbone_"):
            return {}
        total = sum(p.numel() for p in self.backbone_.parameters())
        place = {"precision": "fp32", "device": self._device.type}
        return {"parameters": {"trainable": 0, "total": total}, "weights": self.origin_, **place}

    def prepare(self) -> None:
        """Builds the backbone: it, its weights and the device must be there, and its maps be as fine as the grids."""
        self._check_weights()
        self._built()
        for block, (_, *sides) in zip(self.blocks, self._shapes, strict=True):
            for grid, (rows, columns) in zip(self.grids, self._grids, strict=True):
                if rows > sides[0] or columns > sides[1]:
                    most = f"1 to {min(sides)}" if isinstance(grid, int) else f"at most {sides}"
                    raise ConfigError(
                        f"embed.grids: got {grid}; allowed: {most}, as block {block} of {self.backbone} has "
                        f"{sides[0]}x{sides[1]} places at embed.size_px={self.size_px}"
                    )

    def _built(self, *, empty: bool = False) -> None:
        """Sets ``backbone_``, the frozen backbone up to the last block that is used, and ``origin_`` of its weights."""
        from spectro.classifiers.networks.device import choose

        self._device = choose(self.device, "fp32").device
        self.backbone_, self.origin_ = _frozen(*self._arguments(empty), str(self._device))

    def _arguments(self, empty: bool) -> tuple[Any, ...]:
        """Those of `_frozen` but the device."""
        options = json.dumps(self.backbone_options or {}, sort_keys=True)
        file = self._file
        modified = file.stat().st_mtime_ns if file is not None and file.exists() and not empty else 0
        config = json.dumps(getattr(self, "config_", None)) if empty else ""
        pretrained, size = self.pretrained and not empty, self.specs[0].shape[:2]
        return self.backbone, options, pretrained, file, size, max(self.blocks), modified, config

    @property
    def _shapes(self) -> list[tuple[int, int, int]]:
        """Channels, rows and columns of what each block gives."""
        if not hasattr(self, "backbone_"):
            self._built()
        return _shapes(self.backbone_, self.specs[0].shape[:2], tuple(self.blocks))

    @property
    def _grids(self) -> list[tuple[int, int]]:
        """Rows and columns of each grid."""
        return [(grid, grid) if isinstance(grid, int) else (grid[0], grid[1]) for grid in self.grids]

    @property
    def _layout(self) -> list[tuple[int, float]]:
        sizes = [(channels * math.prod(grid), 1.0) for channels, _, _ in self._shapes for grid in self._grids]
        return sizes if self.pixels is None else [*sizes, (math.prod(self.pixels), self.pixels_weight)]

    def _fit(self, X: Any, y: np.ndarray, X_val: Any, y_val: np.ndarray) -> None:
        self._built()
        super()._fit(X, y, X_val, y_val)

    def _features(self, X: Images | np.ndarray) -> np.ndarray:
        import torch
        from torch.nn.functional import adaptive_avg_pool2d

        parts = []
        for number, block in enumerate(self.blocks):
            maps = torch.from_numpy(self._block_outputs(X, block, self._shapes[number])).float()
            parts += [adaptive_avg_pool2d(maps, grid).flatten(1).numpy() for grid in self._grids]
        thumbnails = [] if self.pixels is None else [Thumbnail(*self.pixels)(X)]
        return np.concatenate([*parts, *thumbnails], axis=1, dtype=np.float64)

    def _block_outputs(self, X: Images | np.ndarray, block: int, shape: tuple[int, int, int]) -> np.ndarray:
        """What a block gives, float16 ``(n, *shape)``: computed once for each image and view, and half the disk."""
        if isinstance(X, Images):
            kind = RowKind("embed", {"made_of": self._backbone_id(X), "block": block}, shape, "float16")
            return cached_rows(X, kind, lambda records: self._computed(records, block), self.backbone, _BATCH, 1)
        parts = [self._computed(X[i : i + _BATCH], block) for i in range(0, len(X), _BATCH)]
        return np.concatenate(parts) if parts else np.empty((0, *shape), np.float16)

    def _computed(self, X: Images | np.ndarray, block: int) -> np.ndarray:
        import torch

        from spectro.classifiers.networks.weights import normalisation

        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in normalisation(self.backbone_))
        pixels = np.zeros((_BATCH, *self.specs[0].shape), dtype=np.uint8)
        pixels[: len(X)] = pixels_of(X, self.specs[0])
        images = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - mean) / std
        with torch.inference_mode():
            (maps,) = maps_of(self.backbone_, images.to(self._device), [block])
        result: np.ndarray = maps[: len(X)].cpu().numpy()
        return result

    def _effects(self, X: Any, labels: np.ndarray, others: np.ndarray) -> Effects:
        """Of the fields of the finest grid; what lies in a larger field changes by the share that one covers."""
        n, m = (max(numbers) for numbers in zip(*self._grids, strict=True))
        sides = [(channels, grid) for channels, _, _ in self._shapes for grid in self._grids]
        sides += [] if self.pixels is None else [(1, (self.pixels[1], self.pixels[0]))]
        covered = [
            np.tile(np.einsum("ay,bx->abyx", _shares(n, k), _shares(m, j)).reshape(n * m, -1), channels)
            for channels, (k, j) in sides
        ]
        effects = self._occlusion(self._features(X), np.concatenate(covered, axis=1), labels, others)
        method = f"fall of the decision where a field has its mean value, {n}x{m} fields"
        return effects.reshape(-1, n, m), pixels_of(X, self.specs[0]), method

    def _backbone_id(self, X: Images) -> list[Any]:
        options = [self.backbone, self.backbone_options, self.origin_["sha256"] or "random", str(self._device)]
        return [_CODE_VERSION, *options, X.store.kind(self.specs[0]).folder]

    def _made_of(self, X: Images) -> list[Any]:
        if not hasattr(self, "backbone_"):
            self._built()
        return [self._backbone_id(X), self.blocks, self.grids, self.pixels, self.pixels and self.pixels_weight]

    def _save(self, folder: Path) -> dict[str, Any]:
        frozen = save_frozen(self.backbone_.state_dict(), folder)
        return {"origin": self.origin_, "frozen": frozen, **super()._save(folder)}

    def _load(self, folder: Path, fitted: dict[str, Any]) -> None:
        from copy import deepcopy

        import torch
        from safetensors import SafetensorError

        from spectro.classifiers.networks.weights import bounded, check_shapes

        self.config_ = fitted["origin"].get("config")
        try:
            tensors = load_frozen(fitted["frozen"], folder)
            with bounded(tensors), torch.device("meta"):  # takes no memory, whatever the sizes in the JSON are
                check_shapes(_frozen.__wrapped__(*self._arguments(True), "meta")[0], tensors)
            with bounded(tensors):
                self._built(empty=True)
            self.backbone_ = deepcopy(self.backbone_)
            self.backbone_.load_state_dict(tensors)
        except (SafetensorError, RuntimeError, ConfigError) as error:
            reason = str(error).strip().split("\n")[0]
            raise ModelError(f"{folder / fitted['frozen']}: damaged or not of this model ({reason})") from error
        self.origin_ = fitted["origin"]
        super()._load(folder, fitted)


def _shares(n: int, k: int) -> np.ndarray:
    """The share of each of k equal parts of a side that lies in each of n equal parts, ``(n, k)``."""
    ends = np.minimum((np.arange(n)[:, None] + 1) / n, (np.arange(k) + 1) / k)
    starts = np.maximum(np.arange(n)[:, None] / n, np.arange(k) / k)
    return np.maximum(ends - starts, 0) * k


@lru_cache(maxsize=4)
def _frozen(
    name: str,
    options: str,
    pretrained: bool,
    weights: Path | None,
    size: tuple[int, int],
    n_blocks: int,
    modified_ns: int,
    config: str,
    device: str,
) -> "tuple[nn.Module, dict[str, Any]]":
    """A frozen backbone that ends with a block, and the origin of its weights; the same object for the same arguments.

    Raises:
        ConfigError: It has fewer blocks, or no interface to them.
    """
    import torch

    from spectro.classifiers.networks.device import seeded
    from spectro.classifiers.networks.weights import create

    given: Any = {"options": json.loads(options), "config": json.loads(config or "null")}
    with seeded(0, torch.device(device)):
        model, origin = create(name, family="embed", pretrained=pretrained, weights=weights, size=size, **given)
    if not hasattr(model, "forward_intermediates"):
        raise ConfigError(
            f"embed.backbone: got {name!r}, which gives no outputs of its blocks; allowed: e.g. a timm ViT"
        )
    model = model.requires_grad_(False).eval()
    n = len(model.feature_info)  # type: ignore[arg-type]
    if n_blocks > n:
        raise ConfigError(f"embed.blocks: got {n_blocks}; allowed: 1 to {n} with embed.backbone={name}")
    model.prune_intermediate_layers([n_blocks - 1], prune_norm=True, prune_head=True)  # type: ignore[operator]
    return model.to(device), origin


@lru_cache(maxsize=4)
def _shapes(model: "nn.Module", size: tuple[int, ...], blocks: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """Channels, rows and columns of what blocks give."""
    import torch

    device = next(model.parameters()).device
    with torch.inference_mode():
        maps = maps_of(model, torch.zeros(1, 3, *size, device=device), blocks)
    return [(part.shape[1], part.shape[2], part.shape[3]) for part in maps]


def maps_of(model: "nn.Module", images: "Tensor", blocks: Sequence[int]) -> "list[Tensor]":
    """What blocks give for images: float16 ``(n, channels, rows, columns)`` each, in the order of ``blocks``."""
    indices = sorted({block - 1 for block in blocks})
    maps = model.forward_intermediates(  # type: ignore[operator]
        images, indices=indices, intermediates_only=True, stop_early=True, output_fmt="NCHW"
    )
    by_index = dict(zip(indices, maps, strict=True))
    return [by_index[block - 1].clamp(-6e4, 6e4).half() for block in blocks]  # float16 ends at 65504

"""Transforms of images that keep their label: what they may be, how they are applied, and those that come with spectro.

A transform is any callable on uint8 images that keeps height and width:

- a function of one image ``(height, width)`` or ``(height, width, 3)``; a random one takes a ``numpy.random.Generator``
  as ``rng`` besides;
- a module of PyTorch, such as those of ``torchvision.transforms.v2``, on one image ``(channels, height, width)``, which
  lies on the GPU if there is one; PyTorch's generator is seeded for each image;
- one with the attribute ``takes_batches``, on ``(n, height, width)`` or ``(n, height, width, 3)`` in numpy or PyTorch,
  on any device; a random one takes a list of ``n`` generators as ``rngs``.
"""

import hashlib
import inspect
import sys
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import ConfigDict, Field

# Part of the key of whatever is made from augmented images: raise it when a transform here gives other pixels.
CODE_VERSION = 1

# numpy, or torch.Tensor on any device.
Pixels = Any
Transform = Callable[..., Any]
_Percent = Annotated[float, Field(ge=0, le=50, strict=True)]
# PyTorch has one generator for all threads.
_torch_lock = threading.Lock()


def mirrored(images: Pixels) -> Pixels:
    """Left and right exchanged, for records whose two sides mean the same: the source is in the middle of the top."""
    return images[:, :, like(images, np.arange(images.shape[2] - 1, -1, -1))]


def double_l(images: Pixels) -> Pixels:
    """The left half mirrored onto the right; the middle column of an odd width stays."""
    column = np.arange(images.shape[2])
    return images[:, :, like(images, np.minimum(column, column[::-1]))]


def double_r(images: Pixels) -> Pixels:
    """The right half mirrored onto the left."""
    column = np.arange(images.shape[2])
    return images[:, :, like(images, np.maximum(column, column[::-1]))]


BUILT_IN_VIEWS: dict[str, Transform] = {"mirrored": mirrored, "double_l": double_l, "double_r": double_r}
for _transform in BUILT_IN_VIEWS.values():
    _transform.takes_batches = True  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Spectrogram:
    """Small random changes of a spectrogram or a shot record; each is switched off by 0.

    Masks hide one band each (Park et al. 2019, SpecAugment, Interspeech 2613-2617), filled with the image's median;
    what a shift uncovers repeats the image's border. All values are drawn uniformly.

    Attributes:
        time_axis: ``x`` where time runs to the right, ``y`` where it runs downwards.
        time_shift_percent: Largest shift in time, both ways, of the length of the axis.
        frequency_shift_percent: Likewise along the other axis: frequency, or the stations of a shot record.
        gain_percent: Largest change of brightness, both ways, of the range from black to white.
        contrast_percent: Largest change of the distance to middle grey, both ways.
        time_mask_percent: Largest width of a band of time that is hidden, of the length of the axis.
        frequency_mask_percent: Likewise along the other axis.
        probability: Share of the images that are changed at all.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    takes_batches: ClassVar[bool] = True

    time_axis: Literal["x", "y"] = "x"
    time_shift_percent: _Percent = 3.0
    frequency_shift_percent: _Percent = 2.0
    gain_percent: _Percent = 5.0
    contrast_percent: _Percent = 10.0
    time_mask_percent: _Percent = 10.0
    frequency_mask_percent: _Percent = 10.0
    probability: Annotated[float, Field(gt=0, le=1, strict=True)] = 1.0

    def __call__(self, images: Pixels, rngs: Sequence[np.random.Generator]) -> Pixels:
        """Changed copies of uint8 images ``(n, height, width)`` or ``(n, height, width, 3)``, numpy or PyTorch."""
        n, height, width = images.shape[:3]
        # Every image draws the same numbers, whatever is switched off.
        drawn = np.stack([rng.random(9) for rng in rngs])
        active = drawn[:, 0] < self.probability
        shifts = (
            (2 * drawn[:, 1:3] - 1).T * active * [[self.time_shift_percent], [self.frequency_shift_percent]]
        ) / 100
        masks = (drawn[:, 3:5].T * active * [[self.time_mask_percent], [self.frequency_mask_percent]]) / 100
        starts = drawn[:, 5:7].T * (1 - masks)
        index, hidden = {}, {}
        for axis, length, part in (("x", width, 0), ("y", height, 1)):
            part = part if self.time_axis == "x" else 1 - part
            position = np.arange(length)
            shift = np.rint(shifts[part] * length).astype(int)
            index[axis] = np.clip(position - shift[:, None], 0, length - 1)
            first, end = np.rint(np.stack([starts[part], starts[part] + masks[part]]) * length)[:, :, None]
            hidden[axis] = (position >= first) & (position < end)
        gain = (2 * drawn[:, 7] - 1) * active * self.gain_percent / 100 * 255
        contrast = 1 + (2 * drawn[:, 8] - 1) * active * self.contrast_percent / 100
        table = (np.arange(256) - 127.5) * contrast[:, None] + 127.5 + gain[:, None]
        table = np.clip(np.rint(table), 0, 255).astype(np.uint8)  # (n, 256)

        row = np.arange(n)[:, None, None]
        shifted = images[tuple(like(images, i) for i in (row, index["y"][:, :, None], index["x"][:, None, :]))]
        row = row if images.ndim == 3 else row[..., None]
        levels = shifted if isinstance(shifted, np.ndarray) else shifted.long()
        changed = like(images, table)[like(images, row), levels]
        # Of every sixteenth pixel: sorting all of them would take longer than everything else.
        sample = changed[:, ::4, ::4].reshape(n, -1, *changed.shape[3:])
        ordered = np.sort(sample, axis=1) if isinstance(sample, np.ndarray) else sample.sort(dim=1).values
        median = ordered[:, ordered.shape[1] // 2][:, None, None]
        mask = hidden["y"][:, :, None] | hidden["x"][:, None, :]
        mask = like(images, mask if images.ndim == 3 else mask[..., None])
        return mask * median + ~mask * changed


def apply(transform: Transform, images: Pixels, rngs: Sequence[np.random.Generator] | None) -> Pixels:
    """A transform of uint8 images ``(n, ...)``, numpy or PyTorch, as its kind takes them."""
    if getattr(transform, "takes_batches", False):
        return _checked(transform(images) if rngs is None else transform(images, rngs), images)
    is_numpy = isinstance(images, np.ndarray)
    drawn: Sequence[Any] = rngs or [None] * len(images)
    if is_module(transform):
        torch = sys.modules["torch"]
        tensors = torch.as_tensor(images)
        changed = torch.stack([_through_module(transform, x, rng) for x, rng in zip(tensors, drawn, strict=True)])
        return changed.numpy() if is_numpy else changed
    arrays = images if is_numpy else images.cpu().numpy()
    results = [transform(x) if rng is None else transform(x, rng=rng) for x, rng in zip(arrays, drawn, strict=True)]
    return like(images, np.stack([_checked(np.asarray(y), x) for x, y in zip(arrays, results, strict=True)]))


def _through_module(module: Transform, image: Pixels, rng: np.random.Generator | None) -> Pixels:
    """A PyTorch module on one image, a tensor ``(height, width)`` or ``(height, width, channels)``."""
    torch = sys.modules["torch"]
    channels_first = image[None] if image.ndim == 2 else image.permute(2, 0, 1)
    with _torch_lock, torch.random.fork_rng([image.device] if image.is_cuda else []), torch.no_grad():
        torch.manual_seed(0 if rng is None else int(rng.integers(2**62)))
        out = _checked(module(channels_first), channels_first)
    return out[0] if image.ndim == 2 else out.permute(1, 2, 0)


def _checked(result: Pixels, images: Pixels) -> Pixels:
    if tuple(result.shape) != tuple(images.shape) or result.dtype != images.dtype:
        expected, got = (f"{str(a.dtype).removeprefix('torch.')} {tuple(a.shape)}" for a in (images, result))
        raise ValueError(f"expected {expected}, got {got}")
    return result


def is_module(transform: Transform) -> bool:
    """Whether it is a module of PyTorch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(transform, torch.nn.Module)


def like(images: Pixels, array: np.ndarray) -> Pixels:
    """An array of numpy where ``images`` are one, a tensor on their device where they are not."""
    return array if isinstance(images, np.ndarray) else sys.modules["torch"].as_tensor(array, device=images.device)


def identity(*transforms: Transform) -> str:
    """Names transforms with their arguments and their source files: changed code is another transform."""
    digest = hashlib.sha256()
    for transform in transforms:
        target = getattr(transform, "func", transform)
        kind = target if inspect.isfunction(target) else type(target)
        arguments = transform.keywords if isinstance(transform, partial) else "" if kind is target else repr(transform)
        digest.update(f"{kind.__module__}.{kind.__qualname__} {arguments} {CODE_VERSION}\n".encode())
        if not kind.__module__.startswith("spectro."):
            try:
                digest.update(Path(inspect.getfile(kind)).read_bytes())
            except (OSError, TypeError):
                # Code without a file cannot be compared with what it was.
                digest.update(uuid.uuid4().bytes)
    return digest.hexdigest()[:16]

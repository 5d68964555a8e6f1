"""What images look like from afar: size, shape, brightness, colours; by it new images are compared with old ones."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

# What is measured, with how far it may lie outside the range of training: a share of the value, or grey levels of 255.
_RELATIVE = {"width in pixels": 0.1, "height in pixels": 0.1, "aspect (width : height)": 0.1}
_ABSOLUTE = {"brightness": 10.0, "saturation": 10.0, "red minus green": 10.0, "blue minus green": 10.0}
QUANTITIES = (*_RELATIVE, *_ABSOLUTE)
# Share of images outside a range from which there is a warning.
_MANY = 0.1
# An image is measured on so many places a side, at least.
_PLACES = 48


def look_of(image: Image.Image) -> np.ndarray:
    """The quantities of an image of mode ``L`` or ``RGB``: float64 ``(7,)``, as `QUANTITIES`; the colours 0 to 255."""
    small = image.reduce((max(1, image.width // _PLACES), max(1, image.height // _PLACES))).convert("RGB")
    red, green, blue = np.asarray(small).reshape(-1, 3).T.astype(np.float32)
    r, g, b = red.mean(), green.mean(), blue.mean()
    saturation = (np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)).mean()
    width, height = image.size
    colours = ((r + g + b) / 3, saturation, r - g, b - g)
    return np.array([width, height, width / height, *colours])


def ranges_of(looks: np.ndarray) -> dict[str, list[float]]:
    """Quantity -> its least and its largest value in ``looks`` ``(n, 7)``."""
    low, high = looks.min(axis=0).round(3).tolist(), looks.max(axis=0).round(3).tolist()
    return {name: list(ends) for name, *ends in zip(QUANTITIES, low, high, strict=True)}


def checked_ranges(ranges: Any) -> dict[str, list[float]] | None:
    """What `ranges_of` gave, read from a file; None where an older file has none.

    Raises:
        ValueError: Something else.
    """
    if ranges is None:
        return None
    if not isinstance(ranges, Mapping) or set(ranges) != set(QUANTITIES):
        raise ValueError("training_images: expected a range for each quantity")
    ends = np.array([ranges[name] for name in QUANTITIES], dtype=np.float64)
    if ends.shape != (len(QUANTITIES), 2) or not np.isfinite(ends).all() or (ends[:, 0] > ends[:, 1]).any():
        raise ValueError("training_images: expected two finite numbers for each quantity, the smaller one first")
    return dict(zip(QUANTITIES, ends.tolist(), strict=True))


class LookCheck:
    """Counts new images that do not resemble those of training; in constant memory.

    Args:
        ranges: Those of the training images; None: nothing is counted.
    """

    def __init__(self, ranges: Mapping[str, list[float]] | None):
        self._ranges, self._n, self._reported = ranges, 0, set[str]()
        low, high = np.array([(ranges or {}).get(name, [0.0, 0.0]) for name in QUANTITIES]).T
        slack = np.array([*_RELATIVE.values(), *_ABSOLUTE.values()])
        is_relative = np.arange(len(slack)) < len(_RELATIVE)
        self._low = low - slack * np.where(is_relative, low, 1)
        self._high = high + slack * np.where(is_relative, high, 1)
        self._outside, self._sums = np.zeros(len(slack), dtype=int), np.zeros(len(slack))

    def add(self, looks: np.ndarray) -> None:
        """Counts the images whose quantities these are, ``(n, 7)``."""
        outside = (looks < self._low) | (looks > self._high)
        self._n += len(looks)
        self._outside += outside.sum(axis=0)
        self._sums += np.where(outside, looks, 0).sum(axis=0)

    def warnings(self) -> list[str]:
        """A line for each quantity in which many of the images so far are unlike those of training, each once."""
        lines = []
        for name, n, total in zip(QUANTITIES, self._outside.tolist(), self._sums.tolist(), strict=True):
            if self._ranges is not None and n > _MANY * self._n and name not in self._reported:
                low, high = self._ranges[name]
                self._reported.add(name)
                lines.append(
                    f"{name}: {n:,} of {self._n:,} images are unlike those of training: {total / n:.3g} in the mean; "
                    f"in training {low:.3g}" + f" to {high:.3g}" * (low != high)
                )
        return lines

"""Inputs of a classifier beside a family's features: a thumbnail, and blocks of inputs on one scale."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from sklearn.preprocessing import StandardScaler

from spectro.data.decode import ImageSpec
from spectro.data.images import Images, pixels_of

# Width and height of a thumbnail in a configuration.
SizePx = Annotated[list[Annotated[int, Field(ge=1, le=64)]], Field(min_length=2, max_length=2)]
_MAX_SQUARE_PX = 512


@dataclass(frozen=True)
class Thumbnail:
    """A small grey image, squashed to its size."""

    width_px: int
    height_px: int

    def contradictions(self, key: str) -> list[tuple[str, str]]:
        """The sides must divide a square that is not too large; ``key`` is named in the message."""
        if (size := self.spec.shape[0]) <= _MAX_SQUARE_PX:
            return []
        text = f"got {self.width_px} and {self.height_px}, least common multiple {size}"
        return [(key, f"{text}; allowed: a least common multiple of at most {_MAX_SQUARE_PX}")]

    @property
    def spec(self) -> ImageSpec:
        """The square that it is made from: its sides are multiples of the thumbnail's."""
        return ImageSpec(math.lcm(self.width_px, self.height_px), "L")

    def __call__(self, X: Images | np.ndarray) -> np.ndarray:
        """Grey values ``(n, height_px * width_px)``, 0 to 255, float64."""
        return self.means(pixels_of(X, self.spec))

    def means(self, squares: Any) -> Any:
        """Means over blocks of squares ``(n, size, size)``, in numpy or PyTorch: ``(n, height_px * width_px)``."""
        w, h, size = self.width_px, self.height_px, self.spec.shape[0]
        return squares.reshape(-1, h, size // h, w, size // w).mean(axis=(2, 4)).reshape(-1, h * w)


def block_scaler(features: np.ndarray, sizes: Sequence[int], weights: Sequence[float]) -> StandardScaler:
    """A fitted scaler that centres every column and divides each block of columns by one number.

    A block's total variance over the training rows becomes the square of its weight, however many columns it has, and
    the variances inside it keep their ratios: what is empty in all records is not raised to the level of the rest.

    Args:
        features: Training rows ``(n, d)``.
        sizes: Number of columns of each block; their sum is d.
        weights: Of each block, positive.
    """
    scaler = StandardScaler().fit(features)
    ends = np.cumsum(sizes)[:-1]
    totals = [float(part.sum()) for part in np.split(scaler.var_, ends)]
    scales = [math.sqrt(total) / weight if total > 0 else 1.0 for total, weight in zip(totals, weights, strict=True)]
    scaler.scale_ = np.repeat(scales, sizes)
    return scaler

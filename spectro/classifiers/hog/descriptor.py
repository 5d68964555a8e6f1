"""Histograms of oriented gradients for whole batches of images, computed once for each parameter set.

scikit-image's ``hog`` takes one image at a time and spends half of its time in an interpreted loop over blocks, so
that threads do not help it. The same arithmetic on a whole batch is several times faster on one core and runs in
threads; a test holds it to ``skimage.feature.hog``.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from spectro.data import transforms
from spectro.data.cache import RowKind
from spectro.data.decode import ImageSpec
from spectro.data.images import Images, ImageStore, cached_rows, pixels_of

# Part of every cache key: raise it when the same images give other values.
_CODE_VERSION = 1
_CHUNK = 16
# Keeps the norm of an empty block from zero; scikit-image's value.
_EPS = 1e-5


@dataclass(frozen=True)
class Hog:
    """Parameters of a HOG descriptor (Dalal and Triggs, 2005).

    Attributes:
        size_px: Height and width of the grey image.
        orientations: Number of bins over 180 degrees, or over 360 if they are signed.
        cell_px: Height and width of a cell.
        block_cells: Height and width of a block, in cells; blocks overlap by all but one cell.
        block_norm: ``L1``, ``L1-sqrt``, ``L2``, ``L2-Hys``, or ``none``: as they are, so that blocks of several
            cells only repeat cells.
        signed: Whether the bins are over 360 degrees: opposite gradients lie in different ones.
        sqrt: Whether the square root of the cells' histograms is taken, before blocks are normalised.
    """

    size_px: int = 128
    orientations: int = 9
    cell_px: int = 8
    block_cells: int = 2
    block_norm: str = "L2-Hys"
    signed: bool = False
    sqrt: bool = False

    @property
    def spec(self) -> ImageSpec:
        """The geometry of its images."""
        return ImageSpec(self.size_px, "L")

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """Of a descriptor: block row, block column, cell row, cell column, orientation."""
        blocks = self.size_px // self.cell_px - self.block_cells + 1
        return blocks, blocks, self.block_cells, self.block_cells, self.orientations

    @property
    def n_features(self) -> int:
        """Length of a descriptor."""
        return math.prod(self.shape)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Descriptors of a batch.

        Args:
            images: uint8 ``(n, size_px, size_px)``.

        Returns:
            float64 ``(n, n_features)``, ordered as ``skimage.feature.hog`` orders them: block row, block column, cell
            row, cell column, orientation.
        """
        n, height, width = images.shape
        cell, rows, cols = self.cell_px, height // self.cell_px, width // self.cell_px
        grey = images.astype(np.float64)
        # Central differences; the border has no gradient.
        down, right = np.zeros_like(grey), np.zeros_like(grey)
        down[:, 1:-1] = grey[:, 2:] - grey[:, :-2]
        right[:, :, 1:-1] = grey[:, :, 2:] - grey[:, :, :-2]
        down, right = down[:, : rows * cell, : cols * cell], right[:, : rows * cell, : cols * cell]
        bins = self.bins(down, right)
        cell_no = (np.arange(rows * cell) // cell)[:, None] * cols + np.arange(cols * cell) // cell
        index = (np.arange(n)[:, None, None] * (rows * cols) + cell_no) * self.orientations + bins
        histogram = np.bincount(
            index.ravel(), weights=np.hypot(down, right).ravel(), minlength=n * rows * cols * self.orientations
        ).reshape(n, rows, cols, self.orientations) / (cell * cell)
        if self.sqrt:
            np.sqrt(histogram, out=histogram)
        # (n, block row, block col, orientation, cell row, cell col) -> orientation last
        windows = np.lib.stride_tricks.sliding_window_view(histogram, (self.block_cells,) * 2, axis=(1, 2))
        blocks = windows.transpose(0, 1, 2, 4, 5, 3).reshape(*windows.shape[:3], -1)
        return self.normalised(blocks).reshape(n, -1)

    def bins(self, down: np.ndarray, right: np.ndarray) -> np.ndarray:
        """The orientation bin of gradients, whose two parts are given, in any shape."""
        turn = 360.0 if self.signed else 180.0
        degrees = np.rad2deg(np.arctan2(down, right)) % turn
        bins: np.ndarray = (degrees / (turn / self.orientations)).astype(np.intp)
        # A tiny negative angle becomes a whole turn by rounding, past the last bin.
        return np.minimum(bins, self.orientations - 1, out=bins)

    def normalised(self, blocks: Any) -> Any:
        """Blocks ``(..., d)`` with their contrast normalised over the last axis, in numpy or PyTorch."""
        if self.block_norm == "none":
            return blocks
        if self.block_norm.startswith("L1"):
            out = blocks / (blocks.sum(axis=-1, keepdims=True) + _EPS)
            return out**0.5 if self.block_norm == "L1-sqrt" else out
        out = blocks / ((blocks**2).sum(axis=-1, keepdims=True) + _EPS**2) ** 0.5
        if self.block_norm == "L2-Hys":
            out = out.clip(max=0.2)
            out = out / ((out**2).sum(axis=-1, keepdims=True) + _EPS**2) ** 0.5
        return out

    def features(self, X: Images | np.ndarray) -> np.ndarray:
        """Descriptors of records, from the cache where it has them; others are computed in threads.

        Args:
            X: Records, or uint8 images (see `spectro.data.images.pixels_of`).

        Returns:
            float32 ``(n, n_features)``: half the bytes, and 1e-7 is far below what a pixel's rounding does.
        """
        if not isinstance(X, Images):
            return self(pixels_of(X, self.spec)).astype(np.float32) if len(X) else np.empty((0, self.n_features), "f4")
        return cached_rows(X, self.kind(X.store), lambda records: self(records.pixels(self.spec)), "HOG", _CHUNK)

    def kind(self, store: ImageStore) -> RowKind:
        """The cache's name for descriptors of a store's images."""
        settings = {
            "code": [_CODE_VERSION, transforms.CODE_VERSION],
            "pixels": store.kind(self.spec).folder,
            **asdict(self),
        }
        return RowKind("hog", settings, (self.n_features,), "float32")

"""HOG images, and which features belong to a cell."""

from collections.abc import Sequence

import numpy as np

from spectro.classifiers.hog.descriptor import Hog

# Height and width of a drawn image, about.
_SIDE_PX = 240


def cells_of(hog: Hog, pixels: Sequence[int] | None) -> np.ndarray:
    """Which features belong to each cell, ``(cells * cells, d)``; a thumbnail's pixel to the cell of its centre.

    Args:
        hog: The descriptor; a cell's values are in all blocks that hold it.
        pixels: Width and height of the thumbnail behind the HOG vector; None: there is none.
    """
    row, col, cell_row, cell_col, _ = np.indices(hog.shape).reshape(5, -1)
    n_cells = hog.size_px // hog.cell_px
    cell = (row + cell_row) * n_cells + col + cell_col
    if pixels is not None:
        x, y = (((np.arange(size) + 0.5) * n_cells / size).astype(int) for size in pixels)
        cell = np.concatenate([cell, (y[:, None] * n_cells + x).ravel()])
    return cell == np.arange(n_cells**2)[:, None]


def strokes(hog: Hog, features: np.ndarray) -> np.ndarray:
    """HOG images: in each cell a stroke along the edges of each orientation, the darker the larger the value.

    Values are those that the SVM gets, after the contrast of a block is normalised: faint structure in an empty corner
    is as dark as the onset. A cell has its mean over the blocks that hold it.

    Args:
        hog: The descriptor.
        features: HOG vectors ``(n, d)``.

    Returns:
        uint8 ``(n, height, width)``, dark strokes on a white background.
    """
    blocks, _, b, _, _ = hog.shape
    n_cells, side = blocks + b - 1, max(9, _SIDE_PX // (blocks + b - 1))
    values = features.reshape(-1, *hog.shape)
    cells = np.zeros((len(values), n_cells, n_cells, hog.orientations))
    count = np.zeros((n_cells, n_cells, 1))
    for row, column in np.ndindex(b, b):
        cells[:, row : row + blocks, column : column + blocks] += values[:, :, :, row, column]
        count[row : row + blocks, column : column + blocks] += 1
    # A stroke lies across the gradient, whose angle is counted from the right, downwards.
    angle = (np.arange(hog.orientations)[:, None, None] + 0.5) * (1 + hog.signed) * np.pi / hog.orientations
    down, right = np.indices((side, side)) - (side - 1) / 2
    off, along = down * np.sin(angle) + right * np.cos(angle), down * np.cos(angle) - right * np.sin(angle)
    ink = np.clip(0.5 + side / 20 - np.abs(off), 0, 1) * np.clip(side / 2 - np.abs(along), 0, 1)
    drawn = np.einsum("nyxo,ohw->nyhxw", cells / count, ink).reshape(len(cells), n_cells * side, n_cells * side)
    # The few strongest strokes are all black: without that all others are too faint to see.
    black = np.maximum(np.quantile(drawn, 0.99, axis=(1, 2), keepdims=True), 1e-9)
    return np.rint(255 * (1 - np.minimum(drawn / black, 1))).astype(np.uint8)

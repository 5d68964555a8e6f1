"""HOG images, and the cells of an image that a HOG-SVM's decision depends on."""

from collections.abc import Sequence
from copy import copy

import numpy as np
from sklearn.pipeline import Pipeline

from spectro.classifiers.hog.descriptor import Hog

# Height and width of a drawn image, about.
_SIDE_PX = 240


def cell_effects(
    hog: Hog,
    pipeline: Pipeline,
    features: np.ndarray,
    labels: np.ndarray,
    others: np.ndarray,
    pixels: Sequence[int] | None = None,
) -> np.ndarray:
    """How far the decision between two labels falls if a cell has the training records' mean: occlusion.

    The decision is that of the SVM's own machine for the two classes; a cell's values are replaced in all blocks that
    hold it, all others stay (Zeiler and Fergus, 2014). A gradient would not do: far from all support vectors an RBF
    kernel is flat.

    Args:
        hog: The descriptor.
        pipeline: The fitted scaler, PCA and SVM.
        features: HOG vectors, and behind them a thumbnail's pixels or nothing, ``(n, d)``, float64.
        labels: Number of the label that is explained, ``(n,)``.
        others: Number of the label that it is compared with, ``(n,)``.
        pixels: Width and height of the thumbnail; a pixel belongs to the cell that holds its centre.

    Returns:
        ``(n, cells, cells)``; negative where a cell's values speak against the label.
    """
    scaler, pca, svc = pipeline
    n_classes = len(svc.classes_)
    pairwise = copy(svc).set_params(decision_function_shape="ovo", break_ties=False)
    column = {pair: i for i, pair in enumerate(zip(*np.triu_indices(n_classes, 1), strict=True))}
    row, col, cell_row, cell_col, _ = np.indices(hog.shape).reshape(5, -1)
    n_cells = hog.size_px // hog.cell_px
    cell = (row + cell_row) * n_cells + col + cell_col
    if pixels is not None:
        x, y = (((np.arange(size) + 0.5) * n_cells / size).astype(int) for size in pixels)
        cell = np.concatenate([cell, (y[:, None] * n_cells + x).ravel()])
    in_cell = cell == np.arange(n_cells**2)[:, None]  # (cells, d)
    effects = np.empty((len(features), n_cells, n_cells))
    for i, (label, other) in enumerate(zip(labels, others, strict=True)):
        whole = scaler.transform(features[i : i + 1])
        masked = np.where(in_cell, pca.mean_, whole)
        components = pca.transform(np.concatenate([whole, masked]))
        decisions = pairwise.decision_function(components).reshape(len(components), -1)
        # Positive for the first class of a pair, but for the second one where there are only two.
        sign = (1 if label < other else -1) * (-1 if n_classes == 2 else 1)
        margins = sign * decisions[:, column[min(label, other), max(label, other)]]
        effects[i] = (margins[0] - margins[1:]).reshape(n_cells, n_cells)
    return effects


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

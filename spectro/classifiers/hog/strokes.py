"""What a HOG-SVM sees of an image, and which of its cells move its decision."""

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC

from spectro.classifiers.hog.descriptor import Hog
from spectro.classifiers.hog.fold_scores import kernel

# Height and width of a drawn image, about.
_SIDE_PX = 240


def cell_effects(
    hog: Hog, pipeline: Pipeline, features: np.ndarray, labels: np.ndarray, others: np.ndarray
) -> np.ndarray:
    """By how much the decision for a label would fall if one cell looked as it does on average.

    The decision is the machine's own between the two classes; a cell's values, in all blocks that hold it, are replaced
    by the training records' mean, all others stay. That is occlusion (Zeiler and Fergus, 2014), exact and without a new
    HOG: replacing values by the mean takes their part out of the principal components. A gradient would not do: far
    from all support vectors an RBF kernel is flat.

    Args:
        hog: The descriptor.
        pipeline: The fitted scaler, PCA and SVM.
        features: HOG vectors ``(n, d)``, float64.
        labels: Number of the class that is explained, ``(n,)``.
        others: Number of the class that it is told from, ``(n,)``.

    Returns:
        ``(n, cells, cells)``; negative where a cell speaks against the label.
    """
    scaler, pca, svc = pipeline
    n_cells, b = hog.size_px // hog.cell_px, hog.block_cells
    blocks = n_cells - b + 1
    centred = scaler.transform(features) - pca.mean_
    components = pca.transform(scaler.transform(features))
    gamma = svc.gamma if svc.kernel == "rbf" else None
    out = np.empty((len(features), n_cells, n_cells))
    for i, (label, other) in enumerate(zip(labels.tolist(), others.tolist(), strict=True)):
        # (k, block row, block col, cell row, cell col): what each cell of each block adds to the k components
        parts = (pca.components_ * centred[i]).reshape(-1, blocks, blocks, b, b, hog.orientations).sum(axis=-1)
        of_cell = np.zeros((len(parts), n_cells, n_cells))
        for row, column in np.ndindex(b, b):
            of_cell[:, row : row + blocks, column : column + blocks] += parts[..., row, column]
        without = components[i] - of_cell.reshape(len(parts), -1).T
        weights = _pair_weights(svc, label, other)
        there, gone = (kernel(rows, svc.support_vectors_, gamma) @ weights for rows in (components[i : i + 1], without))
        out[i] = (there - gone).reshape(n_cells, n_cells)
    return out


def _pair_weights(svc: SVC, label: int, other: int) -> np.ndarray:
    """The support vectors' weights ``(n_support,)`` in the machine between two classes; positive speaks for ``label``.

    libsvm keeps a machine for every pair; a support vector of one class has a row of weights for its pairs with each of
    the others, see "dual_coef_" in scikit-learn's guide.
    """
    first, second = sorted((label, other))
    ends = np.cumsum(svc.n_support_)
    weights = np.zeros(len(svc.support_vectors_))
    for own, row in ((first, second - 1), (second, first)):
        of_class = slice(ends[own] - svc.n_support_[own], ends[own])
        weights[of_class] = svc.dual_coef_[row, of_class]
    # Positive means the first of the two; of only two classes scikit-learn turns it round.
    return weights if (label == first) != (len(ends) == 2) else -weights


def strokes(hog: Hog, features: np.ndarray) -> np.ndarray:
    """HOG images: in each cell a stroke along the edges of each orientation, the darker the stronger.

    What is drawn is what the machine is given: values after the contrast of a block is normalised, so that faint
    structure in an empty corner is as dark as the onset; a cell's mean over the blocks that hold it.

    Args:
        hog: The descriptor.
        features: HOG vectors ``(n, d)``.

    Returns:
        uint8 ``(n, height, width)``, dark strokes on white paper.
    """
    n_cells, b = hog.size_px // hog.cell_px, hog.block_cells
    blocks = n_cells - b + 1
    values = features.reshape(-1, blocks, blocks, b, b, hog.orientations)
    cells = np.zeros((len(values), n_cells, n_cells, hog.orientations))
    held = np.zeros((n_cells, n_cells, 1))
    for row, column in np.ndindex(b, b):
        cells[:, row : row + blocks, column : column + blocks] += values[:, :, :, row, column]
        held[row : row + blocks, column : column + blocks] += 1
    cells /= held
    side = max(9, _SIDE_PX // n_cells)
    # A stroke lies across the gradient, whose angle is counted from the right, downwards.
    angle = (np.arange(hog.orientations)[:, None, None] + 0.5) * np.pi / hog.orientations
    down, right = np.indices((side, side)) - (side - 1) / 2
    off, along = down * np.sin(angle) + right * np.cos(angle), down * np.cos(angle) - right * np.sin(angle)
    ink = np.clip(0.5 + side / 20 - np.abs(off), 0, 1) * np.clip(side / 2 - np.abs(along), 0, 1)
    drawn = np.einsum("nyxo,ohw->nyhxw", cells, ink).reshape(len(cells), n_cells * side, n_cells * side)
    # The few strongest strokes are all black: without that all others are too faint to see.
    black = np.maximum(np.quantile(drawn, 0.99, axis=(1, 2), keepdims=True), 1e-9)
    return np.rint(255 * (1 - np.minimum(drawn / black, 1))).astype(np.uint8)

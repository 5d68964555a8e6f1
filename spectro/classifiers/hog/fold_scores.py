"""What all settings of a support vector machine share in one fold: HOG vectors, scaled, as principal components."""

import hashlib
import json
from typing import Any

import numpy as np

from spectro.classifiers.hog.descriptor import Hog
from spectro.classifiers.hog.pca import full_scores
from spectro.data.cache import Arrays
from spectro.data.images import Images

# Part of every cache key: raise it when the same images give other values.
_CODE_VERSION = 1


def fold_scores(hog: Hog, scaler: Any, X: Images | np.ndarray, X_new: Images | np.ndarray) -> Arrays:
    """Principal components of a fold, with a scaler and a PCA fitted to its training rows alone.

    Of `Images` they are kept, and HOG vectors are not even read where they are known. The PCA is a full one: a share
    of the variance is a cut through its columns.

    Args:
        hog: The descriptor.
        scaler: An unfitted scaler of scikit-learn; its ``repr`` must say what it is.
        X: Training rows, ``n`` of them.
        X_new: Rows that are only transformed, ``m`` of them.

    Returns:
        ``train`` ``(n, r)``, ``new`` ``(m, r)`` and ``shares`` ``(r,)``, the share of the variance that each component
        explains, largest first.
    """

    def compute() -> Arrays:
        features, new = (hog.features(rows).astype(np.float64) for rows in (X, X_new))
        scaled = scaler.fit_transform(features)
        train, transformed, shares = full_scores(scaled, scaler.transform(new))
        return {"train": train, "new": transformed, "shares": shares}

    if not isinstance(X, Images) or not isinstance(X_new, Images):
        return compute()
    kinds = [hog.kind(rows.store).folder for rows in (X, X_new)]
    made_from = [_CODE_VERSION, repr(scaler), kinds, X.keys, X_new.keys]
    return X.store.cache.arrays(hashlib.sha256(json.dumps(made_from).encode()).hexdigest(), compute)


def kernel(A: np.ndarray, B: np.ndarray, gamma: float | None) -> np.ndarray:
    """Kernel ``(n, m)`` of rows ``(n, d)`` and ``(m, d)``: exp(-gamma * squared distance), or linear without gamma."""
    out = A @ B.T
    if gamma is None:
        return out
    out *= -2
    out += np.einsum("ij,ij->i", A, A)[:, None]
    out += np.einsum("ij,ij->i", B, B)
    np.maximum(out, 0.0, out=out)  # rounding leaves equal rows slightly below zero
    out *= -gamma
    return np.exp(out, out=out)

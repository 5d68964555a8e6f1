"""Principal components of few rows with many columns, exactly and fast."""

import numpy as np
from scipy.linalg import eigh
from sklearn.decomposition import PCA

from spectro.data.cache import Arrays


def fit_pca(X: np.ndarray, n_components: float | int) -> PCA:
    """Fits scikit-learn's PCA.

    With fewer rows than columns the components come from the eigenvectors of the ``(n, n)`` matrix of inner products
    (the "snapshot" method of Sirovich, 1987), which is several times cheaper than the singular value decomposition of
    ``(n, d)`` and gives the same components as ``svd_solver="full"``, signs included.

    Args:
        X: float64 ``(n, d)``.
        n_components: A share of the variance below 1, or a number of components, at most ``min(n, d)``.

    Returns:
        The fitted PCA, with fewer components where the rest would have no variance.
    """
    n, d = X.shape
    if n >= d:
        return PCA(n_components, svd_solver="covariance_eigh").fit(X)
    mean, centred, eigenvalues, eigenvectors, rank = _snapshots(X)
    shares = _shares(eigenvalues)
    k = min(n_kept(shares, n_components), rank)
    singular = np.sqrt(eigenvalues)
    components = (eigenvectors[:, :k].T @ centred) / np.maximum(singular[:k, None], np.finfo(X.dtype).tiny)
    # scikit-learn's convention: the largest loading of a component is positive.
    largest = np.abs(components).argmax(axis=1)
    components *= np.where(components[np.arange(k), largest] < 0, -1.0, 1.0)[:, None]
    pca = PCA(k, svd_solver="full")
    pca.n_samples_, pca.n_features_in_, pca.n_components_ = n, d, k
    pca.mean_, pca.components_ = mean, components
    pca.singular_values_ = singular[:k]
    pca.explained_variance_ = eigenvalues[:k] / max(n - 1, 1)
    pca.explained_variance_ratio_ = shares[:k]
    pca.noise_variance_ = float(eigenvalues[k:].mean() / max(n - 1, 1)) if k < n else 0.0
    return pca


def n_kept(shares: np.ndarray, n_components: float | int) -> int:
    """How many components are kept, by scikit-learn's rule; it may be more than there are.

    Args:
        shares: The share of the variance that each component explains, largest first, ``(r,)``.
        n_components: A share of the variance below 1, or a number of components.
    """
    if n_components >= 1:
        return int(n_components)
    return int(np.searchsorted(np.cumsum(shares), n_components, side="right")) + 1


def full_scores(X: np.ndarray, X_new: np.ndarray) -> Arrays:
    """Scores of a PCA with all components, for the rows ``(n, d)`` that it is fitted to and for others ``(m, d)``.

    With fewer rows than columns they do not need the components, which take two thirds of the time; signs are then
    arbitrary, which changes no distance and no inner product.

    Returns:
        ``train`` ``(n, r)``, ``new`` ``(m, r)`` and ``shares`` ``(r,)``, the share of the variance that each component
        explains, largest first.
    """
    if X.shape[0] >= X.shape[1]:
        pca = fit_pca(X, X.shape[1])
        return {"train": pca.transform(X), "new": pca.transform(X_new), "shares": pca.explained_variance_ratio_}
    mean, centred, eigenvalues, eigenvectors, rank = _snapshots(X)
    singular, basis = np.sqrt(eigenvalues[:rank]), eigenvectors[:, :rank]
    new = ((X_new - mean) @ centred.T) @ basis / np.maximum(singular, np.finfo(X.dtype).tiny)
    return {"train": basis * singular, "new": new, "shares": _shares(eigenvalues)[:rank]}


def _snapshots(X: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """Mean ``(d,)``, centred rows ``(n, d)``, eigenvalues and -vectors of their inner products, largest first, rank."""
    mean = X.mean(axis=0)
    centred = X - mean
    eigenvalues, eigenvectors = eigh(centred @ centred.T, overwrite_a=True)
    # Rounding leaves the null space slightly off zero, on either side.
    eigenvalues, eigenvectors = eigenvalues[::-1], eigenvectors[:, ::-1]
    rank = max(1, int((eigenvalues > eigenvalues[0] * len(X) * np.finfo(X.dtype).eps).sum()))
    return mean, centred, np.maximum(eigenvalues, 0.0), eigenvectors, rank


def _shares(eigenvalues: np.ndarray) -> np.ndarray:
    total = float(eigenvalues.sum())
    return eigenvalues / total if total > 0 else np.zeros(len(eigenvalues))

"""The fast PCA is scikit-learn's PCA."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from spectro.classifiers.pca import fit_pca


@settings(max_examples=40)
@given(
    n=st.integers(2, 20),
    d=st.integers(2, 60),
    n_components=st.one_of(st.floats(0.05, 0.99), st.integers(1, 20)),
    seed=st.integers(0, 999),
)
def test_equals_scikit_learns_full_decomposition(n, d, n_components, seed):
    """Other components, or another number of them, would make every score that of another model."""
    X = np.random.default_rng(seed).normal(1.0, 2.0, (n, d)) * np.arange(1, d + 1)
    if n_components >= 1:
        n_components = min(n_components, n - 1, d)
    ours, theirs = fit_pca(X, n_components), PCA(n_components, svd_solver="full").fit(X)
    assert ours.n_components_ == theirs.n_components_
    names = ("components_", "explained_variance_", "explained_variance_ratio_", "singular_values_", "mean_")
    for name in (*names, "noise_variance_"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-6, atol=1e-8, err_msg=name)
    np.testing.assert_allclose(ours.transform(X), theirs.transform(X), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("n_components", [0.9, 2])
def test_components_without_variance_are_left_out(n_components):
    """Divided by a singular value of nothing, rounding would become a feature as large as the real ones."""
    assert fit_pca(np.outer(np.arange(5.0), np.arange(9.0)), n_components).n_components_ == 1
    pca = fit_pca(np.ones((4, 9)), n_components)
    np.testing.assert_array_equal(pca.transform(np.ones((2, 9))), np.zeros((2, 1)))

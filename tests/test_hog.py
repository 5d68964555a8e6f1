"""HOG: the same numbers as scikit-image, computed once."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_classifiers import stored

from spectro.classifiers.hog.descriptor import Hog
from spectro.data import Augmentation
from spectro.data.transforms import BUILT_IN_VIEWS


def skimage_hog(image: np.ndarray, hog: Hog) -> np.ndarray:
    from skimage.feature import hog as reference

    return reference(
        image,
        orientations=hog.orientations,
        pixels_per_cell=(hog.cell_px, hog.cell_px),
        cells_per_block=(hog.block_cells, hog.block_cells),
        block_norm=hog.block_norm,
    )


@settings(max_examples=30)
@given(
    size_px=st.integers(16, 40),
    orientations=st.integers(2, 12),
    cell_px=st.integers(3, 8),
    block_cells=st.integers(1, 2),
    block_norm=st.sampled_from(["L1", "L1-sqrt", "L2", "L2-Hys"]),
    levels=st.sampled_from([1, 2, 5, 256]),
    seed=st.integers(0, 999),
)
def test_equals_skimage(size_px, orientations, cell_px, block_cells, block_norm, levels, seed):
    """Descriptors that differ from scikit-image's would not be the HOG that the literature and the original mean."""
    hog = Hog(size_px, orientations, cell_px, block_cells, block_norm)
    images = np.random.default_rng(seed).integers(0, levels, (3, size_px, size_px)).astype(np.uint8) * (255 // levels)
    ours = hog(images)
    theirs = np.array([skimage_hog(image, hog) for image in images])
    assert ours.shape == theirs.shape == (3, hog.n_features)
    # scikit-image sums in single precision; a square root makes 1e-7 of an empty block a 3e-4.
    np.testing.assert_allclose(ours, theirs, atol=1e-3 if block_norm == "L1-sqrt" else 1e-5)


@pytest.mark.parametrize(
    "image",
    [np.zeros((128, 128)), np.full((128, 128), 255), np.tile(np.arange(128) * 2, (128, 1)), np.eye(128) * 255],
    ids=["black", "white", "ramp", "diagonal"],
)
def test_equals_skimage_on_angles_at_bin_edges(image):
    """Gradients of exactly 0, 45 or 90 degrees lie on the edge of a bin."""
    image = image.astype(np.uint8)
    assert Hog().n_features == 8100
    np.testing.assert_allclose(Hog()(image[None])[0], skimage_hog(image, Hog()), atol=1e-6)


def test_signed_bins_fold_onto_unsigned_ones_and_roots_are_of_cells():
    """A bin in the wrong half would make a rising edge a falling one; a root after the blocks is another descriptor."""
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32)).astype(np.uint8)
    plain = Hog(size_px=32, orientations=6, block_cells=1, block_norm="none")
    signed = replace(plain, orientations=12, signed=True)
    halves = signed(images).reshape(3, -1, 2, 6)
    np.testing.assert_allclose(halves.sum(axis=2).reshape(3, -1), plain(images))
    # Dark to light and light to dark are the same pixels, half a turn on.
    np.testing.assert_allclose(signed(255 - images).reshape(halves.shape), halves[:, :, ::-1])
    np.testing.assert_allclose(replace(plain, sqrt=True)(images), np.sqrt(plain(images)))
    squares = replace(plain, sqrt=True, block_cells=2, block_norm="L2")(images).reshape(3, 9, -1) ** 2
    np.testing.assert_allclose(squares.sum(axis=2), 1, rtol=1e-6)


def test_vectors_are_computed_once_and_kept_between_processes(tmp_path, monkeypatch):
    """A sweep whose trials compute HOG again spends most of its time there."""
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32)).astype(np.uint8)
    calls, plain, hog = [], Hog.__call__, Hog(size_px=32)
    monkeypatch.setattr(Hog, "__call__", lambda self, batch: calls.append(len(batch)) or plain(self, batch))
    X = stored(tmp_path, images, hog.spec, tmp_path / "cache")
    first = hog.features(X)
    np.testing.assert_array_equal(hog.features(X[::-1]), first[::-1])
    np.testing.assert_array_equal(hog.features(stored(tmp_path, images, hog.spec, tmp_path / "cache")), first)
    assert sum(calls) == 5
    Hog(size_px=32, cell_px=4).features(X)
    assert sum(calls) == 10


def test_a_view_has_its_own_vector(tmp_path):
    """A cache key without the view would give every mirrored copy the original's features."""
    images = np.random.default_rng(0).integers(0, 256, (1, 32, 32)).astype(np.uint8)
    hog = Hog(size_px=32)
    twice = stored(tmp_path, images, hog.spec)[np.zeros(2, dtype=int)]
    views = {"augmentation": Augmentation(BUILT_IN_VIEWS), "views": np.array(["original", "mirrored"])}
    both = hog.features(twice.replace(**views))
    np.testing.assert_allclose(both[1], hog(images[:, :, ::-1])[0], atol=1e-6)
    assert np.abs(both[0] - both[1]).max() > 0.01

"""What speaks for a label: the map lies where the classes differ, in every family, and sums to what it explains."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.svm import SVC
from test_classifiers import LABELS, MAKERS, cnn, svm, toy, vpt

from spectro.classifiers import CascadeClassifier, PixelsClassifier, PictureClassifier, load
from spectro.classifiers.gradients import grad_cam, relevance, watched
from spectro.classifiers.hog_picture import _pair_weights, cell_effects, strokes
from spectro.classifiers.prompts import PromptedViT

SIZE = 64


def corners(n: int, seed: int = 0, low: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Noise ``(n, 64, 64)``; half of it has stripes in the upper left quarter, and is called so."""
    rng = np.random.default_rng(seed)
    X = rng.normal(110, 15, (n, SIZE, SIZE))
    y = np.array(["plain", "striped"] * (n // 2), dtype=object)
    wave = 60 * np.sign(np.sin(np.arange(32) * np.pi / 4 + 0.4))[:, None] + 40
    X[y == "striped", :32, :32] += wave
    return np.clip(X, 0, 255).astype(np.uint8), y


def share_in_corner(found) -> float:
    """The part of a map's mass that lies in the upper left quarter, mean over records."""
    shares = []
    for one in found:
        h, w = one.map.shape
        shares.append(one.map[: h // 2, : w // 2].sum() / one.map.sum())
    return float(np.mean(shares))


CORNER = {
    "hog_svm": lambda: svm().set_params(size_px=SIZE),
    "hog_svm linear": lambda: svm(kernel="linear").set_params(size_px=SIZE),
    "pixels": PixelsClassifier,
    "cnn": lambda: cnn(epochs=10).set_params(size_px=SIZE * 2),
    "vpt deep": lambda: vpt(epochs=15, variant="deep").set_params(size_px=SIZE),
    "vpt shallow": lambda: vpt(epochs=15).set_params(size_px=SIZE),
}


@pytest.mark.parametrize("make", CORNER.values(), ids=CORNER)
def test_the_map_lies_where_the_classes_differ(make):
    X, y = corners(40)
    classifier = make().fit(X, y)
    X_new, y_new = corners(10, seed=1)
    assert (classifier.predict(X_new) == y_new).all()
    striped = y_new == "striped"
    found = classifier.attribution(X_new[striped], y_new[striped])
    assert share_in_corner(found) > 0.6  # a quarter by chance

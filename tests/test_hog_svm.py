"""HOG-SVM: what is its own, beyond the contract."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from test_classifiers import LABELS, svm, toy

from spectro.classifiers.hog import Hog
from spectro.classifiers.hog_svm import DegenerateModelWarning, Knobs, absolute_gamma


def test_equals_scikit_learns_own_pipeline():
    """Standardising or cutting components differently would make it another classifier than it says."""
    X, y = toy((8, 6, 4))
    X_test, _ = toy((6, 6, 6), seed=1)
    hog = Hog(size_px=32)
    plain = make_pipeline(StandardScaler(), PCA(0.9, svd_solver="full"), SVC(C=2.0, class_weight="balanced"))
    plain.fit(hog.features(X).astype(float), y.astype(str))
    ours = svm(C=2.0, pca_variance=0.9).fit(X, y)
    np.testing.assert_array_equal(ours.predict(X_test), plain.predict(hog.features(X_test).astype(float)))


def test_prediction_is_the_machines_own():
    """Fitted probabilities may disagree with the machine; these must not, with two classes or more."""
    for counts in ((6, 5, 4), (6, 5, 0)):
        classifier = svm().fit(*toy(counts), *toy((4, 4, 4), seed=1))
        X, _ = toy((9, 9, 9), seed=2)
        features = classifier.hog.features(X).astype(float)
        own = classifier.classes_[classifier.pipeline_.predict(features)]
        np.testing.assert_array_equal(classifier.predict(X), own)


def test_relative_gamma_is_scikit_learns_scale():
    features = np.random.default_rng(0).normal(3.0, 2.0, (20, 7))
    scale = 1 / (7 * features.var())
    assert absolute_gamma("1.0x", features) == pytest.approx(scale)
    assert absolute_gamma("0.25x", features) == pytest.approx(scale / 4)
    assert absolute_gamma(0.5, features) == 0.5
    assert absolute_gamma("1.0x", np.ones((4, 2))) == 1.0


def test_a_machine_that_calls_everything_one_class_is_warned_about():
    """The original's gamma range did this on real data, and nobody noticed."""
    X, y = toy((12, 2, 2))
    with pytest.warns(DegenerateModelWarning, match=r"all 16 training pictures 'brak_Empty zone': svm\.gamma=1e-09x"):
        svm(C=1e-6, gamma="1e-09x", class_weight=None).fit(X, y)


def test_temperature_needs_val_records():
    few = svm().fit(*toy((6, 5, 4)), *toy((2, 2, 2), seed=1))
    assert (few.temperature_, few.temperature_fitted_) == (1.0, False)
    enough = svm().fit(*toy((6, 5, 4)), *toy((5, 5, 5), seed=1))
    assert enough.temperature_fitted_
    assert enough.temperature_ != 1.0


def test_more_components_than_records_are_cut():
    """Nine records differ in eight directions."""
    classifier = svm(pca_components=500).fit(*toy((3, 3, 3)))
    assert classifier.pipeline_[1].n_components_ == 8


def test_all_of_the_variance():
    assert svm(pca_variance=1.0).fit(*toy((3, 3, 3))).pipeline_[1].n_components_ == 8


def test_colour_pictures_of_another_size_are_taken():
    X, y = toy((4, 4, 4))
    large = np.repeat(np.repeat(X, 2, axis=1), 3, axis=2)
    colour = np.stack([large] * 3, axis=-1)
    assert svm().fit(colour, y).predict_proba(colour).shape == (12, len(LABELS))


@pytest.mark.parametrize("X", [np.zeros((2, 32, 32)), np.zeros((2, 32), np.uint8), np.zeros((2, 8, 8, 4), np.uint8)])
def test_arrays_that_are_no_pictures(X):
    with pytest.raises(ValueError, match=r"X: found .*; allowed: uint8"):
        svm().fit(X, ["a", "b"])


def test_knobs_reach_the_classifier():
    """An option that does nothing is worse than none."""
    knobs = {
        "hog": {"size_px": 64, "orientations": 6, "cell_px": 16, "block_cells": 3, "block_norm": "L1"},
        "scaler": "robust",
        "pca": {"variance": 0.5, "components": 7},
        "svm": {"kernel": "linear", "C": 2, "gamma": 0.1, "class_weight": None, "tol": 0.01, "max_iter": 50},
    }
    params = Knobs.model_validate(knobs).build(seed=0).get_params()
    flat = {**knobs["hog"], **knobs["svm"], "scaler": "robust", "pca_variance": 0.5, "pca_components": 7}
    assert params == flat

"""HOG-SVM: what goes beyond the contract of all classifiers."""

import itertools
import warnings

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC
from test_classifiers import LABELS, stored, svm, toy

from spectro.classifiers.hog.descriptor import Hog
from spectro.classifiers.hog.svm import HogSvmClassifier
from spectro.classifiers.svm import DegenerateModelWarning, absolute_gamma
from spectro.data import Augmentation
from spectro.data.transforms import BUILT_IN_VIEWS


def plain_pipeline(scaler, variance, C, gamma, kernel="rbf"):
    """The same model, written with scikit-learn alone."""

    class Relative(SVC):
        """Takes gamma as a multiple of ``scale``."""

        def fit(self, X, y):
            self.gamma = absolute_gamma(gamma, X)
            return super().fit(X, y)

    pca = PCA(variance if variance < 1 else None, svd_solver="full")
    svc = Relative(C=C, kernel=kernel, class_weight="balanced", decision_function_shape="ovo")
    return make_pipeline(scaler, pca, svc)


def products_of_pairs(decisions, k):
    """Probabilities ``(n, k)``: of each class the product of those in its pairs, 0.95 on the margin."""
    p = np.ones((len(decisions), k))
    for values, (i, j) in zip(decisions.T, itertools.combinations(range(k), 2), strict=True):
        p[:, i] /= 1 + np.exp(-3 * values)
        p[:, j] /= 1 + np.exp(3 * values)
    return p / p.sum(axis=1, keepdims=True)


SETTINGS = [
    ("standard", StandardScaler(), 0.95, 1.0, "1.0x", "rbf"),
    ("standard", StandardScaler(), 0.5, 100.0, "0.1x", "rbf"),
    ("none", FunctionTransformer(), 0.8, 10.0, "0.3x", "rbf"),
    ("standard", StandardScaler(), 0.99, 0.1, 0.001, "rbf"),
    ("standard", StandardScaler(), 0.9, 1.0, "1.0x", "linear"),
    # More rows than features, and all of the variance: another way through the PCA.
    ("none", FunctionTransformer(), 1.0, 1.0, "1.0x", "rbf"),
]


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """90 recordings that are hard to tell apart: a function cache -> records as a new process sees them, and labels."""
    folder, rng = tmp_path_factory.mktemp("noisy"), np.random.default_rng(5)
    X, y = toy((50, 30, 10))
    X = np.clip(X * 0.12 + rng.normal(110, 30, X.shape), 0, 255).astype(np.uint8)
    return lambda cache=None: stored(folder, X, svm().specs[0], cache), y


def test_out_of_fold_equals_scikit_learns_pipeline_fitted_in_the_fold(noisy, tmp_path, monkeypatch):
    """Prediction by prediction: with cold caches, warm memory, a warm disk and damaged files."""
    records, y = noisy
    fold = np.arange(len(y)) % 5
    computed = []
    real = Hog.features
    monkeypatch.setattr(Hog, "features", lambda self, X: computed.append(len(X)) or real(self, X))
    everything, expected = records(), {}
    differs = set()
    for number, (name, scaler, variance, C, gamma, kernel) in enumerate(SETTINGS):
        cell = 16 if variance == 1.0 else 8
        features = Hog(size_px=32, cell_px=cell).features(everything).astype(float)
        plain = plain_pipeline(scaler, variance, C, gamma, kernel)
        ours = svm(scaler=name, pca_variance=variance, C=C, gamma=gamma, kernel=kernel, cell_px=cell)
        for f in range(5):
            plain.fit(features[fold != f], y[fold != f].astype(str))
            expected[number, f] = products_of_pairs(plain.decision_function(features[fold == f]), 3), ours
        differs.add(tuple(np.concatenate([expected[number, f][0].argmax(axis=1) for f in range(5)])))
    assert len(differs) == len(SETTINGS)

    def check(X):
        for (_, f), (probabilities, ours) in expected.items():
            p = ours.out_of_fold(X[fold != f], y[fold != f], None, None, X[fold == f])
            np.testing.assert_allclose(p, probabilities, atol=3e-3)  # libsvm's tolerance

    cache, made = tmp_path / "cache", 5 * 2 * len({(s, c == 1.0) for s, _, c, *_ in SETTINGS})
    X = records(cache)
    for expected_calls in (made, 0):
        computed.clear()
        check(X)
        assert len(computed) == expected_calls
    computed.clear()
    check(records(cache))
    assert computed == []
    for file in (cache / "arrays").iterdir():
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    check(records(cache))
    assert len(computed) == made


def test_a_fold_is_named_by_all_that_it_is_made_of(noisy, tmp_path):
    """Folds that share a name would share their components."""
    records, y = noisy
    X = records(tmp_path / "cache")
    mirrored = X.replace(augmentation=Augmentation(BUILT_IN_VIEWS), views=np.full(len(X), "mirrored"))
    pixels = {"scaler": "none", "pixels": [4, 4]}
    colder = {"cell_px": 16}, {"orientations": 5}, {"block_norm": "L1"}, {"scaler": "none"}, {}, {"signed": True}
    colder += {"sqrt": True}, {"block_norm": "none"}, pixels, {**pixels, "pixels_weight": 2.0}, {"scaler": "none"}
    for options in colder:
        svm(**options).out_of_fold(X[:60], y[:60], None, None, X[60:])
    svm().out_of_fold(mirrored[:60], y[:60], None, None, X[60:])
    svm().out_of_fold(X[:60], y[:60], None, None, mirrored[60:])
    svm().out_of_fold(X[1:60], y[1:60], None, None, X[60:])
    assert len(list((tmp_path / "cache" / "arrays").iterdir())) == 13


def test_out_of_fold_without_any_variance():
    X, y = np.full((9, 32, 32), 7, np.uint8), toy((5, 4, 0))[1]
    X_new = toy((2, 2, 2))[0]
    p = svm().out_of_fold(X, y, None, None, X_new)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateModelWarning)
        np.testing.assert_array_equal(p.argmax(axis=1), svm().fit(X, y).predict_proba(X_new).argmax(axis=1))


def test_very_many_rows_are_a_plain_fit(monkeypatch):
    """A kernel matrix of them would not fit into memory; HOG vectors are then read anew for each call."""
    monkeypatch.setattr(HogSvmClassifier, "max_kernel_rows", 10)
    X, y = toy((6, 5, 4))
    np.testing.assert_array_equal(svm().out_of_fold(X, y, None, None, X), svm().fit(X, y).predict_proba(X))


def test_two_classes_have_a_logistic_function_of_the_decision_value():
    """Probabilities fitted as libsvm does may disagree with its decision; these must not."""
    classifier = svm().fit(*toy((6, 5, 0)))
    X, _ = toy((9, 9, 9), seed=2)
    decisions = classifier.pipeline_.decision_function(classifier.hog.features(X).astype(float))
    np.testing.assert_allclose(classifier.predict_proba(X)[:, 1], 1 / (1 + np.exp(-3 * decisions)))


def test_an_undecided_pair_has_a_small_margin():
    """Votes jump there: a record between two classes then is as certain as any other."""
    left, right = (HogSvmClassifier._scores_of(np.array([[d, 2.0, 1.9]])) for d in (-1e-6, 1e-6))
    np.testing.assert_allclose(left, right, atol=1e-5)
    assert left[0, 0] == pytest.approx(left[0, 1], abs=0.01)
    assert left[0, 2] < left[0, 1] - 1


def test_relative_gamma_is_scikit_learns_scale():
    features = np.random.default_rng(0).normal(3.0, 2.0, (20, 7))
    scale = 1 / (7 * features.var())
    assert absolute_gamma("1.0x", features) == pytest.approx(scale)
    assert absolute_gamma("0.25x", features) == pytest.approx(scale / 4)
    assert absolute_gamma(0.5, features) == 0.5
    assert absolute_gamma("1.0x", np.ones((4, 2))) == 1.0


def test_a_model_that_predicts_one_class_for_everything_is_warned_about():
    """The original's gamma range did this on real data, and nobody noticed."""
    X, y = toy((12, 2, 2))
    with pytest.warns(DegenerateModelWarning, match=r"'brak_Empty zone' for all 16 training images: svm\.gamma=1e-09x"):
        svm(C=1e-6, gamma="1e-09x", class_weight=None).fit(X, y)


@pytest.mark.parametrize("options", [{"pca_components": 500}, {"pca_variance": 1.0}], ids=str)
def test_more_components_than_records_are_cut(options):
    """Nine records differ in eight directions."""
    assert svm(**options).fit(*toy((3, 3, 3))).pipeline_[1].n_components_ == 8


def test_colour_images_of_another_size_are_taken():
    X, y = toy((4, 4, 4))
    colour = np.stack([np.repeat(np.repeat(X, 2, axis=1), 3, axis=2)] * 3, axis=-1)
    assert svm().fit(colour, y).predict_proba(colour).shape == (12, len(LABELS))


@pytest.mark.parametrize("X", [np.zeros((2, 32, 32)), np.zeros((2, 32), np.uint8), np.zeros((2, 8, 8, 4), np.uint8)])
def test_arrays_that_are_no_images(X):
    with pytest.raises(ValueError, match=r"X: got .*; allowed: uint8"):
        svm().fit(X, ["a", "b"])


def test_keys_reach_the_classifier():
    """An option that does nothing is worse than none."""
    values = {
        "hog": {
            **{"size_px": 64, "orientations": 6, "signed": True, "cell_px": 16, "sqrt": True, "block_cells": 3},
            **{"block_norm": "L1", "pixels": [4, 3], "pixels_weight": 0.5},
        },
        "scaler": "none",
        "pca": {"variance": 0.5, "components": 7},
        "svm": {"kernel": "linear", "C": 2, "gamma": 0.1, "class_weight": None},
    }
    expected = {**values["hog"], **values["svm"], "scaler": "none", "pca_variance": 0.5, "pca_components": 7}
    assert HogSvmClassifier.from_config(values, seed=0).get_params() == expected

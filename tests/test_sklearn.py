"""The classifiers are scikit-learn estimators: its own checks, and its tools on uint8 images."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils import estimator_checks, get_tags
from test_classifiers import LABELS, cnn, embed, svm, toy, vpt

from spectro.classifiers import CascadeClassifier, PixelsClassifier
from spectro.errors import ConfigError

X, Y = toy((9, 9, 9))
MAKERS = {
    "hog_svm": svm,
    "pixels": PixelsClassifier,
    "embed": embed,
    "cnn": lambda: cnn(epochs=1),
    "vpt": lambda: vpt(epochs=1),
    "cascade": lambda: CascadeClassifier(PixelsClassifier(), PixelsClassifier(), {"merged": LABELS[:2]}),
}
every = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
# `check_parameters_default_constructible` is left out: it refuses defaults that are made for each estimator, as
# `training` and `loss` of networks are, so that estimators share none.
PARAMETER_CHECKS = (
    "estimator_cloneable estimator_tags_renamed valid_tag_types estimator_repr no_attributes_set_in_init "
    "do_not_raise_errors_in_init_or_set_params mixin_order get_params_invariance set_params estimators_unfitted "
    "n_features_in_after_fitting requires_y_none"
)
# They give rows of features, which `OfRows` turns into images. Left out are checks of what uint8 images do not have
# (NaN, sparse matrices, data frames, a number of features) and of sample weights, which no family takes.
DATA_CHECKS = (
    "classifiers_classes classifiers_one_label classifiers_regression_target classifier_data_not_an_array "
    "dict_unchanged dont_overwrite_parameters estimators_dtypes estimators_fit_returns_self "
    "estimators_overwrite_params f_contiguous_array_estimator fit2d_1feature fit2d_1sample fit_check_is_fitted "
    "fit_idempotent fit_score_takes_y methods_sample_order_invariance methods_subset_invariance pipeline_consistency "
    "readonly_memmap_input"
)


class OfRows(PixelsClassifier):
    """Takes rows of features as images, a band of grey for each feature."""

    def fit(self, X, y, X_val=None, y_val=None):
        return super().fit(self.images(X), y)

    def predict_proba(self, X):
        return super().predict_proba(self.images(X))

    def images(self, X):
        grey = np.clip(128 + 25 * np.asarray(X, dtype=float), 0, 255).astype(np.uint8)
        return np.repeat(np.repeat(grey[:, None], 15, axis=1), 40, axis=2)


@every
@pytest.mark.parametrize("check", PARAMETER_CHECKS.split())
def test_checks_of_parameters(make, check):
    getattr(estimator_checks, f"check_{check}")(check, make())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("check", DATA_CHECKS.split())
def test_checks_of_data(check):
    getattr(estimator_checks, f"check_{check}")(check, OfRows())


@every
def test_tags_are_of_images(make):
    """Tools that read them must not reshape images into rows."""
    tags = get_tags(make()).input_tags
    assert (tags.three_d_array, tags.two_d_array) == (True, False)


@every
@pytest.mark.filterwarnings("ignore:the fitted SVM")
def test_cross_validation_and_grid_search(make):
    """Images and text labels go through scikit-learn's splitters and clones."""
    assert cross_val_score(make(), X, Y, cv=3).shape == (3,)
    name = {"hog_svm": "C", "embed": "C", "pixels": "C", "cascade": "hard__C"}.get(make().family, "training__lr")
    search = GridSearchCV(make(), {name: [1e-6, 0.01]}, cv=2).fit(X, Y)
    assert search.best_params_[name] == search.best_estimator_.get_params()[name]
    assert len(search.predict(X)) == len(X)


def test_labels_may_be_numbers(tmp_path):
    y = np.searchsorted(sorted(LABELS), Y)
    assert cross_val_score(svm(), X, y, cv=3).mean() > 0.9
    assert svm().fit(X, y).predict(X).dtype == y.dtype


def test_nested_parameters_of_one_network_are_not_another_ones():
    """A default that estimators share would change with one of them."""
    first, second = cnn().__class__(), cnn().__class__()
    first.set_params(training__lr=0.5, loss__name="focal")
    assert (second.training.lr, second.loss.name) == (0.0003, "cross_entropy")
    assert clone(first).training.lr == 0.5
    with pytest.raises(ValueError, match=r"train.lr: got -1; allowed: greater than 0"):
        first.set_params(training__lr=-1).fit(X, Y)
    with pytest.raises(ConfigError, match=r"model.family: got 'cascade'"):
        CascadeClassifier.from_config({}, seed=0)

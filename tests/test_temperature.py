"""Temperature: probabilities that say how sure one can be, in the order of the scores."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from test_classifiers import cnn, svm, toy

from spectro.classifiers import PixelsClassifier
from spectro.classifiers.temperature import MIN_RECORDS, fit_temperature, probabilities


@given(arrays(float, (4, 3), elements=st.floats(-50, 50)), st.floats(0.01, 100))
def test_rows_sum_to_one_and_the_largest_score_wins(scores, temperature):
    """A temperature that changed the prediction would make the probabilities those of another model."""
    p = probabilities(scores, temperature)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    winner = scores.argmax(axis=1)
    assert (p[np.arange(4), winner] == p.max(axis=1)).all()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_finds_the_temperature_that_made_the_labels(temperature):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(4000, 3)) * 2
    labels = (probabilities(scores, temperature).cumsum(axis=1) > rng.random((4000, 1))).argmax(axis=1)
    assert abs(fit_temperature(scores, labels) / temperature - 1) < 0.15
    assert fit_temperature(scores[: MIN_RECORDS - 1], labels[: MIN_RECORDS - 1]) is None


def test_a_perfect_val_set_does_not_make_certainty():
    """On ten records that are all right, plain likelihood would end at the coldest temperature allowed."""
    labels = np.arange(10) % 2
    scores = np.eye(2)[labels] * 2.0
    p = probabilities(scores, fit_temperature(scores, labels)).max(axis=1)
    # Ten of ten right, and of one more nobody knows: half of it is wrong.
    np.testing.assert_allclose(p, 10.5 / 11, atol=1e-3)


@pytest.mark.parametrize("make", [svm, PixelsClassifier, lambda: cnn(epochs=3)], ids=["hog_svm", "pixels", "cnn"])
def test_a_temperature_changes_no_prediction(make):
    """It is fitted with 8 val records and more, and changes how sure the model is, never of what."""
    few, enough = (make().fit(*toy((8, 6, 4)), *toy(n, seed=1)) for n in ((3, 3, 1), (3, 3, 2)))
    assert (few.temperature_, few.temperature_fitted_) == (1.0, False)
    assert enough.temperature_fitted_
    assert enough.temperature_ != 1.0
    X, _ = toy((6, 6, 6), seed=2)
    before = enough.predict(X)
    enough.temperature_ = 1.0
    np.testing.assert_array_equal(enough.predict(X), before)

"""The cascade: two stages, each with its own labels, composed into one distribution."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from test_classifiers import LABELS, svm, toy

from spectro.classifiers import CascadeClassifier, load
from spectro.classifiers.base import ImageClassifier
from spectro.data import ImageSpec

GROUPS = {"left": ("a", "b"), "right": ("d", "e", "f")}


class Memory(ImageClassifier):
    """Keeps the labels that it was fitted with; predicts given probabilities, or random ones."""

    family = "memory"
    specs = [ImageSpec(8, "L")]  # noqa: RUF012 - a constant

    def __init__(self, name: str = ""):
        self.name = name

    def _fit(self, X, y, X_val, y_val):
        self.seen_ = (sorted(y), sorted(y_val))
        self.p_ = None

    def _predict_proba(self, X):
        rng = np.random.default_rng(len(self.classes_))
        return rng.dirichlet(np.ones(len(self.classes_)), len(X)) if self.p_ is None else self.p_

    def _save(self, folder):
        return {}

    def _load(self, folder, fitted):
        pass


def fitted(gate="soft", look_alikes=GROUPS):
    y = np.array(list("aabbbccddef"), dtype=object)
    X = np.zeros((len(y), 8, 8), np.uint8)
    cascade = CascadeClassifier(Memory("easy"), Memory("hard"), look_alikes, gate)
    return cascade.fit(X, y, X[:3], np.array(["a", "c", "f"], dtype=object))


def test_stages_see_their_own_records_under_their_own_labels():
    """A hard stage that saw the easy classes, or an easy one that saw the pair apart, would be no cascade."""
    cascade = fitted()
    assert cascade.easy_.seen_ == (sorted(["left"] * 5 + ["c"] * 2 + ["right"] * 4), ["c", "left", "right"])
    assert cascade.hard_["left"].seen_ == (list("aabbb"), ["a"])
    assert cascade.hard_["right"].seen_ == (list("ddef"), ["f"])
    assert list(cascade.classes_) == list("abcdef")


def test_soft_gate_is_the_product():
    cascade = fitted()
    X = np.zeros((4, 8, 8), np.uint8)
    stages = cascade.outputs(X)[0]
    p = cascade.predict_proba(X)
    np.testing.assert_array_equal(stages[""].probabilities, p)
    merged = dict(zip(stages["easy"].classes, stages["easy"].probabilities.T, strict=True))
    np.testing.assert_allclose(p[:, 0], merged["left"] * stages["hard/left"].probabilities[:, 0])
    np.testing.assert_allclose(p[:, 2], merged["c"])
    np.testing.assert_allclose(p[:, 5], merged["right"] * stages["hard/right"].probabilities[:, 2])


def distributions(k):
    return arrays(float, (3, k), elements=st.floats(0.01, 1)).map(lambda a: a / a.sum(axis=1, keepdims=True))


@given(distributions(3), distributions(2), distributions(3), st.sampled_from(["soft", "hard"]))
def test_a_composition_is_a_distribution(easy, left, right, gate):
    """Soft, the group keeps what the easy stage gave it; hard, as the original did it, the easy choice is final."""
    cascade = fitted(gate)
    cascade.easy_.p_, cascade.hard_["left"].p_, cascade.hard_["right"].p_ = easy, left, right
    p = cascade.predict_proba(np.zeros((3, 8, 8), np.uint8))
    assert (p >= 0).all()
    np.testing.assert_allclose(p.sum(axis=1), 1)
    if gate == "soft":
        np.testing.assert_allclose(p[:, :2].sum(axis=1), easy[:, 1])
        return
    for row, label in enumerate(cascade.classes_[p.argmax(axis=1)]):
        choice = cascade.easy_.classes_[easy[row].argmax()]
        hard = {"left": left, "right": right}.get(choice)
        assert label == ("c" if hard is None else cascade.hard_[choice].classes_[hard[row].argmax()])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gate": "open"}, "gate: got 'open'; allowed: soft, hard"),
        ({"look_alikes": {}}, "got none"),
        ({"look_alikes": {"left": ["a"]}}, "two or more"),
        ({"look_alikes": {"left": ["a", "b"], "right": ["b", "d"]}}, "'b' is already in 'left'"),
        ({"look_alikes": {"c": ["a", "b"]}}, "got group 'c', which is also a class outside"),
    ],
    ids=str,
)
def test_parameters_that_make_no_sense(options, message):
    """In Python nobody has checked the mapping before."""
    with pytest.raises(ValueError, match=message):
        fitted(**options)


def test_a_group_that_train_does_not_have_is_no_stage():
    cascade = CascadeClassifier(Memory(), Memory(), {"left": ("a", "b"), "none": ("x", "y")})
    X = np.zeros((4, 8, 8), np.uint8)
    with pytest.warns(UserWarning, match="look_alikes: no training records of x, y"):
        cascade.fit(X, np.array(list("aabc"), dtype=object))
    assert list(cascade.hard_) == ["left"]


def test_group_named_as_its_member(tmp_path):
    """A merged label may bear the name of one of its classes."""
    X, y = toy((6, 6, 6))
    cascade = CascadeClassifier(svm(), svm(), {LABELS[0]: LABELS[:2]}).fit(X, y)
    assert (cascade.predict(X) == y).all()
    cascade.save(tmp_path)
    assert (load(tmp_path).predict(X) == y).all()


def test_stages_of_different_families():
    """Easy and hard need not be of one family, nor want the same images."""
    cascade = CascadeClassifier(Memory(), svm(), {"merged": LABELS[:2]}).fit(*toy((5, 5, 5)))
    assert cascade.specs == [ImageSpec(8, "L"), ImageSpec(32, "L")]
    assert cascade.predict_proba(toy((2, 2, 2))[0]).shape == (6, 3)

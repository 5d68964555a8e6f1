"""The contract of all classifiers: scikit-learn's, with val records beside the training records."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from spectro import knobs
from spectro.classifiers.manifest import share_frozen, write_manifest
from spectro.data.decode import ImageSpec
from spectro.data.images import Images
from spectro.errors import ConfigError, ModelError
from spectro.imports import quick_imports

with quick_imports("pandas"):  # scikit-learn 1.9 imports it, and pyarrow, where they are there, and does not use them
    from sklearn.base import BaseEstimator, ClassifierMixin, clone
    from sklearn.utils import Tags
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted

# Raise it when the files of a saved model change their meaning.
FORMAT = 6
# What a family computes of n records: effects of places on the margin between two scores ``(n, h, w)``, in any unit;
# the records as the model sees them, uint8 ``(n, height, width)`` or ``(n, height, width, 3)``; the method's name.
Effects = tuple[np.ndarray, np.ndarray, str]


class StageOutput(NamedTuple):
    """Classes, sorted ``(k,)``, and probabilities ``(n, k)``: of a classifier, or of one stage of a cascade."""

    classes: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True)
class Attribution:
    """The attribution map of one record.

    Attributes:
        map: ``(h, w)``, 0 to 1: 0 does not raise the label's score, 1 is the largest effect in this image; all 0 where
            nothing raises it. It covers the whole of ``seen``, mostly in far fewer places.
        seen: The record as the model sees it, uint8 ``(height, width)`` or ``(height, width, 3)``.
        method: How the map was computed, a few words.
        stage: The stage of a cascade that separates the two labels; empty: no stages.
        is_drawing: Whether ``seen`` is a drawing of features, dark on white, such as HOG strokes.
        is_whole: Whether ``seen`` covers the whole record and nothing else, in whatever shape.
    """

    map: np.ndarray
    seen: np.ndarray
    method: str
    stage: str = ""
    is_drawing: bool = False
    is_whole: bool = True


def as_labels(y: Any) -> np.ndarray:
    """Labels ``(n,)``: text as objects, numbers as they are."""
    y = np.asarray(y)
    return y.astype(object) if y.dtype.kind in "SU" else y


class ImageClassifier(ClassifierMixin, BaseEstimator, ABC):
    """Base of all classifiers of images, which are scikit-learn estimators.

    A family is a subclass with the decorator `register_family`. Its constructor stores keyword arguments and does
    nothing else, most easily as a dataclass: ``@dataclass(eq=False, kw_only=True, repr=False)``; the annotations of the
    arguments declare the family's keys in a configuration, see `spectro.knobs.build`. It defines `specs`, `_fit`,
    `_predict_proba`, `_save` and `_load`. Where all training labels are of one class, the base class predicts it with
    certainty and calls none of these.

    Attributes:
        classes_: The labels, sorted; the order of the columns of `predict_proba`.
    """

    # Set by `register_family`.
    family: ClassVar[str]
    # Whether it has epochs, in each of which another view of a record can be drawn.
    draws_views: ClassVar[bool] = False
    # False for a cascade, which is saved and loaded through its stages.
    _constant_if_one_class: ClassVar[bool] = True
    # The families that a configuration names instead of one that is made of classifiers.
    _instead: ClassVar[str] = ""
    # Whether the images of `_effects` are drawings of features.
    _sees_drawing: ClassVar[bool] = False
    classes_: np.ndarray

    @classmethod
    def from_config(cls, values: Mapping[str, Any], *, seed: int, prefix: str = "", context: str = "") -> Self:
        """The unfitted classifier from the family's sections of a configuration, see `spectro.knobs.build`.

        Args:
            values: Sections and keys; keys that are missing have their defaults.
            seed: For a family whose constructor takes one.
            prefix: Stands before every key in a message.
            context: Stands behind "unknown key" in a message.

        Raises:
            ConfigError: A line for each invalid key.
        """
        if cls._instead:
            raise ConfigError(f"model.family: got {cls.family!r}; allowed: {cls._instead}")
        classifier = knobs.build(cls, values, prefix, context)
        if "seed" in classifier.get_params(deep=False):
            classifier.seed = seed
        if problems := classifier.contradictions():
            raise ConfigError("\n".join(f"{prefix}{key}: {text}" for key, text in problems))
        return classifier

    def contradictions(self) -> list[tuple[str, str]]:
        """Problems between parameters that are valid one by one: dotted key, and what is allowed."""
        return []

    @property
    @abstractmethod
    def specs(self) -> list[ImageSpec]:
        """The geometries of the images that it reads; they are decoded once and cached."""

    @property
    def facts(self) -> dict[str, Any]:
        """JSON values of the fitted classifier that a run records besides its metrics."""
        return {}

    @property
    def chooses_on_val(self) -> bool:
        """Whether `fit` makes a choice on val that changes predicted labels, such as the best epoch.

        A temperature is none: it leaves the largest probability the largest.
        """
        return False

    def prepare(self) -> None:
        """Checks, before any data are read, that everything is there that `fit` needs, e.g. pretrained weights.

        Raises:
            SpectroError: Names what is missing, and what is allowed.
        """

    def fit(
        self,
        X: Images | np.ndarray,
        y: np.ndarray,
        X_val: Images | np.ndarray | None = None,
        y_val: np.ndarray | None = None,
    ) -> Self:
        """Fits to training records.

        Args:
            X: Training records: `Images`, or uint8 ``(n, height, width)`` or ``(n, height, width, 3)``.
            y: Their labels, ``(n,)``.
            X_val: Val records, for choices that are made on val; None: no such choices.
            y_val: Their labels. Records of classes that are not in ``y`` are ignored.

        Returns:
            self.

        Raises:
            ValueError: A parameter is invalid; no records, or not one label for each.
        """
        self._check_params()
        if y is None:
            raise ValueError("y: got None; fit requires y to be passed, but the target y is None")
        y = as_labels(y)
        if len(X) == 0 or len(X) != len(y):
            raise ValueError(f"X and y: got {len(X)} images and {len(y)} labels; allowed: as many, at least one")
        check_classification_targets(y)
        self.classes_ = np.array(sorted(set(y)), dtype=y.dtype)
        if X_val is None or y_val is None:
            X_val, y_val = X[:0], y[:0]
        y_val = as_labels(y_val)
        known = np.isin(y_val, self.classes_)
        if not self._is_constant:
            self._fit(X, y, X_val[known], y_val[known])
        return self

    def predict_proba(self, X: Images | np.ndarray) -> np.ndarray:
        """Probabilities ``(n, k)``: rows sum to 1, columns in the order of ``classes_``.

        Raises:
            NotFittedError: `fit` was not called.
            ModelError: A damaged model gives other than finite probabilities of its classes.
        """
        check_is_fitted(self, "classes_")
        if len(X) == 0 or self._is_constant:
            return np.ones((len(X), len(self.classes_)))
        return self._checked(self._predict_proba(X), len(X))

    def outputs(self, X: Images | np.ndarray) -> tuple[dict[str, StageOutput], np.ndarray]:
        """The outputs of the whole classifier, whose name is empty, and of each stage of a cascade; and `features`.

        Raises:
            NotFittedError: `fit` was not called.
            ModelError: As of `predict_proba`.
        """
        check_is_fitted(self, "classes_")
        if len(X) == 0 or self._is_constant:
            return {"": StageOutput(self.classes_, self.predict_proba(X))}, np.zeros((len(X), 1))
        probabilities, features = self._outputs(X)
        return {"": StageOutput(self.classes_, self._checked(probabilities, len(X)))}, features

    def features(self, X: Images | np.ndarray) -> np.ndarray:
        """Features of records ``(n, d)``, float64, in which records that the fitted classifier sees as alike are near.

        Principal components of a support vector machine, the inputs of a network's head; of a cascade those of its easy
        stage, of an ensemble those of its first member. A family without features gives the logarithms of its
        probabilities. With one class only, and without records, there is one feature, which is 0.
        """
        return self.outputs(X)[1]

    def predict(self, X: Images | np.ndarray) -> np.ndarray:
        """Labels ``(n,)``, those of the largest probability."""
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]

    def out_of_fold(self, X: Any, y: np.ndarray, X_val: Any, y_val: np.ndarray | None, X_new: Any) -> np.ndarray:
        """Probabilities ``(m, k)`` of new records by a copy of this classifier that is fitted and not kept.

        ``clone(self).fit(X, y, X_val, y_val).predict_proba(X_new)``; a family may have a faster way to the same
        predictions, with probabilities that differ by rounding and its solver's tolerance.

        Raises:
            ValueError: As `fit` does.
        """
        return clone(self).fit(X, y, X_val, y_val).predict_proba(X_new)

    def stage_labels(self, y: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Labels as the whole classifier and each stage see them ``(n,)``, and the rows of the records that it is for.

        By the names of `outputs`; it need not be fitted.
        """
        return {"": (y, np.arange(len(y)))}

    def stages_out_of_fold(self, X: Any, y: np.ndarray, X_val: Any, y_val: Any, X_new: Any) -> dict[str, StageOutput]:
        """`out_of_fold` with classes, by the names of `outputs`."""
        return {"": StageOutput(np.array(sorted(set(y)), dtype=object), self.out_of_fold(X, y, X_val, y_val, X_new))}

    def attribution(
        self, X: Images | np.ndarray, labels: np.ndarray, others: np.ndarray | None = None
    ) -> list[Attribution | None]:
        """Which places of each image raise one label's score above another's.

        Args:
            X: Records, ``n`` of them.
            labels: The label that is to be explained, mostly the predicted one, ``(n,)``.
            others: The label that it is compared with, such as the true one, ``(n,)``. Where it is the label itself or
                not in ``classes_``, and everywhere without it: the most probable of the other classes.

        Returns:
            One for each record; None where the family, or this model, has none.

        Raises:
            NotFittedError: `fit` was not called.
            ValueError: A label is not in ``classes_``, or there is not one for each record.
        """
        check_is_fitted(self, "classes_")
        others = labels if others is None else others
        column = {label: number for number, label in enumerate(self.classes_)}
        unknown = sorted(set(labels) - set(column))
        if unknown or not len(X) == len(labels) == len(others):
            got = f"got {len(X)} images and {len(labels)} labels" + (f", {unknown} unknown" if unknown else "")
            raise ValueError(f"labels, others: {got}; allowed: one for each, of {', '.join(column)}")
        if len(X) == 0 or len(column) == 1:
            return [None] * len(X)
        first = np.array([column[label] for label in labels])
        second = np.array([column.get(label, -1) for label in others])
        probabilities = self.predict_proba(X)
        probabilities[np.arange(len(X)), first] = -1
        second = np.where((second < 0) | (second == first), probabilities.argmax(axis=1), second)
        return self._attributions(X, first, second)

    def save(self, folder: Path) -> None:
        """Writes the fitted model into ``folder``: JSON, the family's files, and a list of them with their SHA-256.

        No file holds code.
        """
        folder.mkdir(parents=True, exist_ok=True)
        state = {"format": FORMAT, "family": self.family, "params": self._params(), "classes": self.classes_.tolist()}
        if not self._is_constant:
            state["fitted"] = self._save(folder)
            share_frozen(folder)
        (folder / "model.json").write_text(json.dumps(state, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        write_manifest(folder)

    def __sklearn_tags__(self) -> Tags:
        """Images, not rows of features."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        return tags

    def _checked(self, probabilities: np.ndarray, n: int) -> np.ndarray:
        if probabilities.shape != (expected := (n, len(self.classes_))) or not np.isfinite(probabilities).all():
            is_finite = "finite" if np.isfinite(probabilities).all() else "NaN or infinite"
            raise ModelError(
                f"{self.family}: got {is_finite} probabilities {probabilities.shape}; expected finite ones {expected}: "
                "the model, or the training that it is of, is damaged"
            )
        return probabilities

    @property
    def _is_constant(self) -> bool:
        return self._constant_if_one_class and len(self.classes_) == 1

    def _check_params(self) -> None:
        """Raises a ValueError for parameters that `from_config` would refuse."""
        try:
            knobs.check(self)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        for key, text in self.contradictions():
            raise ValueError(f"{key}: {text}")

    def _params(self) -> dict[str, Any]:
        """The constructor's arguments, and those inside them such as ``training__lr``, as JSON values."""
        return {name: value for name, value in self.get_params().items() if not hasattr(value, "get_params")}

    @classmethod
    def _from_params(cls, params: dict[str, Any]) -> Self:
        return cls().set_params(**params)

    @abstractmethod
    def _fit(self, X: Any, y: np.ndarray, X_val: Any, y_val: np.ndarray) -> None:
        """Fits to two classes or more; ``X_val`` may be empty and holds none but these classes."""

    @abstractmethod
    def _predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities ``(n, k)`` of at least one record."""

    def _outputs(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities ``(n, k)`` and features ``(n, d)`` of at least one record."""
        probabilities = self._predict_proba(X)
        return probabilities, np.log(np.maximum(probabilities, 1e-12))

    @abstractmethod
    def _save(self, folder: Path) -> dict[str, Any]:
        """Writes fitted parts as files and returns the rest as JSON values."""

    @abstractmethod
    def _load(self, folder: Path, fitted: dict[str, Any]) -> None:
        """Takes back what `_save` wrote and returned; no code may come from the files."""

    def _attributions(self, X: Any, labels: np.ndarray, others: np.ndarray) -> list[Attribution | None]:
        """Negative effects are cut off, and the largest effect of a record becomes 1."""
        if (effects := self._effects(X, labels, others)) is None:
            return [None] * len(X)
        values, seen, method = effects
        values = np.maximum(np.asarray(values, dtype=np.float64), 0.0)
        largest = values.max(axis=(1, 2), keepdims=True)
        maps = np.divide(values, largest, out=np.zeros_like(values), where=largest > 0).astype(np.float32)
        is_whole = all(spec.fit == "squash" for spec in self.specs)
        return [
            Attribution(record_map, image, method, is_drawing=self._sees_drawing, is_whole=is_whole)
            for record_map, image in zip(maps, seen, strict=True)
        ]

    def _effects(self, X: Any, labels: np.ndarray, others: np.ndarray) -> Effects | None:
        """How far each place of each record raises one class above another one; None: the family has no such method.

        Args:
            X: Records, ``n``, at least one.
            labels: The number of the first class, ``(n,)``.
            others: The number of the second one, ``(n,)``.
        """
        return None

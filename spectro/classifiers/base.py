"""The contract that every family and the cascade keep."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.validation import check_is_fitted

from spectro import knobs
from spectro.classifiers.attribution import Attribution, Effects, attributions
from spectro.data.decode import ImageSpec
from spectro.data.images import Images
from spectro.errors import ConfigError

# Raise it when the files of a saved model change their meaning.
FORMAT = 1


class ImageClassifier(ClassifierMixin, BaseEstimator):
    """Base of all classifiers of images: scikit-learn's contract, with val beside train.

    A subclass stores its keyword arguments in ``__init__``, sets ``family`` to the name of its module and fills in
    ``specs``, ``_fit``, ``_predict_proba``, ``_save`` and ``_load``. Where the training labels hold one class only, the
    base predicts it with certainty and the subclass is not asked.

    Attributes:
        classes_: Labels as text, sorted; the order of the columns of `predict_proba`.
    """

    # Set by `register_family`.
    family: ClassVar[str]
    # Whether it has epochs, in each of which another view of a record can be drawn.
    draws_views: ClassVar[bool] = False
    # The cascade asks its stages even then: they are what it is saved and loaded by.
    _constant_if_one_class: ClassVar[bool] = True
    classes_: np.ndarray

    @property
    def specs(self) -> list[ImageSpec]:
        """The geometries in which images will be asked for."""
        raise TypeError(f"{type(self).__name__} does not say which images it wants")

    @property
    def facts(self) -> dict[str, Any]:
        """What a run should record of the fitted classifier besides its metrics; JSON values."""
        return {}

    @property
    def chooses_on_val(self) -> bool:
        """Whether `fit` chooses on val what a record is called, such as the best epoch.

        False also where val only makes probabilities warmer or colder: the largest one stays the largest.
        """
        return False

    @classmethod
    def from_config(cls, values: Mapping[str, Any], *, seed: int, prefix: str = "", context: str = "") -> Self:
        """The unfitted classifier from the family's sections of a configuration, see `spectro.knobs.build`.

        Args:
            values: Sections and keys; what is not there has its default.
            seed: For a family whose constructor takes one.
            prefix: Stands before every key in a message.
            context: Stands behind "unknown key" in a message.

        Raises:
            ConfigError: A line for each invalid key.
        """
        classifier = knobs.build(cls, values, prefix, context)
        if "seed" in classifier.get_params(deep=False):
            classifier.seed = seed
        if problems := classifier.contradictions():
            raise ConfigError("\n".join(f"{prefix}{key}: {text}" for key, text in problems))
        return classifier

    def contradictions(self) -> list[tuple[str, str]]:
        """Problems between parameters that are valid one by one: dotted key, and what is allowed."""
        return []

    def prepare(self) -> None:
        """Raises what can be known to be wrong before any data are read, e.g. that pretrained weights are not there.

        Raises:
            SpectroError: Names it, and what is allowed.
        """
        return None

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
            X_val: Val records, for what is chosen on val; None: nothing is.
            y_val: Their labels. Records of classes that are not in ``y`` are passed over.

        Returns:
            self.

        Raises:
            ValueError: A parameter is invalid; no records, or not one label for each.
        """
        self._check_params()
        y = np.asarray(y, dtype=object)
        if len(X) == 0 or len(X) != len(y):
            raise ValueError(f"X and y: got {len(X)} images and {len(y)} labels; allowed: as many, at least one")
        self.classes_ = np.array(sorted(set(y)), dtype=object)
        if X_val is None or y_val is None:
            X_val, y_val = X[:0], y[:0]
        known = np.isin(np.asarray(y_val, dtype=object), self.classes_)
        if not self._is_constant:
            self._fit(X, y, X_val[known], np.asarray(y_val, dtype=object)[known])
        return self

    def predict_proba(self, X: Images | np.ndarray) -> np.ndarray:
        """Probabilities ``(n, k)``: rows sum to 1, columns in the order of ``classes_``.

        Raises:
            NotFittedError: `fit` was not called.
        """
        check_is_fitted(self, "classes_")
        if len(X) == 0 or self._is_constant:
            return np.ones((len(X), len(self.classes_))) / len(self.classes_)
        return self._predict_proba(X)

    def out_of_fold(
        self,
        X: Images | np.ndarray,
        y: np.ndarray,
        X_val: Images | np.ndarray | None,
        y_val: np.ndarray | None,
        X_new: Images | np.ndarray,
    ) -> np.ndarray:
        """What a fresh copy of this classifier, fitted and thrown away again, says of new records.

        Exactly ``clone(self).fit(X, y, X_val, y_val).predict_proba(X_new)``; a family may have a shorter way there,
        which gives the same predictions, and probabilities that differ by rounding and its solver's tolerance.

        Args:
            X: Training records, ``n`` of them.
            y: Their labels, ``(n,)``.
            X_val: Val records, or None.
            y_val: Their labels, or None.
            X_new: Records to evaluate, ``m`` of them.

        Returns:
            Probabilities ``(m, k)``, columns in the order of the sorted labels in ``y``.

        Raises:
            ValueError: As `fit` does.
        """
        return clone(self).fit(X, y, X_val, y_val).predict_proba(X_new)

    def predict(self, X: Images | np.ndarray) -> np.ndarray:
        """Labels ``(n,)``: those of the largest probabilities."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def attribution(
        self, X: Images | np.ndarray, labels: np.ndarray, others: np.ndarray | None = None
    ) -> list[Attribution | None]:
        """What in each image made the model say one label rather than another.

        Args:
            X: Records, ``n`` of them.
            labels: The label that is to be explained, mostly the predicted one, ``(n,)``.
            others: The label that it is told from, such as the true one, ``(n,)``. Where it is the label itself or
                none of ``classes_``, and everywhere without it: the most probable of the other classes.

        Returns:
            One for each record; None where the family, or this model, has none.

        Raises:
            NotFittedError: `fit` was not called.
            ValueError: A label is none of ``classes_``, or there is not one for each record.
        """
        check_is_fitted(self, "classes_")
        column = {label: number for number, label in enumerate(self.classes_)}
        unknown = sorted(set(labels) - set(column))
        if unknown or len(labels) != len(X) or (others is not None and len(others) != len(X)):
            found = f"got {len(X)} images and {len(labels)} labels" + (f", {unknown} unknown" if unknown else "")
            raise ValueError(f"labels, others: {found}; allowed: one for each, of {', '.join(column)}")
        if len(X) == 0 or len(self.classes_) == 1:
            return [None] * len(X)
        own = np.array([column[label] for label in labels])
        told_from = np.array([column.get(label, -1) for label in (labels if others is None else others)])
        none = (told_from < 0) | (told_from == own)
        if none.any():
            probabilities = self.predict_proba(X[none])
            probabilities[np.arange(none.sum()), own[none]] = -1
            told_from[none] = probabilities.argmax(axis=1)
        return self._attributions(X, own, told_from)

    def save(self, folder: Path) -> None:
        """Writes the fitted model into ``folder``: JSON, and what the family adds. No file holds code."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {"format": FORMAT, "family": self.family, "params": self._params(), "classes": list(self.classes_)}
        if not self._is_constant:
            state["fitted"] = self._save(folder)
        (folder / "model.json").write_text(json.dumps(state, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def _check_params(self) -> None:
        """Raises a ValueError for parameters that `from_config` would refuse."""
        try:
            knobs.check(self)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        for key, text in self.contradictions():
            raise ValueError(f"{key}: {text}")

    @property
    def _is_constant(self) -> bool:
        return self._constant_if_one_class and len(self.classes_) == 1

    def _params(self) -> dict[str, Any]:
        """The constructor's arguments as JSON values."""
        params = self.get_params(deep=False)
        return {name: p.get_params() if hasattr(p, "get_params") else p for name, p in params.items()}

    @classmethod
    def _from_params(cls, params: dict[str, Any], folder: Path) -> Self:
        # Parameters of an older version that are gone mattered for fitting alone.
        classifier = cls()
        defaults = classifier.get_params(deep=False)
        for name in params.keys() & defaults.keys():
            if hasattr(defaults[name], "get_params"):
                allowed = defaults[name].get_params()
                defaults[name].set_params(**{k: v for k, v in params[name].items() if k in allowed})
            else:
                setattr(classifier, name, params[name])
        return classifier

    def _fit(self, X: Any, y: np.ndarray, X_val: Any, y_val: np.ndarray) -> None:
        raise TypeError(f"{type(self).__name__} does not say how it is fitted")

    def _predict_proba(self, X: Any) -> np.ndarray:
        raise TypeError(f"{type(self).__name__} does not say how it predicts")

    def _attributions(self, X: Any, labels: np.ndarray, others: np.ndarray) -> list[Attribution | None]:
        effects = self._effects(X, labels, others)
        return [None] * len(X) if effects is None else list(attributions(effects))

    def _effects(self, X: Any, labels: np.ndarray, others: np.ndarray) -> Effects | None:
        """How much each place of each record lifts one class above another one; None: the family cannot tell.

        Args:
            X: Records, ``n``, at least one.
            labels: The number of the one class, ``(n,)``.
            others: The number of the other one, ``(n,)``.
        """
        return None

    def _save(self, folder: Path) -> dict[str, Any]:
        """Writes fitted parts as files and returns the rest as JSON values."""
        raise TypeError(f"{type(self).__name__} does not say how it is saved")

    def _load(self, folder: Path, fitted: dict[str, Any]) -> None:
        raise TypeError(f"{type(self).__name__} does not say how it is loaded")

"""Scores -> probabilities that keep the order of the scores."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from spectro.classifiers.base import ImageClassifier
from spectro.classifiers.fit_context import current

# With fewer records than this a temperature is mostly noise.
MIN_RECORDS = 8
# The smallest probability whose logarithm is taken.
SMALLEST = 1e-12
_LOG_BOUNDS = (np.log(1e-2), np.log(1e2))


class ScoringClassifier(ImageClassifier):
    """A family whose probabilities are a softmax over scores, with one temperature that is fitted on val.

    A subclass defines `_scores_and_features`, calls `_fit_temperature` at the end of `_fit`, adds `_temperature_state`
    to the values that `_save` returns and calls `_load_temperature` in `_load`.

    Attributes:
        temperature_: Of the softmax over scores; it does not change the argmax.
        temperature_fitted_: Whether val had enough records to fit it; otherwise it is 1.
    """

    temperature_: float
    temperature_fitted_: bool

    @abstractmethod
    def _scores_and_features(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Scores ``(n, k)`` and `features` ``(n, d)``, float64."""

    def _scores(self, X: Any) -> np.ndarray:
        return self._scores_and_features(X)[0]

    def _predict_proba(self, X: Any) -> np.ndarray:
        return probabilities(self._scores(X), self.temperature_)

    def _outputs(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        scores, features = self._scores_and_features(X)
        return probabilities(scores, self.temperature_), features

    def _fit_temperature(self, scores: np.ndarray | None, y_val: np.ndarray) -> None:
        """Fits the temperature to scores ``(n, k)`` and labels ``(n,)`` of val; None: there are no val records.

        In a fold it is 1: out-of-fold probabilities are what a final temperature may be fitted to.
        """
        fitted = None
        if scores is not None and not current().fold:
            fitted = fit_temperature(scores, np.searchsorted(self.classes_, y_val))
        self.temperature_fitted_ = fitted is not None
        self.temperature_ = 1.0 if fitted is None else fitted

    def calibrate(self, probabilities: np.ndarray, y: np.ndarray) -> None:
        """Fits the temperature to out-of-fold probabilities ``(n, k)`` at temperature 1 and their labels ``(n,)``.

        Rows of zeros, of folds without a model, and of other labels are left out.
        """
        rows = probabilities.any(axis=1) & np.isin(y, self.classes_)
        self._fit_temperature(scores_of(probabilities[rows]), y[rows])

    def _temperature_state(self) -> dict[str, Any]:
        return {"temperature": self.temperature_, "temperature_fitted": self.temperature_fitted_}

    def _load_temperature(self, fitted: Mapping[str, Any]) -> None:
        self.temperature_, self.temperature_fitted_ = float(fitted["temperature"]), bool(fitted["temperature_fitted"])
        if not 0 < self.temperature_ < np.inf:
            raise ValueError(f"temperature: got {self.temperature_}; allowed: above 0, and finite")


def columns(scores: np.ndarray) -> np.ndarray:
    """Decision values ``(n, k)``; of two classes scikit-learn gives one column ``(n,)``."""
    return np.stack([np.zeros_like(scores), scores], axis=1) if scores.ndim == 1 else scores


def probabilities(scores: np.ndarray, temperature: float) -> np.ndarray:
    """Softmax of ``scores / temperature``: ``(n, k)``, rows sum to 1, the largest score keeps the largest share."""
    return softmax(scores / temperature, axis=1)


def scores_of(probabilities: np.ndarray) -> np.ndarray:
    """Scores whose softmax at temperature 1 are these probabilities ``(n, k)``: their logarithms."""
    return np.log(np.maximum(probabilities, SMALLEST))


def fit_temperature(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """The temperature under which val labels are most likely (Guo et al., 2017, "On calibration of modern networks").

    A few val records are often all predicted correctly, and then every smaller temperature is "better". Therefore the
    targets are those of one more record, whose label has the same probability for every class
    (compared with others in docs/background/calibration.md).

    Args:
        scores: ``(n, k)``.
        labels: ``(n,)``, column numbers.

    Returns:
        The temperature; None where there are fewer than `MIN_RECORDS`.
    """
    n, k = scores.shape
    if n < MIN_RECORDS:
        return None
    unknown = 1 / (n + 1)
    targets = (1 - unknown) * np.eye(k)[labels] + unknown / k

    def loss(log_temperature: float) -> float:
        return float(-(targets * log_softmax(scores / np.exp(log_temperature), axis=1)).sum())

    return float(np.exp(minimize_scalar(loss, bounds=_LOG_BOUNDS, method="bounded").x))

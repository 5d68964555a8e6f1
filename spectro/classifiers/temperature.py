"""Scores -> probabilities that keep the order of the scores."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from spectro.classifiers.base import ImageClassifier

# With fewer records than this a temperature says more about chance than about the model.
MIN_RECORDS = 8
_LOG_BOUNDS = (np.log(1e-2), np.log(1e2))


class ScoringClassifier(ImageClassifier):
    """A family whose probabilities are a softmax over scores, with one temperature that is fitted on val.

    A subclass fills in ``_scores``, calls ``_fit_temperature`` at the end of ``_fit``, adds ``_temperature_state()`` to
    what it saves and calls ``_load_temperature`` where it loads.

    Attributes:
        temperature_: Of the softmax over scores; the largest score keeps the largest probability.
        temperature_fitted_: Whether val had enough records to fit it; it is 1 if not.
    """

    temperature_: float
    temperature_fitted_: bool

    def _scores(self, X: Any) -> np.ndarray:
        """Scores ``(n, k)``, float64."""
        raise TypeError(f"{type(self).__name__} does not say how it scores")

    def _predict_proba(self, X: Any) -> np.ndarray:
        return probabilities(self._scores(X), self.temperature_)

    def _fit_temperature(self, scores: np.ndarray | None, y_val: np.ndarray) -> None:
        """Takes the scores of val, None without val records, and their labels."""
        fitted = None if scores is None else fit_temperature(scores, np.searchsorted(self.classes_, y_val))
        self.temperature_fitted_ = fitted is not None
        self.temperature_ = 1.0 if fitted is None else fitted

    def _temperature_state(self) -> dict[str, Any]:
        return {"temperature": self.temperature_, "temperature_fitted": self.temperature_fitted_}

    def _load_temperature(self, fitted: Mapping[str, Any]) -> None:
        # Models from before their family had one have none.
        self.temperature_ = float(fitted.get("temperature", 1.0))
        self.temperature_fitted_ = bool(fitted.get("temperature_fitted", False))


def columns(scores: np.ndarray) -> np.ndarray:
    """Decision values ``(n, k)``; of two classes scikit-learn gives one column ``(n,)``."""
    return np.stack([np.zeros_like(scores), scores], axis=1) if scores.ndim == 1 else scores


def probabilities(scores: np.ndarray, temperature: float) -> np.ndarray:
    """Softmax of ``scores / temperature``: ``(n, k)``, rows sum to 1, the largest score keeps the largest share."""
    return softmax(scores / temperature, axis=1)


def fit_temperature(scores: np.ndarray, labels: np.ndarray, extra: float = 1.0) -> float | None:
    """The temperature under which val labels are most likely (Guo et al., 2017, "On calibration of modern networks").

    A few val records are often all right, and then every colder temperature is "better". Therefore the targets say what
    they would if there were one record more whose label may be any with the same chance. docs/calibration.md compares.

    Args:
        scores: ``(n, k)``.
        labels: ``(n,)``, column numbers.
        extra: How many such records more; 0 is plain likelihood.

    Returns:
        The temperature, or None where there are too few records to fit one.
    """
    n, k = scores.shape
    if n < MIN_RECORDS:
        return None
    unknown = extra / (n + extra)
    targets = (1 - unknown) * np.eye(k)[labels] + unknown / k

    def loss(log_temperature: float) -> float:
        return float(-(targets * log_softmax(scores / np.exp(log_temperature), axis=1)).sum())

    return float(np.exp(minimize_scalar(loss, bounds=_LOG_BOUNDS, method="bounded").x))

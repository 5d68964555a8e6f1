"""Scores -> probabilities that keep the order of the scores."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

# With fewer records than this a temperature says more about chance than about the model.
MIN_RECORDS = 8
_LOG_BOUNDS = (np.log(1e-2), np.log(1e2))


def probabilities(scores: np.ndarray, temperature: float) -> np.ndarray:
    """Softmax of ``scores / temperature``: ``(n, k)``, rows sum to 1, the largest score keeps the largest share."""
    return softmax(scores / temperature, axis=1)


def fit_temperature(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """The temperature under which val labels are most likely (Guo et al., 2017, "On calibration of modern networks").

    A few val records are often all right, and then every colder temperature is "better". Targets are therefore those
    of Platt (1999), "Probabilistic outputs for support vector machines": ``(n_k + 1) / (n_k + 2)`` for a record's own
    class with ``n_k`` val records, the rest shared by the others.

    Args:
        scores: ``(n, k)``.
        labels: ``(n,)``, column numbers.

    Returns:
        The temperature, or None where there are too few records to fit one.
    """
    n, k = scores.shape
    if n < MIN_RECORDS:
        return None
    counts = np.bincount(labels, minlength=k)
    own = ((counts + 1) / (counts + 2))[labels]
    targets = np.repeat(((1 - own) / (k - 1))[:, None], k, axis=1)
    targets[np.arange(n), labels] = own

    def loss(log_temperature: float) -> float:
        return float(-(targets * log_softmax(scores / np.exp(log_temperature), axis=1)).sum())

    return float(np.exp(minimize_scalar(loss, bounds=_LOG_BOUNDS, method="bounded").x))

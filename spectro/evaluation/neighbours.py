"""Whether records are unlike those that a model was fitted to: the distance to their neighbours in feature space."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

Floats = NDArray[np.float64]
# Records that distances are measured to, at most; they are spread evenly over the training records.
MAX_RECORDS = 600
# A single near neighbour may be a record whose label or image is wrong.
_K = 3
_COMPONENTS = 32
# Numbers in all arrays, in single precision less than 200 kB; very many features leave fewer components.
_MAX_NUMBERS = 48_000
FALSE_ALARMS = 0.05
# With fewer the largest distance of all would be exceeded more often.
MIN_RECORDS = round(1 / FALSE_ALARMS) - 1


@dataclass(frozen=True)
class Neighbours:
    """Training records in the principal components of their features, and how far from them is unlike them.

    The distance is that to the k-th nearest training record (Sun et al., 2022, "Out-of-distribution detection with deep
    nearest neighbors", ICML), without dividing features by their length: on few training records and other features
    than those of a network's last layer that finds less, see docs/background/review.md. What the components leave out
    is a distance of its own, as if it were at right angles in every two records.

    Attributes:
        mean: Of the training records' features, ``(d,)``.
        components: Principal components, ``(r, d)``; none where all records are alike.
        records: Training records in them, ``(m, r)``.
        left_out: Squared length of what the components leave out of each training record, ``(m,)``.
        limit: The largest distance of a record like them; None: not known.
        false_alarms: The share of records like them that is further away, at most, on average.
    """

    mean: NDArray[np.float32]
    components: NDArray[np.float32]
    records: NDArray[np.float32]
    left_out: NDArray[np.float32]
    k: int = _K
    limit: float | None = None
    false_alarms: float = FALSE_ALARMS

    def distances(self, features: Floats, excluded: NDArray[np.bool_] | None = None) -> Floats:
        """Distance of each record to its k-th neighbour, ``(n, d)`` to ``(n,)``; infinite without so many.

        Args:
            features: As those that it was fitted to.
            excluded: The training records that do not count for each record, ``(n, m)``; None: none.
        """
        reduced, left_out = _project(features, self.mean, self.components)
        records = self.records.astype(np.float64)
        squares = (reduced**2).sum(axis=1)[:, None] - 2 * reduced @ records.T + (records**2).sum(axis=1)
        squares = np.maximum(squares, 0.0) + left_out[:, None] + self.left_out
        if excluded is not None:
            squares[excluded] = np.inf
        k = min(self.k, len(records))
        return np.sqrt(np.partition(squares, k - 1, axis=1)[:, k - 1])


def fit_neighbours(features: Floats, groups: NDArray[np.intp] | None, new: Floats | None = None) -> Neighbours:
    """Neighbours with a limit that at most 5 % of records like the training records exceed, on average.

    Args:
        features: Of at most `MAX_RECORDS` training records, ``(m, d)``.
        groups: Group of each, ``(m,)``: a recording is no neighbour of its own records. None: the features were learned
            from the labels of these records, whose distances say nothing of new ones then.
        new: Features of records that the model was not fitted to, such as val, for the limit, ``(n, d)``. None, or with
            fewer than 19 of them: the training records, each without those of its group; without groups no limit.
    """
    (m, d), mean = features.shape, features.mean(axis=0)
    r = int(np.clip((_MAX_NUMBERS - d - m) // (d + m), 1, min(_COMPONENTS, m, d)))
    centred = features - mean
    # The smaller one of the two matrices of inner products has the same components (Sirovich, 1987).
    products = centred @ centred.T if m < d else centred.T @ centred
    values, vectors = eigh(products, subset_by_index=[len(products) - r, len(products) - 1])
    there = values > values[-1] * m * np.finfo(np.float64).eps
    values, components = values[there], vectors.T[there]
    components = components @ centred / np.sqrt(values)[:, None] if m < d else components
    singles = mean.astype(np.float32), components[::-1].astype(np.float32)
    reduced, left_out = _project(features, *singles)
    neighbours = Neighbours(*singles, reduced.astype(np.float32), left_out.astype(np.float32))
    if new is None or len(new) < MIN_RECORDS:
        if groups is None:
            return neighbours
        distances = neighbours.distances(features, groups[:, None] == groups)
    else:
        distances = neighbours.distances(new)
    distances = np.sort(distances[np.isfinite(distances)])
    if not len(distances):
        return neighbours
    # The conformal quantile (V. Vovk et al., 2005, "Algorithmic Learning in a Random World").
    rank = min(int(np.ceil((len(distances) + 1) * (1 - FALSE_ALARMS) - 1e-9)), len(distances))
    rate = max(FALSE_ALARMS, 1 / (len(distances) + 1))
    # Single precision, and batches of another size, change the last digits.
    limit = float(distances[rank - 1]) * (1 + 1e-5)
    return Neighbours(*singles, neighbours.records, neighbours.left_out, limit=limit, false_alarms=rate)


def _project(features: Floats, mean: NDArray[np.float32], components: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Features in the components, ``(n, r)``, and the squared length of what these leave out, ``(n,)``."""
    centred, axes = features - mean.astype(np.float64), components.astype(np.float64)
    reduced = centred @ axes.T
    return reduced, np.maximum((centred**2).sum(axis=1) - (reduced**2).sum(axis=1), 0.0)

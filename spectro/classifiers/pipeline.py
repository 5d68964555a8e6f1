"""The base of the families that are a scikit-learn pipeline on features of images."""

from abc import abstractmethod
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from sklearn.pipeline import Pipeline
from threadpoolctl import ThreadpoolController

from spectro.classifiers import sklearn_file
from spectro.classifiers.temperature import ScoringClassifier, columns
from spectro.data.images import Images, groups_of_rows

# Records whose features are held at once while predicting.
_BATCH = 1024
# A product of matrices rounds a row as the number of rows has it: each is of so many, the last of them filled up.
_ROWS = 96
# Training rows from which several threads gain more than they cost.
_ROWS_FOR_THREADS = 2000


class PipelineClassifier(ScoringClassifier):
    """A family whose scores are computed from the decision values of a pipeline.

    Attributes:
        pipeline_: The fitted pipeline.
    """

    pipeline_: Pipeline
    # The types of the pipeline's steps.
    _steps: ClassVar[list[type]]

    @property
    @abstractmethod
    def _n_features(self) -> int:
        """``d`` of `_features`."""

    @abstractmethod
    def _features(self, X: Images | np.ndarray) -> np.ndarray:
        """Features of records, float64 ``(n, d)``."""

    @abstractmethod
    def _fit_pipeline(self, features: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> Pipeline:
        """The pipeline, fitted to features ``(n, d)`` and class numbers ``(n,)``; ``groups`` as of `groups_of_rows`."""

    @staticmethod
    def _scores_of(decisions: np.ndarray) -> np.ndarray:
        """Scores ``(n, k)`` from what the pipeline's ``decision_function`` gives."""
        return columns(decisions)

    def _fit(self, X: Any, y: np.ndarray, X_val: Any, y_val: np.ndarray) -> None:
        features = self._features(X)
        with blas_threads(len(features)):
            self.pipeline_ = self._fit_pipeline(features, np.searchsorted(self.classes_, y), groups_of_rows(X))
            scores = self._scores(X_val) if len(X_val) else None
        self._fit_temperature(scores, y_val)

    def _scores_and_features(self, X: Images | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The features are what the last step of the pipeline reads. Both are the same for a record in any batch."""
        scores, features = [], []
        for batch in (self._features(X[i : i + _BATCH]) for i in range(0, len(X), _BATCH)):
            for rows in (batch[i : i + _ROWS] for i in range(0, len(batch), _ROWS)):
                filled = self.pipeline_[:-1].transform(np.pad(rows, ((0, _ROWS - len(rows)), (0, 0))))
                features.append(filled[: len(rows)])
                scores.append(self._scores_of(self.pipeline_[-1].decision_function(filled))[: len(rows)])
        return np.concatenate(scores), np.concatenate(features)

    def _save(self, folder: Path) -> dict[str, Any]:
        sklearn_file.save(self.pipeline_, folder / "pipeline.skops")
        return self._temperature_state()

    def _load(self, folder: Path, fitted: dict[str, Any]) -> None:
        self.pipeline_ = sklearn_file.load(folder / "pipeline.skops")
        # Any of the types that skops trusts loads, and would fail or give other labels when it predicts.
        found = [type(step) for _, step in getattr(self.pipeline_, "steps", [])]
        if found != self._steps:
            shown, expected = (", ".join(step.__name__ for step in steps) or "none" for steps in (found, self._steps))
            raise ValueError(f"{folder / 'pipeline.skops'}: got the steps {shown}; expected {expected}")
        if (n := self.pipeline_.n_features_in_) != self._n_features:
            raise ValueError(f"{folder / 'pipeline.skops'}: reads {n} features, the model has {self._n_features}")
        self._load_temperature(fitted)


def blas_threads(n_rows: int) -> AbstractContextManager:
    """A context for products of ``n_rows`` training rows.

    With a few hundred rows threads mostly wait for each other, ten times longer beside another busy process.
    """
    return _libraries().limit(limits=1 if n_rows < _ROWS_FOR_THREADS else None, user_api="blas")


@cache
def _libraries() -> ThreadpoolController:
    # The search for loaded libraries takes half as long as a fold.
    return ThreadpoolController()

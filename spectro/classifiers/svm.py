"""Scaler + PCA + support vector machine on any features: what HOG-SVM and embeddings share."""

import hashlib
import json
import math
import warnings
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import AfterValidator, Field
from sklearn import config_context
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from spectro.classifiers.inner_cv import choose
from spectro.classifiers.inputs import block_scaler
from spectro.classifiers.pca import fit_pca, full_scores, n_kept
from spectro.classifiers.pipeline import PipelineClassifier, blas_threads
from spectro.classifiers.temperature import probabilities
from spectro.data.cache import Arrays
from spectro.data.images import Images, groups_of_rows

# Part of every cache key: raise it when the same images give other values.
_CODE_VERSION = 2
# Of the probabilities of pairs: a record on the margin has 0.95. From 2 to 5 the results are alike.
STEEPNESS = 3.0
# What `C=None` chooses from.
_CS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


class DegenerateModelWarning(UserWarning):
    """A fitted model that predicts one class for everything."""


def _check_gamma(gamma: float | str) -> float | str:
    try:
        number = float(gamma.removesuffix("x") if isinstance(gamma, str) else gamma)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf") or (isinstance(gamma, str) and not gamma.endswith("x")):
        raise ValueError("a positive number, or a multiple of scikit-learn's 'scale' such as 1.0x")
    return gamma


Strength = Annotated[Annotated[float, Field(gt=0)] | None, "svm.C"]
Gamma = Annotated[float | str, "svm.gamma", AfterValidator(_check_gamma)]


@dataclass(eq=False, kw_only=True, repr=False)
class SvmClassifier(PipelineClassifier):
    """A support vector machine on principal components of a family's features, and of a thumbnail beside them.

    A subclass defines `specs`, `_features`, `_layout` and `_made_of`.

    Args:
        kernel: ``rbf`` or ``linear``.
        C: Inverse regularisation strength; None: chosen inside the training records by `inner_cv.choose`.
        gamma: Width of the RBF kernel: ``"2.5x"`` is 2.5 times scikit-learn's ``scale``, 1 / (n_features * variance);
            a number is absolute.
        class_weight: ``balanced`` or None.

    Attributes:
        pipeline_: The fitted scaler, PCA and SVM; see `_scores_of`.
        max_kernel_rows: Training rows up to which `out_of_fold` holds a whole kernel matrix: 128 MB.
    """

    _steps: ClassVar[list[type]] = [StandardScaler, PCA, SVC]
    max_kernel_rows: ClassVar[int] = 4000

    kernel: Annotated[Literal["rbf", "linear"], "svm.kernel"] = "rbf"
    C: Strength = 1.0
    gamma: Gamma = "1.0x"
    class_weight: Annotated[Literal["balanced"] | None, "svm.class_weight"] = "balanced"

    @property
    @abstractmethod
    def _layout(self) -> list[tuple[int, float]]:
        """Number of columns and weight of each block of features, see `block_scaler`."""

    @property
    def _n_features(self) -> int:
        return sum(size for size, _ in self._layout)

    @abstractmethod
    def _made_of(self, X: Images) -> list[Any]:
        """JSON values that name what scaled features are made of, besides the records; for caches."""

    def _scaler(self, features: np.ndarray) -> StandardScaler:
        """The scaler, fitted to training rows."""
        return block_scaler(features, *zip(*self._layout, strict=True))

    def _components(self, most: int) -> float | int:
        """A share of the variance below 1, or a number of components, at most ``most``."""
        return most

    def _fit_pipeline(self, features: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> Pipeline:
        scaler = self._scaler(features)
        scaled = scaler.transform(features)
        pca = fit_pca(scaled, self._components(min(features.shape)))
        # They are most of a saved model, and the rest of their digits changes no prediction.
        pca.components_ = pca.components_.astype(np.float16)
        reduced = pca.transform(scaled)
        C = self.C or self._choose_c(features, labels, groups)
        svc = self._svc(self.kernel, C, absolute_gamma(self.gamma, reduced)).fit(reduced, labels)
        predicted = set(self._scores_of(svc.decision_function(reduced)).argmax(axis=1))
        if len(predicted) == 1:
            warnings.warn(
                f"the fitted SVM predicts {self.classes_[predicted.pop()]!r} for all {len(labels)} training images: "
                f"svm.gamma={self.gamma} with svm.C={C} does not suit these features",
                DegenerateModelWarning,
                stacklevel=2,
            )
        return make_pipeline(scaler, pca, svc)

    def out_of_fold(self, X: Any, y: np.ndarray, X_val: Any, y_val: np.ndarray | None, X_new: Any) -> np.ndarray:
        """As the base class states, from the fold's components and a kernel matrix, which take a tenth of the time.

        There is no `DegenerateModelWarning` here. With val records, which the temperature is fitted to, with one class
        only and with very many rows it is a plain fit.
        """
        y = np.asarray(y, dtype=object)
        classes = np.array(sorted(set(y)), dtype=object)
        has_val = y_val is not None and len(y_val) > 0
        if has_val or len(classes) < 2 or len(X) != len(y) or len(X_new) == 0 or len(X) > self.max_kernel_rows:
            return super().out_of_fold(X, y, X_val, y_val, X_new)
        labels = np.searchsorted(classes, y)
        with blas_threads(len(X)):
            C = self.C or self._choose_c(self._features(X), labels, groups_of_rows(X))
            scores = self._decision(self._fold_scores(X, X_new))(C, labels)
        return probabilities(scores, 1.0)

    def _choose_c(self, features: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> float:
        """C by cross-validation inside the training rows; scaler and PCA are fitted inside each fold."""

        @cache
        def decision(train: tuple[int, ...], new: tuple[int, ...]) -> Callable[..., np.ndarray]:
            scaler = self._scaler(features[list(train)])
            return self._decision(full_scores(*(scaler.transform(features[list(rows)]) for rows in (train, new))))

        def predict(C: float, train: np.ndarray, new: np.ndarray) -> np.ndarray:
            classes, numbers = np.unique(labels[train], return_inverse=True)
            if len(classes) == 1:
                return np.full(len(new), classes[0])
            scores = decision(tuple(train.tolist()), tuple(new.tolist()))(C, numbers)
            return np.asarray(classes[scores.argmax(axis=1)])

        return choose(_CS, predict, labels, groups)

    def _decision(self, fold: Arrays) -> Callable[..., np.ndarray]:
        """C and class numbers of a fold's training rows -> scores of its new rows."""
        k = n_kept(fold["shares"], self._components(len(fold["shares"])))
        # Copied: a product of a slice of columns takes longer than the copy.
        train, new = np.ascontiguousarray(fold["train"][:, :k]), np.ascontiguousarray(fold["new"][:, :k])
        gamma = absolute_gamma(self.gamma, train) if self.kernel == "rbf" else None
        kernels = _kernel(train, train, gamma), _kernel(new, train, gamma)

        def decide(C: float, labels: np.ndarray) -> np.ndarray:
            svc = self._svc("precomputed", C, "scale")
            # Validating these arrays takes as long as the fit.
            with config_context(assume_finite=True, skip_parameter_validation=True):
                return self._scores_of(svc.fit(kernels[0], labels).decision_function(kernels[1]))

        return decide

    def _fold_scores(self, X: Images | np.ndarray, X_new: Images | np.ndarray) -> Arrays:
        """Principal components of the scaled features of a fold: what all settings of an SVM share in it.

        Scaler and PCA are fitted to the training rows ``X`` alone. The PCA is a full one: a share of the variance is a
        cut through its columns. Of `Images` the result is cached, and features are not even read where it is there.

        Returns:
            ``train`` ``(n, r)``, ``new`` ``(m, r)`` and ``shares`` ``(r,)``, the share of the variance that each
            component explains, largest first.
        """

        def compute() -> Arrays:
            train = self._features(X)
            scaler = self._scaler(train)
            return full_scores(scaler.transform(train), scaler.transform(self._features(X_new)))

        if not isinstance(X, Images) or not isinstance(X_new, Images):
            return compute()
        made_from = [_CODE_VERSION, *(self._made_of(rows) for rows in (X, X_new)), X.keys, X_new.keys]
        return X.store.cache.arrays(hashlib.sha256(json.dumps(made_from).encode()).hexdigest(), compute)

    def _occlusion(
        self, features: np.ndarray, in_cell: np.ndarray, labels: np.ndarray, others: np.ndarray
    ) -> np.ndarray:
        """How far the decision between two labels falls if a cell has the training records' mean, ``(n, cells)``.

        The decision is that of the SVM's own machine for the two classes (Zeiler and Fergus, 2014). A gradient would
        not do: far from all support vectors an RBF kernel is flat.

        Args:
            features: Of records, ``(n, d)``.
            in_cell: How far a cell covers each feature, 0 to 1, ``(cells, d)``.
            labels: Number of the label that is explained, ``(n,)``.
            others: Number of the label that it is compared with, ``(n,)``.
        """
        scaler, pca, svc = self.pipeline_
        n_classes = len(svc.classes_)
        column = {pair: i for i, pair in enumerate(zip(*np.triu_indices(n_classes, 1), strict=True))}
        effects = np.empty((len(features), len(in_cell)))
        for i, (label, other) in enumerate(zip(labels, others, strict=True)):
            whole = scaler.transform(features[i : i + 1])
            components = pca.transform(np.concatenate([whole, whole + in_cell * (pca.mean_ - whole)]))
            decisions = svc.decision_function(components).reshape(len(components), -1)
            # Positive for the first class of a pair, but for the second one where there are only two.
            sign = (1 if label < other else -1) * (-1 if n_classes == 2 else 1)
            margins = sign * decisions[:, column[min(label, other), max(label, other)]]
            effects[i] = margins[0] - margins[1:]
        return effects

    def _svc(self, kernel: str, C: float, gamma: float | str) -> SVC:
        """A machine for each pair of classes; its decision values are those of all pairs."""
        return SVC(kernel=kernel, C=C, gamma=gamma, class_weight=self.class_weight, decision_function_shape="ovo")

    @staticmethod
    def _scores_of(decisions: np.ndarray) -> np.ndarray:
        """Scores ``(n, k)`` whose softmax is the product of a class's probabilities against each other class.

        In a pair these are the logistic function of `STEEPNESS` times the decision value. scikit-learn counts votes of
        pairs instead, in steps of one, where no margin is near 0 (compared in docs/background/calibration.md).

        Args:
            decisions: Of all pairs, ``(n, k * (k - 1) / 2)``, in the order of ``np.triu_indices(k, 1)``, positive for
                the first class; of two classes ``(n,)``, positive for the second one.
        """
        pairs = -decisions[:, None] if decisions.ndim == 1 else decisions
        k = round((1 + math.sqrt(1 + 8 * pairs.shape[1])) / 2)
        first, second = np.triu_indices(k, 1)
        logs = np.zeros((len(pairs), k, k))
        logs[:, first, second] = -np.logaddexp(0, -STEEPNESS * pairs)
        logs[:, second, first] = -np.logaddexp(0, STEEPNESS * pairs)
        scores: np.ndarray = logs.sum(axis=2)
        return scores


def _kernel(A: np.ndarray, B: np.ndarray, gamma: float | None) -> np.ndarray:
    """Kernel ``(n, m)`` of rows ``(n, d)`` and ``(m, d)``: exp(-gamma * squared distance), or linear without gamma."""
    out = A @ B.T
    if gamma is None:
        return out
    out *= -2
    out += np.einsum("ij,ij->i", A, A)[:, None]
    out += np.einsum("ij,ij->i", B, B)
    np.maximum(out, 0.0, out=out)  # rounding leaves equal rows slightly below zero
    out *= -gamma
    return np.exp(out, out=out)


def absolute_gamma(gamma: float | str, features: np.ndarray) -> float:
    """The kernel width for these features ``(n, d)``.

    ``"2.5x"`` is 2.5 times scikit-learn's ``scale``, 1 / (d * variance of all values).
    """
    if not isinstance(gamma, str):
        return float(gamma)
    variance = float(features.var())
    return float(gamma.removesuffix("x")) / (features.shape[1] * variance) if variance > 0 else 1.0

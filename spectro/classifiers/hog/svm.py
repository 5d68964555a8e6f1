"""HOG + scaler + PCA + support vector machine."""

import warnings
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import AfterValidator, Field
from sklearn import config_context
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler
from sklearn.svm import SVC

from spectro.classifiers.base import Effects
from spectro.classifiers.hog.descriptor import Hog
from spectro.classifiers.hog.pca import fit_pca, fold_scores, n_kept
from spectro.classifiers.pipeline import PipelineClassifier, blas_threads
from spectro.classifiers.registry import register_family
from spectro.classifiers.temperature import columns, probabilities
from spectro.data.decode import ImageSpec
from spectro.data.images import Images

SCALERS = {"standard": StandardScaler, "minmax": MinMaxScaler, "robust": RobustScaler}


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


@register_family("hog_svm")
@dataclass(eq=False, kw_only=True, repr=False)
class HogSvmClassifier(PipelineClassifier):
    """Support vector machine on principal components of standardised HOG vectors.

    Args:
        size_px: Height and width of the grey image.
        orientations: HOG bins over 180 degrees.
        cell_px: Height and width of a HOG cell.
        block_cells: Height and width of a HOG block, in cells.
        block_norm: ``L1``, ``L1-sqrt``, ``L2`` or ``L2-Hys``.
        scaler: ``standard``, ``minmax`` or ``robust``.
        pca_variance: Share of the variance that the kept components explain.
        pca_components: A fixed number of components instead; at most what the training records allow.
        kernel: ``rbf`` or ``linear``.
        C: Inverse regularisation strength of the SVM.
        gamma: Width of the RBF kernel: ``"2.5x"`` is 2.5 times scikit-learn's ``scale``, 1 / (n_features * variance);
            a number is absolute.
        class_weight: ``balanced`` or None.

    Attributes:
        pipeline_: The fitted scaler, PCA and SVM; the scores are its decision values.
        max_kernel_rows: Training rows up to which `out_of_fold` holds a whole kernel matrix: 128 MB.
    """

    max_kernel_rows: ClassVar[int] = 4000

    size_px: Annotated[int, "hog.size_px", Field(ge=16, le=1024)] = 128
    orientations: Annotated[int, "hog.orientations", Field(ge=2, le=36)] = 9
    cell_px: Annotated[int, "hog.cell_px", Field(ge=2, le=256)] = 8
    block_cells: Annotated[int, "hog.block_cells", Field(ge=1, le=8)] = 2
    block_norm: Annotated[Literal["L1", "L1-sqrt", "L2", "L2-Hys"], "hog.block_norm"] = "L2-Hys"
    scaler: Annotated[Literal["standard", "minmax", "robust"], "scaler"] = "standard"
    pca_variance: Annotated[float, "pca.variance", Field(gt=0, le=1)] = 0.95
    pca_components: Annotated[Annotated[int, Field(ge=1)] | None, "pca.components"] = None
    kernel: Annotated[Literal["rbf", "linear"], "svm.kernel"] = "rbf"
    C: Annotated[float, "svm.C", Field(gt=0)] = 1.0
    gamma: Annotated[float | str, "svm.gamma", AfterValidator(_check_gamma)] = "1.0x"
    class_weight: Annotated[Literal["balanced"] | None, "svm.class_weight"] = "balanced"

    def contradictions(self) -> list[tuple[str, str]]:
        """A block must fit into the image."""
        if self.cell_px * self.block_cells <= self.size_px:
            return []
        text = f"got {self.cell_px} with hog.block_cells={self.block_cells}"
        return [("hog.cell_px", f"{text}; allowed: cell_px * block_cells at most hog.size_px={self.size_px}")]

    @property
    def hog(self) -> Hog:
        """The descriptor."""
        return Hog(self.size_px, self.orientations, self.cell_px, self.block_cells, self.block_norm)

    @property
    def specs(self) -> list[ImageSpec]:
        """Grey squares."""
        return [self.hog.spec]

    def _features(self, X: Images | np.ndarray) -> np.ndarray:
        return self.hog.features(X).astype(np.float64)

    def _fit_pipeline(self, features: np.ndarray, labels: np.ndarray) -> Pipeline:
        scaler = SCALERS[self.scaler]()
        scaled = scaler.fit_transform(features)
        pca = fit_pca(scaled, self._components(min(features.shape)))
        reduced = pca.transform(scaled)
        svc = self._svc(len(self.classes_), self.kernel, absolute_gamma(self.gamma, reduced)).fit(reduced, labels)
        predicted = set(svc.predict(reduced))
        if len(predicted) == 1:
            warnings.warn(
                f"the fitted SVM predicts {self.classes_[predicted.pop()]!r} for all {len(labels)} training images: "
                f"svm.gamma={self.gamma} with svm.C={self.C} does not suit these features",
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
        with blas_threads(len(X)):
            fold = fold_scores(self.hog, SCALERS[self.scaler](), X, X_new)
            k = n_kept(fold["shares"], self._components(len(fold["shares"])))
            # Copied: a product of a slice of columns takes longer than the copy.
            train, new = np.ascontiguousarray(fold["train"][:, :k]), np.ascontiguousarray(fold["new"][:, :k])
            gamma = absolute_gamma(self.gamma, train) if self.kernel == "rbf" else None
            svc = self._svc(len(classes), "precomputed", "scale")
            # Validating these arrays takes as long as the fit.
            with config_context(assume_finite=True, skip_parameter_validation=True):
                svc.fit(_kernel(train, train, gamma), np.searchsorted(classes, y))
                return probabilities(columns(svc.decision_function(_kernel(new, train, gamma))), 1.0)

    def _components(self, most: int) -> float | int:
        """A share of the variance below 1, or a number of components, at most ``most``."""
        if self.pca_components is not None:
            return min(self.pca_components, most)
        return most if self.pca_variance == 1.0 else self.pca_variance

    def _svc(self, n_classes: int, kernel: str, gamma: float | str) -> SVC:
        # One decision value for each class, and their argmax is the SVM's own prediction.
        scores = {"decision_function_shape": "ovr", "break_ties": n_classes > 2}
        return SVC(kernel=kernel, C=self.C, gamma=gamma, class_weight=self.class_weight, **scores)

    def _effects(self, X: Any, labels: np.ndarray, others: np.ndarray) -> Effects:
        from spectro.classifiers.hog.attribution import cell_effects, strokes

        features = self._features(X)
        method = "HOG strokes; fall of the decision where a cell has its mean value"
        return cell_effects(self.hog, self.pipeline_, features, labels, others), strokes(self.hog, features), method


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

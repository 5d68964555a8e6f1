"""A logistic regression on a thumbnail: the baseline of every comparison."""

import warnings
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from spectro.classifiers.base import Effects
from spectro.classifiers.inputs import Thumbnail
from spectro.classifiers.pipeline import PipelineClassifier
from spectro.classifiers.registry import register_family
from spectro.data.decode import ImageSpec
from spectro.data.images import Images


@register_family("pixels")
@dataclass(eq=False, kw_only=True, repr=False)
class PixelsClassifier(PipelineClassifier):
    """Multinomial logistic regression on the standardised grey values of a small image.

    Args:
        width_px: Width of the thumbnail.
        height_px: Its height.
        C: Inverse regularisation strength.
        class_weight: ``balanced`` or None.
    """

    _steps: ClassVar[list[type]] = [StandardScaler, LogisticRegression]

    width_px: Annotated[int, Field(ge=1, le=64)] = 20
    height_px: Annotated[int, Field(ge=1, le=64)] = 15
    C: Annotated[float, Field(gt=0)] = 0.1
    class_weight: Literal["balanced"] | None = "balanced"

    def contradictions(self) -> list[tuple[str, str]]:
        """The thumbnail's sides must divide a square that is not too large."""
        return self.thumbnail.contradictions("pixels.width_px")

    @property
    def thumbnail(self) -> Thumbnail:
        """The small image."""
        return Thumbnail(self.width_px, self.height_px)

    @property
    def specs(self) -> list[ImageSpec]:
        """A grey square whose sides the thumbnail's divide."""
        return [self.thumbnail.spec]

    @property
    def _n_features(self) -> int:
        return self.width_px * self.height_px

    def _fit_pipeline(self, features: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> Pipeline:
        regression = LogisticRegression(C=self.C, class_weight=self.class_weight, max_iter=1000)
        with warnings.catch_warnings():
            # With weak regularisation the best weights lie far out; the predictions have settled long before.
            warnings.simplefilter("ignore", ConvergenceWarning)
            return make_pipeline(StandardScaler(), regression).fit(features, labels)

    def _features(self, X: Images | np.ndarray) -> np.ndarray:
        return self.thumbnail(X)

    def _effects(self, X: Any, labels: np.ndarray, others: np.ndarray) -> Effects:
        """Exact: the effects of all pixels and the intercepts sum to the difference of the two classes' scores."""
        thumbnails = self.thumbnail(X)
        scaler, regression = self.pipeline_
        # Of two classes scikit-learn keeps the second one's coefficients alone.
        coefficients = regression.coef_ if len(self.classes_) > 2 else np.array([[0.0], [1.0]]) * regression.coef_
        effects = (coefficients[labels] - coefficients[others]) * scaler.transform(thumbnails)
        shape = (len(thumbnails), self.height_px, self.width_px)
        method = f"coefficient times standardised grey value, {self.width_px}x{self.height_px} pixels"
        return effects.reshape(shape), np.rint(thumbnails).astype(np.uint8).reshape(shape), method

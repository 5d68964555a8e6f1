"""HOG + scaler + PCA + support vector machine."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from sklearn.preprocessing import StandardScaler

from spectro.classifiers.base import Effects
from spectro.classifiers.hog.descriptor import Hog
from spectro.classifiers.inputs import SizePx, Thumbnail
from spectro.classifiers.registry import register_family
from spectro.classifiers.svm import Gamma, Strength, SvmClassifier
from spectro.data.decode import ImageSpec
from spectro.data.images import Images


@register_family("hog_svm")
@dataclass(eq=False, kw_only=True, repr=False)
class HogSvmClassifier(SvmClassifier):
    """Support vector machine on principal components of HOG vectors.

    Args:
        size_px: Height and width of the grey image.
        orientations: HOG bins over 180 degrees, or over 360 if they are signed.
        signed: Whether dark to light and light to dark are different orientations.
        cell_px: Height and width of a HOG cell.
        sqrt: Whether the square root of the cells' histograms is taken.
        block_cells: Height and width of a HOG block, in cells.
        block_norm: ``L1``, ``L1-sqrt``, ``L2``, ``L2-Hys`` or ``none``.
        pixels: Width and height of a thumbnail whose grey values are inputs beside the HOG vector; None: without.
        pixels_weight: The thumbnail's standard deviation, as a multiple of that of the HOG vector.
        scaler: ``standard``: every input is divided by its standard deviation; ``none``: HOG vector and thumbnail are
            divided by one number each, see `spectro.classifiers.inputs.block_scaler`.
        pca_variance: Share of the variance that the components that are used explain.
        pca_components: A fixed number of components instead; at most what the training records allow.
        kernel: And all others: see `SvmClassifier`.
    """

    _sees_drawing: ClassVar[bool] = True

    size_px: Annotated[int, "hog.size_px", Field(ge=16, le=1024)] = 128
    orientations: Annotated[int, "hog.orientations", Field(ge=2, le=36)] = 8
    signed: Annotated[bool, "hog.signed"] = True
    cell_px: Annotated[int, "hog.cell_px", Field(ge=2, le=256)] = 32
    sqrt: Annotated[bool, "hog.sqrt"] = False
    block_cells: Annotated[int, "hog.block_cells", Field(ge=1, le=16)] = 2
    block_norm: Annotated[Literal["L1", "L1-sqrt", "L2", "L2-Hys", "none"], "hog.block_norm"] = "L2"
    pixels: Annotated[SizePx | None, "hog.pixels"] = None
    pixels_weight: Annotated[float, "hog.pixels_weight", Field(gt=0)] = 1.0
    scaler: Annotated[Literal["standard", "none"], "scaler"] = "standard"
    pca_variance: Annotated[float, "pca.variance", Field(gt=0, le=1)] = 0.99
    pca_components: Annotated[Annotated[int, Field(ge=1)] | None, "pca.components"] = None
    C: Strength = 30.0
    gamma: Gamma = "0.1x"

    def contradictions(self) -> list[tuple[str, str]]:
        """A block must fit into the image, and a thumbnail into a square; z-scores have no weights."""
        wrong = [] if self.pixels is None else Thumbnail(*self.pixels).contradictions("hog.pixels")
        if self.pixels is not None and self.scaler == "standard":
            wrong.append(("hog.pixels", f"got {self.pixels}; allowed with scaler=standard: null (scaler=none)"))
        if self.cell_px * self.block_cells > self.size_px:
            text = f"got {self.cell_px} with hog.block_cells={self.block_cells}"
            wrong.append(("hog.cell_px", f"{text}; allowed: cell_px * block_cells at most hog.size_px={self.size_px}"))
        return wrong

    @property
    def hog(self) -> Hog:
        """The descriptor."""
        names = ("size_px", "orientations", "cell_px", "block_cells", "block_norm", "signed", "sqrt")
        return Hog(**{name: getattr(self, name) for name in names})

    @property
    def specs(self) -> list[ImageSpec]:
        """Grey squares."""
        return [self.hog.spec, *([] if self.pixels is None else [Thumbnail(*self.pixels).spec])]

    def _features(self, X: Images | np.ndarray) -> np.ndarray:
        parts = [self.hog.features(X), *([] if self.pixels is None else [Thumbnail(*self.pixels)(X)])]
        return np.concatenate(parts, axis=1, dtype=np.float64)

    @property
    def _layout(self) -> list[tuple[int, float]]:
        of_pixels = [] if self.pixels is None else [(math.prod(self.pixels), self.pixels_weight)]
        return [(self.hog.n_features, 1.0), *of_pixels]

    def _made_of(self, X: Images) -> list[Any]:
        return [self.hog.kind(X.store).folder, self.scaler, self.pixels, self.pixels and self.pixels_weight]

    def _scaler(self, features: np.ndarray) -> StandardScaler:
        return StandardScaler().fit(features) if self.scaler == "standard" else super()._scaler(features)

    def _components(self, most: int) -> float | int:
        if self.pca_components is not None:
            return min(self.pca_components, most)
        return most if self.pca_variance == 1.0 else self.pca_variance

    def _effects(self, X: Any, labels: np.ndarray, others: np.ndarray) -> Effects:
        from spectro.classifiers.hog.attribution import cells_of, strokes

        features = self._features(X)
        effects = self._occlusion(features, cells_of(self.hog, self.pixels), labels, others)
        n_cells = self.size_px // self.cell_px
        method = "HOG strokes; fall of the decision where a cell has its mean value"
        return effects.reshape(-1, n_cells, n_cells), strokes(self.hog, features[:, : self.hog.n_features]), method

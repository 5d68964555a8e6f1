"""A fitted classifier of any built-in family as one PyTorch module, from uint8 images to probabilities, for export."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.svm import SVC
from torch import Tensor, nn
from torch.nn import functional

from spectro.classifiers.base import ImageClassifier
from spectro.classifiers.cascade import CascadeClassifier
from spectro.classifiers.embed import EmbedClassifier, maps_of
from spectro.classifiers.ensemble import EnsembleClassifier
from spectro.classifiers.hog.descriptor import Hog
from spectro.classifiers.hog.svm import HogSvmClassifier
from spectro.classifiers.inputs import Thumbnail
from spectro.classifiers.networks.device import Place
from spectro.classifiers.networks.module import pooled_to
from spectro.classifiers.networks.network import NetworkClassifier
from spectro.classifiers.networks.weights import normalisation
from spectro.classifiers.pipeline import PipelineClassifier
from spectro.classifiers.pixels import PixelsClassifier
from spectro.classifiers.svm import STEEPNESS
from spectro.classifiers.temperature import SMALLEST, ScoringClassifier
from spectro.data.decode import ImageSpec
from spectro.errors import ModelError

# Images in the geometries that the whole classifier reads: uint8 (n, height, width) or (n, height, width, 3) each.
Inputs = dict[ImageSpec, Tensor]


def to_fp32(classifier: ImageClassifier) -> None:
    """Moves the networks of a fitted classifier to the processor and to single precision, in place."""
    for part in parts_of(classifier):
        if isinstance(part, NetworkClassifier) and hasattr(part, "network_"):
            part.network_.place = Place(torch.device("cpu"), "fp32")
            part.network_.frozen_shape = None  # no graph may have a size of batch in it, as `frozen` has
            part.network_.to(part.network_.place.device).float().eval()
        if isinstance(part, EmbedClassifier) and hasattr(part, "backbone_"):
            part._device = torch.device("cpu")
            part.backbone_.to(part._device)


def parts_of(classifier: ImageClassifier) -> list[ImageClassifier]:
    """A fitted classifier, the stages of a cascade, the members of an ensemble, and the parts of these."""
    inner: Any = [*getattr(classifier, "stages_", {}).values(), *getattr(classifier, "members_", [])]
    return [classifier, *(part for each in inner for part in parts_of(each))]


class _Part(nn.Module):
    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Buffers and modules, which torch types as a union of both."""


class WholeGraph(_Part):
    """Images in the order of a classifier's ``specs`` -> its probabilities ``(n, k)``, fp32.

    Args:
        classifier: Fitted, on the processor and in single precision, see `to_fp32`.

    Raises:
        ModelError: A part of it is of a family that has no graph.
    """

    def __init__(self, classifier: ImageClassifier):
        super().__init__()
        self._specs = classifier.specs
        self._part = _module_of(classifier)

    def forward(self, *images: Tensor) -> Tensor:
        """uint8 images -> probabilities."""
        return self._part(dict(zip(self._specs, images, strict=True))).float()


def _module_of(classifier: ImageClassifier) -> nn.Module:
    """The module of a classifier or of a part of one: `Inputs` -> probabilities ``(n, k)``."""
    scores: nn.Module
    if isinstance(classifier, CascadeClassifier):
        return _Cascade(classifier)
    if classifier._is_constant:
        return _Constant(classifier)
    if isinstance(classifier, NetworkClassifier):
        scores = _Network(classifier)
    elif isinstance(classifier, EnsembleClassifier):
        scores = _Members(classifier)
    elif isinstance(classifier, PixelsClassifier | HogSvmClassifier | EmbedClassifier):
        scores = _Pipeline(classifier)
    else:
        raise ModelError(
            f"model.family: got {classifier.family!r}, which has no graph; allowed: cnn, vpt, embed, hog_svm, pixels, "
            "and cascades and ensembles of them"
        )
    return _Softmax(scores, classifier)


class _Softmax(_Part):
    def __init__(self, scores: nn.Module, classifier: ScoringClassifier):
        super().__init__()
        self._scores, self._temperature = scores, classifier.temperature_

    def forward(self, images: Inputs) -> Tensor:
        return torch.softmax(self._scores(images).double() / self._temperature, dim=1)


class _Constant(_Part):
    def __init__(self, classifier: ImageClassifier):
        super().__init__()
        self._spec = classifier.specs[0]

    def forward(self, images: Inputs) -> Tensor:
        return torch.ones_like(images[self._spec].flatten(1)[:, :1], dtype=torch.float64)


class _Cascade(_Part):
    """As `CascadeClassifier._compose`: each column of the easy stage is that of a class, or shared out."""

    def __init__(self, cascade: CascadeClassifier):
        super().__init__()
        self._cascade, self._stages = cascade, nn.ModuleList(map(_module_of, cascade.stages_.values()))

    def forward(self, images: Inputs) -> Tensor:
        easy, *hard = (stage(images) for stage in self._stages)
        if self._cascade.gate == "hard":
            easy = functional.one_hot(easy.argmax(dim=1), easy.shape[1]).double()
        none = torch.zeros_like(easy[:, 0])
        shares = dict(zip(self._cascade.easy_.classes_, easy.unbind(1), strict=True))
        p = dict(shares)
        for (group, classifier), part in zip(self._cascade.hard_.items(), hard, strict=True):
            for label, column in zip(classifier.classes_, part.unbind(1), strict=True):
                p[label] = shares.get(group, none) * column
        return torch.stack([p.get(label, none) for label in self._cascade.classes_], dim=1)


class _Members(_Part):
    def __init__(self, ensemble: EnsembleClassifier):
        super().__init__()
        self._members = nn.ModuleList(map(_module_of, ensemble.members_))

    def forward(self, images: Inputs) -> Tensor:
        total = sum(member(images) for member in self._members)
        return (total / len(self._members)).clamp_min(SMALLEST).log()


class _Network(_Part):
    def __init__(self, classifier: NetworkClassifier):
        super().__init__()
        self._network, (self._spec,) = classifier.network_, classifier.specs
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in self._network.normalisation)
        self.register_buffer("_scale", 1 / (255 * std))
        self.register_buffer("_shift", -mean / std)

    def forward(self, images: Inputs) -> Tensor:
        return self._network(images[self._spec].permute(0, 3, 1, 2).float() * self._scale + self._shift)


class _Pipeline(_Part):
    """Features of a family -> scaler -> PCA -> decision values of an SVM or of a logistic regression."""

    def __init__(self, classifier: PipelineClassifier):
        super().__init__()
        self._parts = nn.ModuleList()
        if isinstance(classifier, HogSvmClassifier):
            self._parts.append(_Hog(classifier.hog))
        elif isinstance(classifier, EmbedClassifier):
            self._parts.append(_Embed(classifier))
        self._thumbnail = classifier.thumbnail if isinstance(classifier, PixelsClassifier) else None
        if isinstance(classifier, HogSvmClassifier | EmbedClassifier) and classifier.pixels is not None:
            self._thumbnail = Thumbnail(*classifier.pixels)
        scaler, *pca, last = classifier.pipeline_
        # Scaler and PCA are one matrix, in single precision, as the features are; what follows is in double precision.
        matrix, centre = np.diag(1 / scaler.scale_), scaler.mean_
        if pca:
            centre = scaler.mean_ + pca[0].mean_ * scaler.scale_
            matrix = (pca[0].components_ / scaler.scale_).T
        self.register_buffer("_centre", torch.from_numpy(centre).float())
        self.register_buffer("_matrix", torch.from_numpy(np.ascontiguousarray(matrix)).float())
        self._last = _Svm(last) if isinstance(last, SVC) else _Linear(last.coef_, last.intercept_)

    def forward(self, images: Inputs) -> Tensor:
        parts = [part(images) for part in self._parts]
        if self._thumbnail:
            parts.append(self._thumbnail.means(images[self._thumbnail.spec].float()))
        return self._last(((torch.cat(parts, dim=1) - self._centre) @ self._matrix).double())


class _Linear(_Part):
    """Decision values ``(n, k)``; where there is one for two classes, the other one's is 0."""

    def __init__(self, coef: np.ndarray, intercept: np.ndarray):
        super().__init__()
        self.register_buffer("_coef", torch.from_numpy(coef.T.copy()))
        self.register_buffer("_intercept", torch.from_numpy(intercept.copy()))

    def forward(self, values: Tensor) -> Tensor:
        scores = values @ self._coef + self._intercept
        return torch.cat([torch.zeros_like(scores), scores], dim=1) if self._coef.shape[1] == 1 else scores


class _Svm(_Part):
    """As `SvmClassifier._scores_of` the decision values of an SVM."""

    def __init__(self, svc: SVC):
        super().__init__()
        self._gamma = float(svc._gamma) if svc.kernel == "rbf" else None
        self.register_buffer("_vectors", torch.from_numpy(svc.support_vectors_))
        k, ends = len(svc.classes_), np.cumsum([0, *svc.n_support_])
        pairs = list(zip(*np.triu_indices(k, 1), strict=True))
        coef = svc.dual_coef_
        if k > 2:
            # Row j - 1 of the coefficients of class i's vectors is for the pair (i, j), and row i of those of j's.
            coef = np.zeros((len(pairs), ends[-1]))
            for pair, (i, j) in enumerate(pairs):
                for a, row in ((i, j - 1), (j, i)):
                    coef[pair, ends[a] : ends[a + 1]] = svc.dual_coef_[row, ends[a] : ends[a + 1]]
        self._pairs = _Linear(coef, svc.intercept_)
        first, second = (torch.from_numpy(np.eye(k)[list(side)]) for side in zip(*pairs, strict=True))
        self.register_buffer("_first", first)
        self.register_buffer("_second", second)

    def forward(self, values: Tensor) -> Tensor:
        kernel = values @ self._vectors.T
        if self._gamma is not None:
            squares = values.square().sum(dim=1, keepdim=True) + self._vectors.square().sum(dim=1)
            kernel = torch.exp(-self._gamma * (squares - 2 * kernel).clamp_min(0))
        decisions = self._pairs(kernel)
        if self._first.shape[1] == 2:
            return STEEPNESS * decisions
        wins, losses = (functional.logsigmoid(sign * STEEPNESS * decisions) for sign in (1, -1))
        return wins @ self._first + losses @ self._second


class _Hog(_Part):
    """`Hog`. The bin of a gradient is looked up: at a bin's edge, rounding of an angle would choose another one."""

    def __init__(self, hog: Hog):
        super().__init__()
        self._hog = hog
        steps = np.arange(-255, 256)
        self.register_buffer("_bins", torch.from_numpy(hog.bins(steps[:, None], steps).astype(np.uint8).ravel()))
        self.register_buffer("_orientations", torch.arange(hog.orientations))

    def forward(self, images: Inputs) -> Tensor:
        hog, grey = self._hog, images[self._hog.spec].int()
        side = hog.size_px // hog.cell_px * hog.cell_px
        down = functional.pad(grey[:, 2:] - grey[:, :-2], (0, 0, 1, 1))[:, :side, :side]
        right = functional.pad(grey[:, :, 2:] - grey[:, :, :-2], (1, 1))[:, :side, :side]
        bins = self._bins[((down + 255) * 511 + right + 255).long()].long()
        magnitude = (down * down + right * right).float().sqrt()
        histogram = magnitude[..., None] * (bins[..., None] == self._orientations).float()
        cells = (side // hog.cell_px, hog.cell_px)
        histogram = histogram.unflatten(2, cells).unflatten(1, cells).mean(dim=(2, 4))
        if hog.sqrt:
            histogram = histogram.sqrt()
        n_blocks, b = hog.shape[0], hog.block_cells
        # (n, block row, block col, cell row, cell col, orientation)
        rows = [torch.stack([histogram[:, i : i + n_blocks, j : j + n_blocks] for j in range(b)], 3) for i in range(b)]
        blocks = torch.stack(rows, dim=3).flatten(3)
        return hog.normalised(blocks).flatten(1)


class _Embed(_Part):
    def __init__(self, classifier: EmbedClassifier):
        super().__init__()
        self._backbone, self._spec = classifier.backbone_.eval(), classifier.specs[0]
        self._blocks, self._grids = list(classifier.blocks), classifier._grids
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in normalisation(self._backbone))
        self.register_buffer("_mean", mean)
        self.register_buffer("_std", std)

    def forward(self, images: Inputs) -> Tensor:
        pixels = (images[self._spec].permute(0, 3, 1, 2).float() / 255 - self._mean) / self._std
        maps = maps_of(self._backbone, pixels, self._blocks)
        return torch.cat([pooled_to(places, grid) for places in maps for grid in self._grids], dim=1)

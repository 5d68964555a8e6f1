"""What the network families share: everything but the network."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from spectro.classifiers.attribution import Effects
from spectro.classifiers.fit_context import current
from spectro.classifiers.networks.settings import Loss, Training
from spectro.classifiers.temperature import ScoringClassifier
from spectro.data.decode import ImageSpec
from spectro.data.images import Images, pixels_of
from spectro.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from spectro.classifiers.networks.weights import Backbone

_log = logging.getLogger(__name__)
# Records whose gradients are held at once.
_EFFECTS_BATCH = 8
_FILE = "network.safetensors"
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(eq=False, kw_only=True, repr=False)
class NetworkClassifier(ScoringClassifier):
    """A network on a timm backbone, trained by the one loop.

    A subclass adds parameters of its own and says in `_build` what
    stands on the backbone.

    Args:
        backbone: timm's name of the backbone.
        backbone_options: timm's own arguments of it.
        pretrained: Start from pretrained weights; without, from random ones.
        weights: A safetensors or torch file of them; None: timm downloads them.
        size_px: Height and width of the images.
        image_fit: ``squash``, ``center_crop`` or ``pad``, as in `ImageSpec`.
        training: How it is trained.
        loss: What is made small.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        seed: Of everything random.

    Attributes:
        network_: The fitted network.
        history_: A row for each epoch, see `spectro.classifiers.networks.training.train`.
        facts_: ``parameters`` (``trainable``, ``total``), ``weights`` (``source``, ``sha256``), ``precision`` and
            ``device``; what a run records of its networks.
    """

    # Whether a configuration may ask for a view drawn for each record and epoch.
    draws_views: ClassVar[bool] = True
    # What `_places` gives, in a few words.
    _places_are: ClassVar[str] = ""

    backbone: Annotated[str, Field(min_length=1)]
    backbone_options: dict[str, Any] | None = None
    pretrained: bool = True
    weights: str | None = None
    size_px: Annotated[int, Field(ge=16, le=1024)] = 224
    image_fit: Annotated[Literal["squash", "center_crop", "pad"], "{family}.fit"] = "squash"
    training: Annotated[Training, "train"] = field(default_factory=Training)
    loss: Annotated[Loss, "loss"] = field(default_factory=Loss)
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], "device"] = "auto"
    seed: Annotated[int, ""] = 0

    def contradictions(self) -> list[tuple[str, str]]:
        """A file of weights must be used."""
        if self.weights is None or self.pretrained:
            return []
        return [
            (
                f"{self.family}.weights",
                f"got {self.weights!r}; allowed: null, as {self.family}.pretrained=false starts from random weights",
            )
        ]

    @property
    def specs(self) -> list[ImageSpec]:
        """Colour squares."""
        return [ImageSpec(self.size_px, "RGB", self.image_fit)]

    @property
    def chooses_on_val(self) -> bool:
        """The epoch."""
        return True

    @property
    def facts(self) -> dict[str, Any]:
        """Parameters, weights, precision, device, and how many epochs it took; empty where there is no network."""
        if not hasattr(self, "facts_"):
            return {}
        best = [row["epoch"] for row in self.history_ if row["best"]]
        return {**self.facts_, **({"epochs": len(self.history_), "best_epoch": best[0]} if best else {})}

    def prepare(self) -> None:
        """Sees to it that backbone, weights and device are there."""
        if self.weights is not None and not Path(self.weights).expanduser().is_file():
            # Said before the seconds that torch and timm take to be imported.
            raise ModelError(
                f"{self.family}.weights: got {self.weights!r}, no such file; allowed: a safetensors or torch "
                f"file of the weights of {self.backbone}"
            )
        from spectro.classifiers.networks.device import choose, seeded

        with seeded(self.seed, choose(self.device, self.training.precision).device):
            self._build(2, empty=False)

    def _build(self, num_classes: int, *, empty: bool) -> "tuple[nn.Module, dict[str, str | None]]":
        """The unfitted network, with `prepare(place)`, and where its weights come from.

        Args:
            num_classes: Outputs.
            empty: The weights will be loaded: do not look for pretrained ones.
        """
        raise TypeError(f"{type(self).__name__} does not say what its network is")

    def _backbone(self, **own: Any) -> "Backbone":
        from spectro.classifiers.networks.weights import Backbone

        options = {**own, **(self.backbone_options or {})}
        return Backbone(self.family, self.backbone, options, self.pretrained, self.weights)

    def _fit(self, X: Any, y: np.ndarray, X_val: Any, y_val: np.ndarray) -> None:
        from spectro.classifiers.networks.device import choose, count_parameters, kept_memory, seeded
        from spectro.classifiers.networks.training import Job, Split, logits_of, train

        place = choose(self.device, self.training.precision)
        with seeded(self.seed, place.device):
            network, origin = self._build(len(self.classes_), empty=False)
        network.prepare(place)  # type: ignore[operator]
        self.network_ = network
        self.facts_ = {
            "parameters": count_parameters(network),
            "weights": origin,
            "precision": place.precision,
            "device": place.device.type,
        }
        here = current()
        if not here.fold:
            here.on_network(here.stage, self.facts_)
        job = Job(
            network=network,
            classes=list(self.classes_),
            train=Split(self._batches(X), np.searchsorted(self.classes_, y)),
            val=Split(self._batches(X_val), np.searchsorted(self.classes_, y_val)),
            settings=self.training,
            loss=self.loss,
            place=place,
            seed=self.seed,
            params={**self._params(), **origin},
        )
        with kept_memory():
            self.history_ = train(job)
            scores = _values(logits_of(network, job.val.images, place.device)) if len(y_val) else None
        self._fit_temperature(scores, y_val)

    def _batches(self, X: Images | np.ndarray) -> Any:
        from spectro.classifiers.networks.batches import Batches

        network = self.network_
        cfg = getattr(getattr(network, "vit", None) or network.model, "pretrained_cfg", None) or {}
        mean, std = cfg.get("mean") or _IMAGENET_MEAN, cfg.get("std") or _IMAGENET_STD
        return Batches(X, self.specs[0], mean, std, network.place.device)  # type: ignore[arg-type]

    def _scores(self, X: Any) -> np.ndarray:
        """Logits ``(n, k)``."""
        from spectro.classifiers.networks.training import logits_of

        place = self.network_.place
        return _values(logits_of(self.network_, self._batches(X), place.device))  # type: ignore[arg-type]

    def _effects(self, X: Any, labels: np.ndarray, others: np.ndarray) -> Effects | None:
        import torch

        device: torch.device = self.network_.place.device  # type: ignore[assignment]
        batches, pixels = self._batches(X), pixels_of(X, self.specs[0])
        parts = []
        self.network_.eval()
        for start in range(0, len(X), _EFFECTS_BATCH):
            rows = np.arange(start, min(start + _EFFECTS_BATCH, len(X)))
            columns = (torch.from_numpy(own)[rows].to(device) for own in (labels, others))
            try:
                found = self._places(batches(rows), *columns)
            except RuntimeError as error:
                # Of an image that nobody needs: a device whose memory is full, a backbone that cannot be cut here.
                _log.warning("no attribution: %s", str(error).strip().split("\n")[0])
                return None
            if found is None:
                return None
            parts.append(found.float().cpu().numpy())
        effects = np.concatenate(parts)
        return effects, pixels, f"{self._places_are}, {effects.shape[2]}x{effects.shape[1]} places"

    def _places(self, images: "Tensor", labels: "Tensor", others: "Tensor") -> "Tensor | None":
        """How much places of normalised images lift one logit above another, ``(n, h, w)``; None: it is not known."""
        return None

    def _save(self, folder: Path) -> dict[str, Any]:
        from safetensors.torch import save_file

        tensors = {name: t.detach().cpu().contiguous() for name, t in self.network_.state_dict().items()}
        save_file(tensors, folder / _FILE)
        return {"facts": self.facts_, **self._temperature_state()}

    def _load(self, folder: Path, fitted: dict[str, Any]) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from spectro.classifiers.networks.device import choose
        from spectro.errors import ConfigError

        self.facts_ = fitted["facts"]
        try:
            place = choose(self.device, self.facts_["precision"])
        except ConfigError:
            # It was trained on a device that this machine does not have.
            place = choose("auto", self.facts_["precision"])
        try:
            tensors = load_file(folder / _FILE)
            network, _ = self._build(len(self.classes_), empty=True)
            network.prepare(place)  # type: ignore[operator]
            network.load_state_dict(tensors)
        except (SafetensorError, RuntimeError, ConfigError) as error:
            reason = str(error).strip().split("\n")[0]
            raise ModelError(f"{folder / _FILE}: damaged or not of this model ({reason})") from error
        self.network_, self.history_ = network.eval(), []
        self._load_temperature(fitted)


def _values(logits: "Tensor") -> np.ndarray:
    return logits.cpu().numpy().astype(np.float64)

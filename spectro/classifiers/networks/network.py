"""The base of the network families: everything but the network."""

import hashlib
import json
import logging
from abc import abstractmethod
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from spectro.classifiers.base import Effects
from spectro.classifiers.fit_context import current
from spectro.classifiers.manifest import load_frozen, save_frozen
from spectro.classifiers.networks.backbone import BackboneParams, Pair
from spectro.classifiers.networks.settings import Loss, Training
from spectro.classifiers.temperature import ScoringClassifier
from spectro.data.images import Images, pixels_of
from spectro.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from spectro.classifiers.networks.module import Network

_log = logging.getLogger(__name__)
# Records whose gradients are held at once.
_EFFECTS_BATCH = 8
_FILE = "network.safetensors"


@dataclass(eq=False, kw_only=True, repr=False)
class NetworkClassifier(BackboneParams, ScoringClassifier):
    """A network on a timm backbone, trained by `spectro.classifiers.networks.training.train`.

    A subclass adds parameters of its own, and builds the network in `_build`.

    Args:
        grid: Rows and columns of the means that the head reads where the pooling is a grid; one number is both.
        pixels: Width and height of a grey thumbnail that the head reads beside the features; None: none.
        head_dropout: Share of the head's inputs that are left out in training.
        backbone: And what is not named here: see `BackboneParams`.
        seed: Of all random numbers.

    Attributes:
        history_: A row for each epoch, see `spectro.classifiers.networks.training.train`.
        facts_: ``parameters`` (``trainable``, ``total``), ``weights`` (``source``, ``sha256``), ``precision`` and
            ``device``.
    """

    draws_views: ClassVar[bool] = True

    grid: Annotated[int, Field(ge=1)] | Pair = 4
    pixels: Pair | None = None
    head_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    training: Annotated[Training, "train"] = field(default_factory=Training)
    loss: Annotated[Loss, "loss"] = field(default_factory=Loss)
    seed: Annotated[int, ""] = 0

    def contradictions(self) -> list[tuple[str, str]]:
        """Also: a thumbnail is no larger than the image that it is made from."""
        height, width = self.specs[0].shape[:2]
        if self.pixels is None or (self.pixels[0] <= width and self.pixels[1] <= height):
            return super().contradictions()
        text = f"got {self.pixels} (width, height); allowed: at most [{width}, {height}], as {self.family}.size_px is"
        return [*super().contradictions(), (f"{self.family}.pixels", f"{text} {self.size_px}")]

    @property
    def chooses_on_val(self) -> bool:
        """The epoch, where it is not the last one."""
        return self.training.select == "best"

    @property
    def facts(self) -> dict[str, Any]:
        """Parameters, weights, precision, device and number of epochs; empty where there is no network."""
        if not hasattr(self, "facts_"):
            return {}
        best = [row["epoch"] for row in self.history_ if row["best"]]
        return {**self.facts_, **({"epochs": len(self.history_), "best_epoch": best[0]} if best else {})}

    def prepare(self) -> None:
        """Builds the network once: backbone, weights and device must be there."""
        self._check_weights()
        from spectro.classifiers.networks.device import choose, seeded

        with seeded(self.seed, choose(self.device, self.training.precision).device):
            self._build(2, empty=False)

    @property
    def _head(self) -> dict[str, Any]:
        """What the head reads, as networks take it."""
        rows_and_columns = [self.grid] * 2 if isinstance(self.grid, int) else self.grid
        grid = rows_and_columns if getattr(self, "pool", None) == "grid" else None
        return {"grid": grid, "pixels": self.pixels, "head_dropout": self.head_dropout}

    @abstractmethod
    def _build(self, num_classes: int, *, empty: bool) -> "tuple[Network, dict[str, Any]]":
        """The unfitted network, and the origin of its weights.

        Args:
            num_classes: Number of outputs.
            empty: Whether the weights are loaded by the caller.
        """

    def _fit(self, X: Any, y: np.ndarray, X_val: Any, y_val: np.ndarray) -> None:
        import torch

        from spectro.classifiers.networks.device import choose, kept_memory, seeded
        from spectro.classifiers.networks.losses import class_weights, make_loss
        from spectro.classifiers.networks.training import Split, train

        place = choose(self.device, self.training.precision)
        with seeded(self.seed, place.device):
            network, origin = self._build(len(self.classes_), empty=False)
        network.prepare(place)
        self.network_ = network
        self.facts_: dict[str, Any] = {
            "parameters": network.n_parameters,
            "weights": origin,
            "precision": place.precision,
            "device": place.device.type,
        }
        context = current()
        if not context.fold:
            context.on_network(context.stage, self.facts_)
        data = Split(self._batches(X), np.searchsorted(self.classes_, y))
        val = Split(self._batches(X_val), np.searchsorted(self.classes_, y_val))
        weights = class_weights(self.loss.class_weights, data.labels, list(self.classes_))
        loss = make_loss(self.loss, torch.tensor(weights, dtype=torch.float32, device=place.device))
        made_of = [self._params(), origin, place.precision, *(a.tolist() for a in (self.classes_, y, y_val))]
        identity = hashlib.sha256(json.dumps(made_of, sort_keys=True, default=str).encode()).hexdigest()
        with kept_memory():
            self.history_ = train(network, data, val, self.training, loss, seed=self.seed, identity=identity)
            scores = self._outputs_of(val.images)[0] if len(y_val) else None
        self._fit_temperature(scores, y_val)

    def _batches(self, X: Images | np.ndarray) -> Any:
        from spectro.classifiers.networks.batches import Batches

        self.network_.name = json.dumps([self.backbone, self.backbone_options], sort_keys=True)
        return Batches(X, self.specs[0], self.network_)

    def _scores_and_features(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """The features are the inputs of the head."""
        return self._outputs_of(self._batches(X))

    def _outputs_of(self, batches: Any) -> tuple[np.ndarray, np.ndarray]:
        from spectro.classifiers.networks.training import outputs_of

        logits, features = outputs_of(self.network_, batches)
        return logits.cpu().numpy().astype(np.float64), features.cpu().numpy().astype(np.float64)

    def _effects(self, X: Any, labels: np.ndarray, others: np.ndarray) -> Effects | None:
        import torch

        network, batches, parts = self.network_.eval(), self._batches(X), []
        for rows in np.split(np.arange(len(X)), range(_EFFECTS_BATCH, len(X), _EFFECTS_BATCH)):
            columns = (torch.from_numpy(numbers[rows]).to(network.place.device) for numbers in (labels, others))
            try:
                effects = network.effects(batches.images(rows), *columns)
            except RuntimeError as error:
                # A figure must not end a run because the device's memory is full.
                _log.warning("no attribution: %s", str(error).strip().split("\n")[0])
                return None
            if effects is None:
                return None
            parts.append(effects.cpu().numpy())
        height, width = parts[0].shape[1:]
        return np.concatenate(parts), pixels_of(X, self.specs[0]), f"HiResCAM, {width}x{height} places"

    def _save(self, folder: Path) -> dict[str, Any]:
        from safetensors.torch import save_file

        frozen = self.network_.frozen_parameters
        state = {name: t.detach().cpu().contiguous() for name, t in self.network_.state_dict().items()}
        save_file({name: t for name, t in state.items() if name not in frozen}, folder / _FILE)
        name = save_frozen({name: state[name] for name in frozen}, folder) if frozen else None
        return {"facts": self.facts_, "frozen": name, **self._temperature_state()}

    def _load(self, folder: Path, fitted: dict[str, Any]) -> None:
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from spectro.classifiers.networks.device import choose, reuse_memory
        from spectro.classifiers.networks.weights import bounded, check_shapes

        reuse_memory()
        self.facts_ = fitted["facts"]
        self.config_ = self.facts_["weights"].get("config")
        try:
            place = choose(self.device, self.facts_["precision"])
        except ConfigError:
            # This machine does not have the device.
            place = choose("auto", self.facts_["precision"])
        try:
            tensors = load_file(folder / _FILE)
            tensors |= load_frozen(fitted["frozen"], folder) if fitted["frozen"] else {}
            # Takes no memory, whatever sizes the JSON has; some CNNs cannot be built without values.
            with bounded(tensors), torch.device("meta"), suppress(NotImplementedError):
                check_shapes(self._build(len(self.classes_), empty=True)[0], tensors)
            with bounded(tensors):
                network, _ = self._build(len(self.classes_), empty=True)
            network.prepare(place)
            network.load_state_dict(tensors)
        except (SafetensorError, RuntimeError, ConfigError) as error:
            reason = str(error).strip().split("\n")[0]
            raise ModelError(f"{folder / _FILE}: damaged or not of this model ({reason})") from error
        self.network_, self.history_ = network.eval(), []
        self._load_temperature(fitted)

"""The parameters of a timm backbone, whatever is made of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PlainValidator

from spectro.classifiers.base import ImageClassifier
from spectro.data.decode import ImageSpec
from spectro.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from torch import nn


def _size(value: Any) -> Any:
    sides = value if isinstance(value, list) and len(value) == 2 else [value]
    if not all(type(side) is int and 16 <= side <= 1024 for side in sides):
        raise ValueError("16 to 1024, or [height, width] of 16 to 1024 each")
    return value


# Two numbers where they differ: rows and columns, or width and height.
Pair = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=2, max_length=2)]
ImageSize = Annotated[int | list[int], PlainValidator(_size)]


@dataclass(eq=False, kw_only=True, repr=False)
class BackboneParams(ImageClassifier):
    """A family on a timm backbone.

    Args:
        backbone: timm's name of the backbone, or ``hf-hub:OWNER/NAME``, or ``local-dir:FOLDER``.
        backbone_options: timm's own arguments of it, e.g. ``{"drop_rate": 0.1}``.
        pretrained: Start from pretrained weights; without, from random ones.
        weights: A safetensors or torch file of them, with a head of any size; None: those of the folder, or timm
            downloads them.
        size_px: Height and width of the images; one number is both.
        image_fit: ``squash``, ``center_crop`` or ``pad``, as in `ImageSpec`.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
    """

    backbone: Annotated[str, Field(min_length=1)]
    backbone_options: dict[str, Any] | None = None
    pretrained: bool = True
    weights: str | None = None
    size_px: ImageSize = 112
    image_fit: Annotated[Literal["squash", "center_crop", "pad"], "{family}.fit"] = "squash"
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], "device"] = "auto"

    def contradictions(self) -> list[tuple[str, str]]:
        """A file of weights is for a pretrained network."""
        if self.weights is None or self.pretrained:
            return []
        text = f"got {self.weights!r}; allowed: null, as {self.family}.pretrained=false starts from random weights"
        return [(f"{self.family}.weights", text)]

    @property
    def specs(self) -> list[ImageSpec]:
        """Colour images."""
        size_px = (self.size_px[0], self.size_px[1]) if isinstance(self.size_px, list) else self.size_px
        return [ImageSpec(size_px, "RGB", self.image_fit)]

    @property
    def _folder(self) -> Path | None:
        source, _, folder = self.backbone.partition(":")
        return Path(folder).expanduser().absolute() if source == "local-dir" else None

    @property
    def _file(self) -> Path | None:
        """The file that pretrained weights come from; None: a download."""
        if self.weights is not None:
            return Path(self.weights).expanduser().absolute()
        if self._folder is None:
            return None
        files = [file for ending in ("safetensors", "bin", "pth") for file in sorted(self._folder.glob(f"*.{ending}"))]
        return files[0] if files else self._folder / "model.safetensors"

    def _check_weights(self) -> None:
        """Raises an error if a file is not there, before the seconds that torch and timm take to be imported."""
        if self._folder is not None and not (self._folder / "config.json").is_file():
            raise ConfigError(f"{self.family}.backbone: got {self.backbone!r}; allowed: a folder with a config.json")
        if self.pretrained and self._file is not None and not self._file.is_file():
            key, value = ("backbone", self.backbone) if self.weights is None else ("weights", self.weights)
            raise ModelError(
                f"{self.family}.{key}: got {value!r}, no such file; allowed: a safetensors or torch "
                f"file of the weights of {self.backbone}"
            )

    def _backbone(self, *, empty: bool) -> "tuple[nn.Module, dict[str, Any]]":
        """The timm model without a head, see `weights.create`."""
        from spectro.classifiers.networks.weights import create

        return create(
            self.backbone,
            family=self.family,
            options=self.backbone_options or {},
            pretrained=self.pretrained and not empty,
            weights=self._file,
            size=self.specs[0].shape[:2],
            # A saved model is loaded without its hub or folder.
            config=getattr(self, "config_", None) if empty else None,
        )

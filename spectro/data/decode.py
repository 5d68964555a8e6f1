"""One image file -> pixels."""

import io
import logging
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image, ImageOps
from pydantic import ConfigDict, Field

# Part of every cache key: raise it when the same bytes give other pixels.
CODE_VERSION = 1
Pixels = Annotated[int, Field(ge=0, strict=True)]

# Pillow goes by the bytes, not by the name, and some of its other readers start programs (EPS: Ghostscript).
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_PLANES = 258, 262, 284


@dataclass(frozen=True)
class Crop:
    """Plot margins to cut off, in pixels of the file."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    left: Pixels = 0
    top: Pixels = 0
    right: Pixels = 0
    bottom: Pixels = 0


@dataclass(frozen=True)
class ImageSpec:
    """The geometry of a family's images.

    Attributes:
        size_px: Height and width; one number is both.
        mode: ``L`` for grey ``(height, width)``, ``RGB`` for colour ``(height, width, 3)``.
        fit: How an image of another shape is made to fit. ``squash``: both sides to the size. ``center_crop``: covers
            the size without distortion, the middle of the longer side stays. ``pad``: lies within the size without
            distortion, white paper on both sides of the shorter one.
    """

    size_px: int | tuple[int, int]
    mode: Literal["L", "RGB"]
    fit: Literal["squash", "center_crop", "pad"] = "squash"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        sides = self.size_px if isinstance(self.size_px, tuple) else (self.size_px, self.size_px)
        return sides if self.mode == "L" else (*sides, 3)


class BadImageError(ValueError):
    """A file that gives no usable image; the message is the reason."""


def decode(data: bytes, crop: Crop = Crop(), max_megapixels: float = 100.0) -> Image.Image:
    """Decodes an image file wholly and cuts its margins off.

    Transparent parts are laid on white paper; 16-bit grey keeps its full range (0..65535 becomes 0..255); a camera's
    orientation tag is obeyed; of several frames the first counts.

    Args:
        data: The bytes of a PNG, JPEG, TIFF, BMP or WebP file.
        crop: Margins, in pixels.
        max_megapixels: The largest image that is opened at all.

    Returns:
        An image of mode ``L`` or ``RGB``.

    Raises:
        BadImageError: Empty, unreadable, truncated, too large, of an unknown pixel type, or nothing left of it.
    """
    if not data:
        raise BadImageError("zero bytes")
    try:
        image = _open(data, max_megapixels)
    except BadImageError:
        raise
    except Exception as error:
        # On damaged files the decoders raise nearly everything: struct.error, zlib.error, ZeroDivisionError ...
        raise BadImageError(f"unreadable or truncated ({error})") from error
    width, height = image.size
    box = (crop.left, crop.top, width - crop.right, height - crop.bottom)
    if box[2] <= box[0] or box[3] <= box[1]:
        margins = ", ".join(f"{name} {pixels}" for name, pixels in asdict(crop).items())
        raise BadImageError(f"data.crop ({margins}) leaves nothing of an image of {width}x{height} pixels")
    return image.crop(box) if box != (0, 0, width, height) else image


def _open(data: bytes, max_megapixels: float) -> Image.Image:
    # Pillow's own limit is one for the whole process: it is only ever raised, so that the limit here applies.
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, int(max_megapixels * 1e6))
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise BadImageError(f"absurdly large ({error}); data.max_megapixels is {max_megapixels:g}") from error
    except Image.UnidentifiedImageError:
        if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return _open_tiff(data, max_megapixels)
        raise BadImageError("not a PNG, JPEG, TIFF, BMP or WebP image") from None
    _check_size(*image.size, max_megapixels)
    tags = getattr(image, "tag_v2", {})
    if tags.get(_TIFF_PLANES) == 2 and 16 in tags.get(_TIFF_BITS, ()):
        # Pillow takes the bytes of 16-bit planes for 8-bit ones, without a warning.
        return _open_tiff(data, max_megapixels)
    image.load()
    if image.mode == "F":
        raise BadImageError("floating-point pixels; allowed: 8 or 16 bits a channel")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        grey = Image.fromarray(_eight_bits(np.asarray(image)))
        # "White is zero": Pillow turns 8-bit images round, 16-bit ones it does not.
        return ImageOps.invert(grey) if tags.get(_TIFF_PHOTOMETRIC) == 0 else grey
    if image.has_transparency_data:
        return _on_paper(image.convert("RGBA"))
    return image if image.mode in ("L", "RGB") else image.convert("L" if image.mode in ("1", "LA") else "RGB")


def _open_tiff(data: bytes, max_megapixels: float) -> Image.Image:
    """TIFF files that Pillow does not read, 16-bit colour above all."""
    import tifffile

    # What it logs of a damaged file names no file; the error below does.
    logging.getLogger("tifffile").disabled = True
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        page: Any = tiff.pages[0]
        _check_size(page.imagewidth, page.imagelength, max_megapixels)
        if page.samplesperpixel > 4:
            raise BadImageError(f"TIFF of {page.samplesperpixel} channels; allowed: 1, 3 or 4")
        pixels = page.asarray()
    if pixels.ndim == 3 and pixels.shape[0] in (3, 4) and pixels.shape[2] not in (3, 4):
        pixels = np.moveaxis(pixels, 0, 2)
    if pixels.dtype == np.uint16:
        pixels = _eight_bits(pixels)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)):
        raise BadImageError(f"TIFF of {pixels.dtype} {pixels.shape}; allowed: 8- or 16-bit grey, RGB or RGBA")
    image = Image.fromarray(pixels)
    return _on_paper(image) if image.mode == "RGBA" else image


def _on_paper(image: Image.Image) -> Image.Image:
    """An RGBA image on white."""
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _check_size(width: int, height: int, max_megapixels: float) -> None:
    megapixels = width * height / 1e6
    if megapixels > max_megapixels:
        raise BadImageError(
            f"absurdly large ({width}x{height} pixels, {megapixels:.0f} megapixels); "
            f"allowed: data.max_megapixels={max_megapixels:g}"
        )


def _eight_bits(pixels: np.ndarray) -> np.ndarray:
    """16 bits -> 8 bits over the full range."""
    if pixels.size and (pixels.min() < 0 or pixels.max() > 65535):
        raise BadImageError(
            f"pixel values from {pixels.min()} to {pixels.max()}; allowed: 8 or 16 bits a channel, without sign"
        )
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def fit(image: Image.Image, spec: ImageSpec) -> np.ndarray:
    """A decoded image in the geometry of a family: uint8 of ``spec.shape``."""
    # Grey images are resized before they get three equal channels: the same bytes in a third of the time.
    image = image if image.mode in ("L", spec.mode) else image.convert(spec.mode)
    (h, w), (width, height) = spec.shape[:2], image.size
    if spec.fit == "squash":
        return np.asarray(image.resize((w, h), Image.Resampling.BILINEAR).convert(spec.mode))
    # Of the two scales the larger one covers the size, the smaller one lies within it.
    choose = max if spec.fit == "center_crop" else min
    new, old = choose([(w, width), (h, height)], key=lambda side: side[0] / side[1])
    width, height = max(1, round(width * new / old)), max(1, round(height * new / old))
    paper = Image.new(spec.mode, (w, h), "white")
    corner = -((width - w) // 2), -((height - h) // 2)
    paper.paste(image.resize((width, height), Image.Resampling.BILINEAR), corner)
    return np.asarray(paper)

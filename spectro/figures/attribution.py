"""A gallery of the wrong records, each beside the map of what supports its predicted label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spectro.figures.gallery import Caption, Image, gallery, wrong_cell
from spectro.figures.style import EVIDENCE, INK, MUTED, save, shades, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_PAIRS = 12
# Pixels of the longer side of an image and of its map, and between both.
_SIDE_PX, _GAP_PX = 240, 10
# A map beside a wide image would be a ribbon: it stands below it.
_WIDE = 1.8


@styled
def attribution_figure(
    images: Sequence[Image],
    maps: Sequence[NDArray[np.floating]],
    drawings: Sequence[Image | None],
    captions: Sequence[Caption],
    path: str | Path,
    title: str,
    subtitle: str,
) -> Path:
    """Draws wrong records, each beside a map of what supports the predicted label; below it where images are wide.

    Args:
        images: Images, each (H, W, 3) uint8. The first 12 are shown.
        maps: How much each place supports the predicted label, 0 to 1 and of any size; it covers the whole image.
        drawings: Features of an image, drawn dark on white in any size, such as HOG strokes; None: there are none. They
            are left out where the map is 0.
        subtitle: What the maps are; it stands below the heading.
    """
    drawn = list(zip(images, maps, drawings, captions, strict=True))[:MAX_PAIRS]
    ratio = float(np.median([image.shape[1] / image.shape[0] for image, *_ in drawn]))
    axis = 0 if ratio > _WIDE else 1
    cells = []
    for image, weights, drawing, caption in drawn:
        scale = _SIDE_PX / max(image.shape[:2])
        height, width = (max(1, round(side * scale)) for side in image.shape[:2])
        record, beside = _resized(image, height, width), map_image(weights, drawing, height, width)
        gap = np.full((_GAP_PX, width, 3) if axis == 0 else (height, _GAP_PX, 3), 255, np.uint8)
        cells.append(wrong_cell(np.concatenate([record, gap, beside], axis=axis), caption))
    fig = gallery(cells, size=1.25)
    _colour_bar(fig)
    return save(fig, path, title, subtitle)


def map_image(weights: NDArray[np.floating], drawing: Image | None, height: int, width: int) -> Image:
    """A map as an image, white where a place supports nothing, the darker the more it does.

    Args:
        weights: 0 to 1, of any size; each place is a rectangle.
        drawing: As of `attribution_figure`.
        height: In pixels.
        width: In pixels.

    Returns:
        uint8 ``(height, width, 3)``.
    """
    rows, columns = (np.arange(n) * of // n for n, of in zip((height, width), weights.shape, strict=True))
    places = np.asarray(weights, dtype=np.float64)[rows][:, columns]
    pixels = 255 * shades(EVIDENCE)(places)[..., :3]
    if drawing is not None:
        strokes = 1 - np.asarray(_resized(drawing, height, width), dtype=np.float64) / 255
        pixels *= 1 - 0.75 * strokes * np.minimum(2 * places, 1)[..., None]
    return np.rint(pixels).astype(np.uint8)


def _resized(image: Image, height: int, width: int) -> Image:
    """uint8 ``(height, width, 3)``."""
    from PIL.Image import fromarray

    return np.asarray(fromarray(image).convert("RGB").resize((width, height), resample=2))  # bilinear


def _colour_bar(fig: Figure) -> None:
    """The key to the colours, right of everything."""
    wide, high = fig.get_figwidth(), fig.get_figheight()
    tall_in = min(high, 1.6)
    ax = fig.add_axes(((wide + 0.25) / wide, (high - tall_in) / high, 0.14 / wide, tall_in / high))
    ax.imshow(np.linspace(1, 0, 128)[:, None], cmap=shades(EVIDENCE), extent=(0, 1, 0, 1), aspect="auto")
    ax.set_xticks([])
    ax.yaxis.tick_right()
    ticks = {0: "not or against", 0.5: "half as much", 1: "supports the predicted\nlabel most"}
    ax.set_yticks(list(ticks), list(ticks.values()), fontsize=8, color=MUTED)
    ax.tick_params(length=2, color=MUTED)
    ax.spines[:].set_color(INK)
    ax.spines[:].set_linewidth(0.4)

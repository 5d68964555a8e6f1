"""A gallery of the wrong records, each with the map of what supports its predicted label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spectro.figures.gallery import Caption, Image, gallery, wrong_cell
from spectro.figures.style import INK, MUTED, save, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_PAIRS = 12
_COLUMNS, _PAIR_IN, _PANEL_PX, _GAP_PX = 3, 3.6, 210, 8
# The strongest place still lets the image through.
_OPACITY = 0.7


@styled
def attribution_figure(
    images: Sequence[Image],
    seen: Sequence[Image],
    maps: Sequence[NDArray[np.floating]],
    captions: Sequence[Caption],
    path: str | Path,
    title: str,
    subtitle: str,
) -> Path:
    """Draws wrong records, each beside the model's input under a map of what supports the predicted label.

    Args:
        images: Images, each (H, W, 3) uint8. The first 12 are shown.
        seen: The model's input of each, (h, w) or (h, w, 3) uint8.
        maps: How much each place supports the predicted label, 0 to 1 and of any size; it covers the whole of ``seen``.
        captions: For each image its caption.
        path: See `spectro.figures.style`.
        title: Likewise.
        subtitle: What the maps are; it stands below the heading.
    """
    drawn = zip(images, seen, maps, captions, strict=True)
    cells = [wrong_cell(_pair(image, overlay(inputs, weights)), caption) for image, inputs, weights, caption in drawn]
    cells = cells[:MAX_PAIRS]
    fig = gallery(cells, min(len(cells), _COLUMNS), wide_in=_PAIR_IN)
    _colour_bar(fig)
    return save(fig, path, title, subtitle)


def overlay(seen: Image, weights: NDArray[np.floating]) -> Image:
    """An image in light grey under a map in colour, the more of it the larger the weight.

    Args:
        seen: (h, w) or (h, w, 3).
        weights: 0 to 1, of any size; drawn out smoothly over the image.

    Returns:
        (side, side, 3) uint8, a square, whatever the shape of the input.
    """
    from PIL.Image import fromarray

    grey = np.asarray(_square(fromarray(seen).convert("L")), dtype=np.float64)
    drawn = _square(fromarray(np.asarray(weights, dtype=np.float32)))
    return _tint(grey[..., None].repeat(3, axis=2), np.asarray(drawn, dtype=np.float64))


def _square(image: Any) -> Any:
    """An image of PIL, drawn out to the size of a panel."""
    return image.resize((_PANEL_PX, _PANEL_PX), resample=2)  # bilinear


def _tint(grey: NDArray[np.float64], weights: NDArray[np.float64]) -> Image:
    """Grey values (h, w, 3) with the colour of their weights (h, w) laid over them."""
    from matplotlib import colormaps

    colour = 255 * colormaps["YlOrRd"](0.25 + 0.75 * weights)[..., :3]
    share = _OPACITY * np.sqrt(weights)[..., None]
    return np.rint((1 - share) * (95 + grey * (160 / 255)) + share * colour).astype(np.uint8)


def _pair(left: Image, right: Image) -> Image:
    """Two images side by side on a white background."""
    from PIL.Image import fromarray

    gap = np.full((_PANEL_PX, _GAP_PX, 3), 255, np.uint8)
    return np.concatenate([np.asarray(_square(fromarray(left))), gap, right], axis=1)


def _colour_bar(fig: Figure) -> None:
    """The key to the colours, right of everything, on a middle grey."""
    wide, high = fig.get_figwidth(), fig.get_figheight()
    tall_in = min(high, 2.0)
    ax = fig.add_axes(((wide + 0.25) / wide, (high - tall_in) / high, 0.14 / wide, tall_in / high))
    weights = np.linspace(1, 0, 128)[:, None]
    ax.imshow(_tint(np.full((128, 1, 3), 160.0), weights), extent=(0, 1, 0, 1), aspect="auto")
    ax.set_xticks([])
    ax.yaxis.tick_right()
    ticks = {0: "not or against", 0.5: "half as much", 1: "supports the predicted\nlabel most"}
    ax.set_yticks(list(ticks), list(ticks.values()), fontsize=8, color=MUTED)
    ax.tick_params(length=2, color=MUTED)
    ax.spines[:].set_color(INK)
    ax.spines[:].set_linewidth(0.4)

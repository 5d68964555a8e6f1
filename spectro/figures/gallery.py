"""Galleries of images: what a model got wrong, and what augmentation makes of a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spectro.figures.style import BAD, FAINT, GOOD, INK, MUTED, fit_text, page, save, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Image = NDArray[np.uint8]
# True label, predicted label, probability of the predicted label, name of the record.
Caption = tuple[str, str, float, str]
# An image, or None for an empty place, and lines of text with their colours.
Cell = tuple[Image | None, Sequence[tuple[str, str]]]

MAX_IMAGES = 24


@styled
def wrong_figure(
    images: Sequence[Image], captions: Sequence[Caption], path: str | Path, title: str, total: int
) -> Path:
    """Draws the wrongly classified records with their true and predicted label.

    Args:
        images: Images of wrong records, each (H, W, 3) uint8; sizes may differ. The first 24 are shown.
        captions: For each image its caption.
        path: See `spectro.figures.style`.
        title: Likewise; how many of the wrong records are shown is added.
        total: Number of wrong records.
    """
    cells = [wrong_cell(image, caption) for image, caption in zip(images, captions, strict=True)][:MAX_IMAGES]
    if not cells:
        fig, ax = page(3.0, 0.05)
        ax.set_axis_off()
        return save(fig, path, title, "none is wrong" if not total else f"0 of {total} shown")
    subtitle = f"{len(cells)} of {total} wrong records; p: probability of the predicted label"
    return save(gallery(cells, min(len(cells), 6)), path, title, subtitle)


@styled
def sheet_figure(
    rows: Sequence[tuple[str, str, Mapping[str, Image]]], variants: Sequence[str], path: str | Path, title: str
) -> Path:
    """Draws records, one a row, each with its variants side by side.

    Args:
        rows: For each record its class, its name and its images, (H, W, 3) uint8, by variant; a variant that is
            missing leaves its place empty.
        variants: The columns.
        path: See `spectro.figures.style`.
        title: Likewise.
    """
    cells: list[Cell] = [
        (images.get(variant), ((label, INK), (f"{name}  {variant}" if variant in images else "excluded", MUTED)))
        for label, name, images in rows
        for variant in variants
    ]
    return save(gallery(cells, len(variants)), path, title)


def wrong_cell(image: Image, caption: Caption) -> Cell:
    """An image above its caption."""
    true, predicted, probability, name = caption
    return image, ((f"true  {true}", GOOD), (f"pred  {predicted}", BAD), (f"p = {probability:.2f}  {name}", MUTED))


def gallery(cells: Sequence[Cell], columns: int, *, wide_in: float = 2.0) -> Figure:
    """Images in rows, each ``wide_in`` wide, lines of text below each."""
    from matplotlib.patches import Rectangle

    shapes = [image.shape for image, _ in cells if image is not None]
    ratio = float(np.median([shape[1] / shape[0] for shape in shapes])) if shapes else 1.0
    text_in, gap_in = 0.06 + 0.18 * max(len(lines) for _, lines in cells), 0.2
    high_in = wide_in / float(np.clip(ratio, 0.4, 3.0))
    rows = -(-len(cells) // columns)
    page_in = (columns * (wide_in + gap_in) - gap_in, rows * (high_in + text_in + gap_in) - gap_in)
    # All images share one axes whose coordinates are inches: two dozen axes would take three times as long.
    fig, ax = page(*page_in)
    for i, (image, lines) in enumerate(cells):
        left_in = (i % columns) * (wide_in + gap_in)
        bottom_in = page_in[1] - (i // columns) * (high_in + text_in + gap_in) - high_in
        if image is not None:
            of_image = image.shape[1] / image.shape[0]
            half_w, half_h = min(wide_in, high_in * of_image) / 2, min(high_in, wide_in / of_image) / 2
            x, y = left_in + wide_in / 2, bottom_in + high_in / 2
            ax.imshow(image, extent=(x - half_w, x + half_w, y - half_h, y + half_h), aspect="auto")
            corner = (x - half_w, y - half_h)
            ax.add_patch(Rectangle(corner, 2 * half_w, 2 * half_h, fill=False, edgecolor=FAINT, clip_on=False))
        for j, (line, colour) in enumerate(lines):
            text = fit_text(fig, line, wide_in, 8)
            ax.text(left_in, bottom_in - 0.16 - 0.18 * j, text, size=8, color=colour, in_layout=False)
    ax.set(xlim=(0, page_in[0]), ylim=(0, page_in[1]))
    ax.set_axis_off()
    return fig

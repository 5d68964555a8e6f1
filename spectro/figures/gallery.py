"""Galleries of images: what a model got wrong, and what augmentation makes of a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spectro.figures.style import BAD, FAINT, GOOD, INK, MUTED, fit_text, page, save, styled, wrap_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Image = NDArray[np.uint8]
# True label, predicted label, probability of the predicted label, name of the record.
Caption = tuple[str, str, float, str]
# An image, or None for an empty place, and lines of text with their colours.
Cell = tuple[Image | None, Sequence[tuple[str, str]]]

MAX_IMAGES = 20
# Width of a page, and the area of an image: a wide one is as large as a square one.
_PAGE_IN, _GAP_IN, _AREA_IN2 = 9.4, 0.2, 2.4
_LINE_IN, _TEXT_PT = 0.17, 8.0


@styled
def wrong_figure(
    images: Sequence[Image], captions: Sequence[Caption], path: str | Path, title: str, total: int
) -> Path:
    """Draws the wrongly classified records with their true and predicted label.

    Args:
        images: Images of wrong records, each (H, W, 3) uint8; sizes may differ. The first 20 are shown.
        title: How many of the wrong records are shown is added.
        total: Number of wrong records.
    """
    cells = [wrong_cell(image, caption) for image, caption in zip(images, captions, strict=True)][:MAX_IMAGES]
    if not cells:
        fig, ax = page(3.0, 0.05)
        ax.set_axis_off()
        return save(fig, path, title, "none is wrong" if not total else f"0 of {total} shown")
    subtitle = f"{len(cells)} of {total} wrong records; p: probability of the predicted label"
    return save(gallery(cells), path, title, subtitle)


@styled
def sheet_figure(
    rows: Sequence[tuple[str, str, Mapping[str, Image]]], variants: Sequence[str], path: str | Path, title: str
) -> Path:
    """Draws records, one a row, each with its variants side by side.

    Args:
        rows: For each record its class, its name and its images, (H, W, 3) uint8, by variant; a variant that is
            missing leaves its place empty.
    """
    cells: list[Cell] = [
        (images.get(variant), ((label, INK), (variant if variant in images else "excluded", MUTED), (name, MUTED)))
        for label, name, images in rows
        for variant in variants
    ]
    return save(gallery(cells, columns=len(variants)), path, title)


@styled
def contact_sheet(
    images: Sequence[Image], lines: Sequence[Sequence[str]], path: str | Path, title: str, subtitle: str
) -> Path:
    """Draws images side by side with lines of text below each.

    Args:
        images: At least one, each (H, W, 3) uint8; sizes may differ.
        lines: For each image its lines; the last one may take two.
    """
    cells: list[Cell] = [
        (image, [(text, MUTED if number else INK) for number, text in enumerate(texts)])
        for image, texts in zip(images, lines, strict=True)
    ]
    return save(gallery(cells), path, title, subtitle)


def wrong_cell(image: Image | None, caption: Caption) -> Cell:
    """An image above its caption."""
    true, predicted, probability, name = caption
    return image, ((f"true  {true}", GOOD), (f"pred  {predicted}  p = {probability:.2f}", BAD), (name, MUTED))


def gallery(cells: Sequence[Cell], *, columns: int | None = None, size: float = 1.0) -> Figure:
    """Images in rows, each in its shape, with lines of text below; the last line may take two.

    Args:
        cells: At least one.
        columns: Images in a row; None: as many as a page holds.
        size: Factor of an image's area.
    """
    from matplotlib.patches import Rectangle

    shapes = [image.shape for image, _ in cells if image is not None]
    ratio = float(np.median([shape[1] / shape[0] for shape in shapes])) if shapes else 1.0
    wide_in = min(_PAGE_IN, (size * _AREA_IN2 * float(np.clip(ratio, 0.3, 20))) ** 0.5)
    high_in = wide_in / ratio
    columns = columns or min(len(cells), max(1, int((_PAGE_IN + _GAP_IN) / (wide_in + _GAP_IN))))
    # All images share one axes whose coordinates are inches: two dozen axes would take three times as long.
    fig, ax = page(1.0, 1.0)
    texts = [
        [(fit_text(fig, text, wide_in, _TEXT_PT), colour) for text, colour in lines[:-1]]
        + [(text, lines[-1][1]) for text in wrap_text(fig, lines[-1][0], wide_in, _TEXT_PT)]
        for _, lines in cells
    ]
    below_in = 0.06 + _LINE_IN * max(map(len, texts))
    rows = -(-len(cells) // columns)
    cell_in = wide_in + _GAP_IN, high_in + below_in + _GAP_IN
    page_in = columns * cell_in[0] - _GAP_IN, rows * cell_in[1] - _GAP_IN
    fig.set_size_inches(*page_in)
    for i, ((image, _), lines) in enumerate(zip(cells, texts, strict=True)):
        left_in = (i % columns) * cell_in[0]
        bottom_in = page_in[1] - (i // columns) * cell_in[1] - high_in
        if image is not None:
            of_image = image.shape[1] / image.shape[0]
            w, h = min(wide_in, high_in * of_image), min(high_in, wide_in / of_image)
            x, y = left_in, bottom_in + high_in - h
            ax.imshow(image, extent=(x, x + w, y, y + h), aspect="auto")
            ax.add_patch(Rectangle((x, y), w, h, fill=False, edgecolor=FAINT, clip_on=False))
        for j, (line, colour) in enumerate(lines):
            y = bottom_in - 0.15 - _LINE_IN * j
            ax.text(left_in, y, line, size=_TEXT_PT, color=colour, in_layout=False)
    ax.set(xlim=(0, page_in[0]), ylim=(0, page_in[1]))
    ax.set_axis_off()
    return fig

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

Caption = tuple[str, str, float, str]
# An image, or None for an empty place, and lines of text with their colours.
Cell = tuple[NDArray[np.uint8] | None, Sequence[tuple[str, str]]]

MAX_IMAGES = 24


@styled
def wrong_figure(
    images: Sequence[NDArray[np.uint8]],
    captions: Sequence[Caption],
    path: str | Path,
    title: str,
    total: int,
    *,
    aspect: float | None = None,
) -> Path:
    """Draws the wrongly classified records with their true and predicted label.

    Args:
        images: Images of wrong records, each (H, W, 3) uint8; sizes may differ. The first 24 are shown.
        captions: For each image the true label, the predicted label, the probability of the predicted label and the
            name of the record.
        path: Where the PNG goes; missing folders are made.
        title: Heading, any text; how many of the wrong records are shown is added.
        total: Number of wrong records, at least the number of images.
        aspect: Width over height that every image is drawn with; by default that of the image.

    Returns:
        The path.

    Raises:
        ValueError: Lengths differ, ``total`` is too small, or an image is not (H, W, 3) uint8.
    """
    if len(images) != len(captions) or total < len(images):
        raise ValueError(
            "expected one caption for each image and a total that is not smaller; "
            f"got {len(images)} images, {len(captions)} captions, total {total}"
        )
    shown = min(len(images), MAX_IMAGES)
    if not shown:
        fig, ax = page(3.0, 0.05)
        ax.set_axis_off()
        return save(fig, path, title, "none is wrong" if not total else f"0 of {total} shown")
    cells: list[Cell] = [
        (
            image,
            ((f"true  {true}", GOOD), (f"pred  {predicted}", BAD), (f"p = {probability:.2f}  {name}", MUTED)),
        )
        for image, (true, predicted, probability, name) in zip(images[:shown], captions[:shown], strict=True)
    ]
    subtitle = f"{shown} of {total} wrong records; p: probability of the predicted label"
    return save(gallery(cells, min(shown, 6), aspect), path, title, subtitle)


@styled
def sheet_figure(
    rows: Sequence[tuple[str, str, Mapping[str, NDArray[np.uint8]]]],
    variants: Sequence[str],
    path: str | Path,
    title: str,
) -> Path:
    """Draws records, one a row, each with its variants side by side.

    Args:
        rows: For each record its class, its name and its images, (H, W, 3) uint8, by variant; a variant that is
            missing leaves its place empty.
        variants: The columns.
        path: Where the PNG goes; missing folders are made.
        title: Heading, any text.

    Returns:
        The path.

    Raises:
        ValueError: There is nothing to draw, or an image is not (H, W, 3) uint8.
    """
    if not rows or not variants:
        raise ValueError(f"expected records and variants; got {len(rows)} and {len(variants)}")
    cells: list[Cell] = [
        (images.get(variant), ((label, INK), (f"{name}  {variant}" if variant in images else "excluded", MUTED)))
        for label, name, images in rows
        for variant in variants
    ]
    return save(gallery(cells, len(variants)), path, title)


def gallery(cells: Sequence[Cell], columns: int, aspect: float | None = None, *, wide_in: float = 2.0) -> Figure:
    """Images in rows, each ``wide_in`` wide, lines of text below each."""
    from matplotlib.patches import Rectangle

    images = [image for image, _ in cells if image is not None]
    for array in images:
        if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or not array.size:
            raise ValueError(f"expected images (H, W, 3) of uint8; got {array.shape} of {array.dtype}")
    ratio = float(np.median([p.shape[1] / p.shape[0] for p in images])) if images else 1.0
    n_lines = max(len(lines) for _, lines in cells)
    text_in, gap_in = 0.06 + 0.18 * n_lines, 0.2
    high_in = wide_in / (aspect or float(np.clip(ratio, 0.4, 3.0)))
    rows = -(-len(cells) // columns)
    page_in = (columns * (wide_in + gap_in) - gap_in, rows * (high_in + text_in + gap_in) - gap_in)
    # All images share one axes whose coordinates are inches: two dozen axes would take three times as long.
    fig, ax = page(*page_in)
    for i, (image, lines) in enumerate(cells):
        left_in = (i % columns) * (wide_in + gap_in)
        bottom_in = page_in[1] - (i // columns) * (high_in + text_in + gap_in) - high_in
        if image is not None:
            image_ratio = image.shape[1] / image.shape[0]
            half_w = wide_in / 2 if aspect else min(wide_in, high_in * image_ratio) / 2
            half_h = high_in / 2 if aspect else min(high_in, wide_in / image_ratio) / 2
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

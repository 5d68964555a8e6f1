"""The style of all figures: colours, fonts, names that fit, and saving.

Figures are drawn without pyplot: no global state, and the same input gives the same bytes. Axes fill the figure and
labels stand outside them; saving cuts the page around everything that was drawn, so a long label makes the page larger
but is never cut off.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Report = Mapping[str, Any]

DPI = 120
LABEL_IN = 2.4
INK, MUTED, FAINT, GRID = "#1f2933", "#616e7c", "#b8c2cc", "#e4e7eb"
GOOD, BAD = "#2f855a", "#c53030"
SPLIT_COLOURS = ("#2b6cb0", "#c05621", "#2f855a", "#6b46c1")
FIXED_SPACE = "\u00a0"
# Used where installed, for scripts that matplotlib's own font lacks.
OTHER_SCRIPTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Microsoft YaHei", "PingFang SC", "Arial Unicode MS")


def page(wide_in: float, high_in: float) -> tuple[Figure, Axes]:
    """A figure that its one axes fill."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=(wide_in, high_in), dpi=DPI, facecolor="white")
    FigureCanvasAgg(fig)
    return fig, fig.add_axes((0, 0, 1, 1))


@cache
def plain_text() -> dict[str, Any]:
    """Text properties under which "$" starts no formula, whatever matplotlib is configured to do."""
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    family = ["DejaVu Sans", *(name for name in OTHER_SCRIPTS if name in installed)]
    return {"parse_math": False, "usetex": False, "family": family}


def _printable(text: str) -> str:
    """The text on one line; what cannot be drawn, such as undecodable bytes of a file name, becomes U+FFFD."""
    return "".join(c if c.isprintable() or c == FIXED_SPACE else " " if c.isspace() else "\ufffd" for c in text)


def fit_text(fig: Figure, text: str, wide_in: float, size_pt: float) -> str:
    """The text with its middle left out if it is too wide, as names often differ at their ends."""
    from matplotlib.font_manager import FontProperties

    font = FontProperties(family=plain_text()["family"], size=size_pt)
    renderer: Any = fig.canvas.get_renderer()  # type: ignore[attr-defined]

    def fits(candidate: str) -> bool:
        width_px, _, _ = renderer.get_text_width_height_descent(candidate, font, ismath=False)
        return bool(width_px <= wide_in * DPI)

    text = _printable(text)
    if fits(text):
        return text
    kept, too_many = 0, len(text)
    while too_many - kept > 1:
        middle = (kept + too_many) // 2
        kept, too_many = (middle, too_many) if fits(_without_middle(text, middle)) else (kept, middle)
    return _without_middle(text, kept)


def _without_middle(text: str, kept: int) -> str:
    """The text cut to its first and last letters, ``kept`` of them in all."""
    return f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"


def save(fig: Figure, path: str | Path, title: str, below: str = "") -> Path:
    """Put title and a smaller second text above all that is drawn, and write a PNG cut to what is drawn.

    It holds neither date nor version, so equal figures are equal files.
    """
    from matplotlib.transforms import Bbox

    box = fig.get_tightbbox()
    boxes = [box]
    wide_in, y_in = max(box.width, 5.0), box.y1 + 0.15
    for text, size, weight, colour in ((below, 9, "normal", MUTED), (title, 12, "bold", INK)):
        # A letter is about 0.6 of the font size wide, 0.7 if bold.
        lines = textwrap.wrap(_printable(text), int(wide_in * 72 / size / (0.7 if weight == "bold" else 0.6)))
        if not lines:
            continue
        at = (box.x0 / fig.get_figwidth(), y_in / fig.get_figheight())
        drawn = fig.text(*at, "\n".join(lines), va="bottom", size=size, weight=weight, color=colour, **plain_text())
        boxes.append(drawn.get_window_extent().transformed(fig.dpi_scale_trans.inverted()))
        y_in = boxes[-1].y1 + 0.06
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    page = Bbox.union(boxes).padded(0.15)
    # Packing harder than 3 makes a gallery a few per cent smaller and takes most of the time.
    compress = {"compress_level": 3}
    fig.savefig(path, format="png", dpi=DPI, bbox_inches=page, metadata={"Software": None}, pil_kwargs=compress)
    return path


def share_axis(ax: Axes, label: str, *, low: float = 0.0) -> None:
    """A horizontal axis of scores with a faint grid and no frame, from ``low``, a multiple of 0.2, to 1."""
    ticks = np.arange(low, 1.1, 0.2)
    ax.set_xlim(low - 0.02 * (1 - low), 1 + 0.02 * (1 - low))
    ax.set_xticks(ticks, [f"{tick:.1f}" for tick in ticks], fontsize=8, color=MUTED, **plain_text())
    ax.set_xlabel(label, fontsize=9, color=MUTED, **plain_text())
    ax.tick_params(length=0)
    ax.grid(axis="x", color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[:].set_visible(False)

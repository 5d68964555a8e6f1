"""The style of all figures: colours, fonts, names that fit, and saving.

Figures are drawn without pyplot: no global state, and equal input gives equal files. Axes fill the figure and labels
stand outside them; saving cuts the page around everything that was drawn, so a long label makes the page larger but is
never cut off.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")
T = TypeVar("T")
Report = Mapping[str, Any]

DPI = 120
LABEL_IN = 2.4
INK, MUTED, FAINT, GRID = "#1f2933", "#616e7c", "#b8c2cc", "#e4e7eb"
GOOD, BAD = "#2f855a", "#c53030"
SPLIT_COLOURS = ("#2b6cb0", "#c05621", "#2f855a", "#6b46c1")
FIXED_SPACE = "\u00a0"
# Used where installed, for scripts that matplotlib's default font lacks.
OTHER_SCRIPTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Microsoft YaHei", "PingFang SC", "Arial Unicode MS")


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """Decorates a function that draws: in it matplotlib has the settings of this style, after it those of before."""

    @wraps(draw)
    def with_style(*args: P.args, **kwargs: P.kwargs) -> T:
        import matplotlib

        settings: Any = _settings()
        with matplotlib.rc_context(settings):
            return draw(*args, **kwargs)

    return with_style


@cache
def _settings() -> dict[str, Any]:
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    ticks = {"color": MUTED, "labelcolor": MUTED, "labelsize": 8, "major.size": 0, "minor.size": 0}
    return {
        # A "$" in a label starts no formula, whatever a user's matplotlibrc holds.
        "text.parse_math": False,
        "text.usetex": False,
        "font.family": ["DejaVu Sans", *(name for name in OTHER_SCRIPTS if name in installed)],
        "font.size": 9,
        "text.color": INK,
        "axes.labelcolor": MUTED,
        "axes.labelsize": 9,
        "axes.titlecolor": INK,
        "axes.titlelocation": "left",
        "axes.titlesize": 9,
        "axes.edgecolor": FAINT,
        "axes.axisbelow": True,
        "grid.color": GRID,
        **{f"{axis}tick.{key}": value for axis in "xy" for key, value in ticks.items()},
        "legend.frameon": False,
        "legend.fontsize": 8,
    }


def page(wide_in: float, high_in: float) -> tuple[Figure, Axes]:
    """A figure that its only axes fill."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=(wide_in, high_in), dpi=DPI, facecolor="white")
    FigureCanvasAgg(fig)
    return fig, fig.add_axes((0, 0, 1, 1))


def panels(rows: int, columns: int, wide_in: float, high_in: float, gap_in: float) -> tuple[Figure, list[list[Axes]]]:
    """A figure with panels of equal size, rows of columns."""
    wide, high = columns * (wide_in + gap_in) - gap_in, rows * (high_in + gap_in) - gap_in
    fig, whole = page(wide, high)
    whole.remove()
    size = wide_in / wide, high_in / high
    return fig, [
        [
            fig.add_axes((c * (wide_in + gap_in) / wide, 1 - size[1] - r * (high_in + gap_in) / high, *size))
            for c in range(columns)
        ]
        for r in range(rows)
    ]


def _printable(text: str) -> str:
    """The text on one line; what cannot be drawn, such as undecodable bytes of a file name, becomes U+FFFD."""
    return "".join(c if c.isprintable() or c == FIXED_SPACE else " " if c.isspace() else "\ufffd" for c in text)


def fit_text(fig: Figure, text: str, wide_in: float, size_pt: float) -> str:
    """The text with its middle left out if it is too wide, as names often differ at their ends."""
    from matplotlib.font_manager import FontProperties

    font = FontProperties(family=_settings()["font.family"], size=size_pt)
    renderer: Any = fig.canvas.get_renderer()  # type: ignore[attr-defined]

    def fits(candidate: str) -> bool:
        width_px, _, _ = renderer.get_text_width_height_descent(candidate, font, ismath=False)
        return bool(width_px <= wide_in * DPI)

    def shortened(n: int) -> str:
        return f"{text[: n - n // 2]}…{text[len(text) - n // 2 :]}"

    text = _printable(text)
    if fits(text):
        return text
    fitting, too_many = 0, len(text)
    while too_many - fitting > 1:
        n = (fitting + too_many) // 2
        fitting, too_many = (n, too_many) if fits(shortened(n)) else (fitting, n)
    return shortened(fitting)


def save(fig: Figure, path: str | Path, title: str, subtitle: str = "") -> Path:
    """Puts title and subtitle above all that is drawn, and writes a PNG cut to what is drawn.

    It holds neither date nor version, so equal figures are equal files.
    """
    from matplotlib.transforms import Bbox

    box = fig.get_tightbbox()
    boxes = [box]
    wide_in, y_in = max(box.width, 5.0), box.y1 + 0.15
    for text, size, weight, colour in ((subtitle, 9, "normal", MUTED), (title, 12, "bold", INK)):
        # A letter is about 0.6 of the font size wide, 0.7 if bold.
        lines = textwrap.wrap(_printable(text), int(wide_in * 72 / size / (0.7 if weight == "bold" else 0.6)))
        if not lines:
            continue
        at = (box.x0 / fig.get_figwidth(), y_in / fig.get_figheight())
        drawn = fig.text(*at, "\n".join(lines), va="bottom", size=size, weight=weight, color=colour)
        boxes.append(drawn.get_window_extent().transformed(fig.dpi_scale_trans.inverted()))
        y_in = boxes[-1].y1 + 0.06
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    cut = Bbox.union(boxes).padded(0.15)
    # Packing harder than 3 makes a gallery a few per cent smaller and takes most of the time.
    compress = {"compress_level": 3}
    fig.savefig(path, format="png", dpi=DPI, bbox_inches=cut, metadata={"Software": None}, pil_kwargs=compress)
    return path


def score_axis(ax: Axes, label: str, *, low: float = 0.0) -> None:
    """A horizontal axis of scores with a faint grid and no frame, from ``low``, a multiple of 0.2, to 1."""
    ticks = np.arange(low, 1.1, 0.2)
    margin = 0.02 * (1 - low)
    ax.set_xlim(low - margin, 1 + margin)
    ax.set_xticks(ticks, [f"{tick:.1f}" for tick in ticks])
    ax.set_xlabel(label)
    ax.grid(axis="x", linewidth=0.8)
    ax.spines[:].set_visible(False)

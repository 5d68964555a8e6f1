"""The style of all figures: colours, fonts, names that fit, and saving.

Figures are drawn without pyplot: no global state, and equal input gives equal files. Axes fill the figure and labels
stand outside them; saving cuts the page around everything that was drawn, so a long label makes the page larger but is
never cut off. Every function of this package that draws a figure writes a PNG to its ``path``, making missing folders,
with the heading ``title`` and a ``subtitle`` below it, any text, and returns the path; docstrings name the other
arguments.

The one palette of figures, reports and pages is here. Its colours are those of M. Okabe and K. Ito (2008), "Color
universal design", which people with any colour vision tell apart.
"""

from __future__ import annotations

import io
import textwrap
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from spectro.files import drafted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")
T = TypeVar("T")
Report = Mapping[str, Any]

DPI = 120
LABEL_IN = 2.4
INK, MUTED, FAINT, GRID = "#1f2933", "#616e7c", "#b8c2cc", "#e4e7eb"
# Of models, splits and curves, in this order; further ones get them again with another marker and line.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
# Text needs darker shades than lines: those of the third and the second colour.
GOOD, BAD = "#00704f", "#b04a00"
# From white to shades on which dark text has contrast: shares, and evidence.
SHARES, EVIDENCE = ("#ffffff", "#d3e6f3", "#7fb8dc"), ("#ffffff", "#fbd9bd", "#f0a060", "#d55e00")
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
    fig, ((ax,),) = panels(1, 1, wide_in, high_in, 0)
    return fig, ax


def panels(rows: int, columns: int, wide_in: float, high_in: float, gap_in: float) -> tuple[Figure, Any]:
    """A figure with panels of equal size, an array of rows and columns."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = columns * (wide_in + gap_in) - gap_in, rows * (high_in + gap_in) - gap_in
    fig = Figure(figsize=size, dpi=DPI, facecolor="white")
    FigureCanvasAgg(fig)
    edges = {"left": 0, "right": 1, "bottom": 0, "top": 1, "wspace": gap_in / wide_in, "hspace": gap_in / high_in}
    return fig, fig.subplots(rows, columns, squeeze=False, gridspec_kw=edges)


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
    return shortened(bisect_left(range(1, len(text)), True, key=lambda n: not fits(shortened(n))))


def wrap_text(fig: Figure, text: str, wide_in: float, size_pt: float) -> list[str]:
    """The text on one line or, where it is too wide, on two: file names differ at either end; see `fit_text`."""
    if (whole := fit_text(fig, text, wide_in, size_pt)) == _printable(text):
        return [whole]
    text = _printable(text)
    n = bisect_left(range(1, len(text)), True, key=lambda n: fit_text(fig, text[:n], wide_in, size_pt) != text[:n])
    between_words = max(text.rfind(mark, 0, n) for mark in "_-. ") + 1
    n = between_words if between_words > n / 2 else n
    return [text[:n], fit_text(fig, text[n:], wide_in, size_pt)]


def save(fig: Figure, path: str | Path, title: str, subtitle: str = "") -> Path:
    """Puts title and subtitle above all that is drawn, and writes a PNG of 256 colours cut to what is drawn.

    It holds neither date nor version, so equal figures are equal files. It is written whole or not at all.
    """
    from matplotlib.transforms import Bbox
    from PIL import Image

    box = fig.get_tightbbox()
    boxes = [box]
    # A letter of a title is about 0.7 of the font size wide, as it is bold.
    for text, size, letter, colour, weight in ((subtitle, 9, 0.6, MUTED, "normal"), (title, 12, 0.7, INK, "bold")):
        lines = textwrap.wrap(_printable(text), int(max(box.width, 5.0) * 72 / size / letter))
        if lines:
            y_in = boxes[-1].y1 + (0.06 if len(boxes) > 1 else 0.15)
            at = (box.x0 / fig.get_figwidth(), y_in / fig.get_figheight())
            drawn = fig.text(*at, "\n".join(lines), va="bottom", size=size, color=colour, weight=weight)
            boxes.append(drawn.get_window_extent().transformed(fig.dpi_scale_trans.inverted()))
    path, cut, pixels = Path(path), Bbox.union(boxes).padded(0.15), io.BytesIO()
    fig.savefig(pixels, format="png", dpi=DPI, bbox_inches=cut, pil_kwargs={"compress_level": 0})
    path.parent.mkdir(parents=True, exist_ok=True)
    # 256 colours are a third of the bytes, and nobody sees the difference.
    fast, plain = Image.Quantize.FASTOCTREE, Image.Dither.NONE
    image = Image.open(pixels).convert("RGB").quantize(256, fast, dither=plain)
    palette = np.array(image.getpalette()).reshape(-1, 3)
    palette[(palette > 250).all(axis=1)] = 255  # paper stays white
    image.putpalette(palette.ravel().tolist())
    with drafted(path) as draft:
        image.save(draft, "PNG")
    return path


def shades(colours: Sequence[str]) -> Any:
    """A colour map through some colours, such as `SHARES`."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("shades", list(colours))


def score_axis(ax: Axes, label: str, *, low: float = 0.0) -> None:
    """A horizontal axis of scores with a faint grid and no frame, from ``low``, a multiple of 0.2, to 1."""
    ticks = np.arange(low, 1.1, 0.2)
    margin = 0.02 * (1 - low)
    ax.set_xlim(low - margin, 1 + margin)
    ax.set_xticks(ticks, [f"{tick:.1f}" for tick in ticks])
    ax.set_xlabel(label)
    ax.grid(axis="x", linewidth=0.8)
    ax.spines[:].set_visible(False)

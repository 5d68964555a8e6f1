"""Figures that set models side by side, narrow enough for a phone: names and numbers stand beside what they name.

A model keeps its colour through all figures if it keeps its place. Colours are those of M. Okabe and K. Ito (2008),
"Color universal design", which people with any colour vision tell apart; further models get them again with another
marker and line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spectro.evaluation.curves import PairCurves, pair_curves
from spectro.evaluation.paired import Estimate
from spectro.figures.run import FAINT, INK, MUTED, fit_text, page, plain_text, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PairCurves", "macro_f1_figure", "pair_curves", "pair_figure", "recall_by_model_figure"]

MODEL_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
_MARKERS, _LINES = ("o", "s", "D"), ("-", "--", ":")
# Reference lines are told apart by dashes: their colour is that of the text.
_DASHES: tuple[Any, ...] = ((0, (1, 1.2)), (0, (4, 1.5)), (0, (6, 1.5, 1, 1.5)), "-")
_NAME_IN, _PLOT_IN, _FULL_IN, _ROW_IN, _GRID = 1.5, 2.6, 5.0, 0.23, "#e4e7eb"


def recall_by_model_figure(
    table: Mapping[str, Mapping[str, Mapping[str, Any]]],
    path: str | Path,
    title: str,
    references: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None,
) -> Path:
    """Draw each model's recall of each class with its 95 % interval, a block for each class.

    Args:
        table: Model -> class -> ``recall``, ``ci_low``, ``ci_high``, ``support``; the first three None without
            support. Over several seeds: the mean recall and the Wilson interval of this mean over the records that
            there are, as seeds are no further records.
        path: Where the PNG goes; missing folders are made.
        title: Heading, any text.
        references: The same for what has to be beaten, drawn as a line in each block.

    Returns:
        The path.

    Raises:
        ValueError: There is no model.
    """
    _some(table, "model")
    lines = references or {}
    classes = list(dict.fromkeys(name for own in table.values() for name in own))
    support = {c: max(own[c]["support"] for own in table.values() if c in own) for c in classes}
    blocks = {c: len(table) if support[c] else 0 for c in classes}
    fig, ax = page(_PLOT_IN, _ROW_IN * (sum(blocks.values()) + 1.7 * len(classes)))
    short, full = _short_names(fig, table, _NAME_IN - 0.15)
    y = 0.0
    for name in classes:
        heading = fit_text(fig, name, 3.6, 9.5)
        at = {"transform": ax.get_yaxis_transform(), "va": "center", **plain_text()}
        ax.text(-_NAME_IN / _PLOT_IN, y + 0.7, heading, size=9.5, weight="bold", color=INK, **at)
        said = f"n={support[name]}" if support[name] else "no records"
        ax.text(1.04, y + 0.7, said, size=9, color=MUTED, **at)
        y += 1.7
        for row, own in enumerate(table.values()):
            found = own.get(name, {"support": 0})
            if found["support"]:
                _row(ax, y + row, row, short[row], found["recall"], (found["ci_low"], found["ci_high"]))
        for number, own in enumerate(lines.values()):
            value = own.get(name, {}).get("recall")
            if value is not None and blocks[name]:
                ax.plot([value, value], [y - 0.5, y + blocks[name] - 0.5], **_reference(number))
        y += blocks[name]
        ax.axhline(y - 0.1, color=_GRID, linewidth=0.8)
    _share_axis(ax, y, "recall, with 95 % Wilson interval")
    _key(ax, {fit_text(fig, name, 2.6, 8.5): _reference(i) for i, name in enumerate(lines)}, full, y)
    return save(fig, path, title)


def macro_f1_figure(
    estimates: Mapping[str, Estimate],
    path: str | Path,
    title: str,
    references: Mapping[str, Estimate] | None = None,
    metric: str = "macro-F1",
) -> Path:
    """Draw the mean over seeds with its 95 % interval, a model a row; small dots are the seeds.

    Args:
        estimates: Model -> what `spectro.evaluation.paired.score_over_seeds` returns.
        path: Where the PNG goes; missing folders are made.
        title: Heading, any text.
        references: The same for what has to be beaten, drawn as vertical lines.
        metric: What the axis is called.

    Returns:
        The path.

    Raises:
        ValueError: There is no model.
    """
    _some(estimates, "model")
    high = len(estimates) + 0.4
    fig, ax = page(_PLOT_IN, 1.4 * _ROW_IN * high)
    short, full = _short_names(fig, estimates, _NAME_IN - 0.15)
    for row, found in enumerate(estimates.values()):
        _row(ax, row + 0.6, row, short[row], found.value, (found.ci_low, found.ci_high))
        if len(found.values) > 1:
            seeds = np.full(len(found.values), row + 0.95)
            colour = MODEL_COLOURS[row % len(MODEL_COLOURS)]
            ax.plot(found.values, seeds, linestyle="", marker="|", markersize=6, color=colour, zorder=3)
    lines = {}
    for number, (name, found) in enumerate((references or {}).items()):
        ax.axvline(found.value, **_reference(number))
        low_high = "" if found.ci_low is None else f" [{found.ci_low:.2f}, {found.ci_high:.2f}]"
        lines[f"{fit_text(fig, name, 2.0, 8.5)}  {found.value:.2f}{low_high}"] = _reference(number)
    _share_axis(ax, high, f"{metric}, with 95 % interval; |: a seed")
    _key(ax, lines, full, high)
    return save(fig, path, title)


def pair_figure(curves: Mapping[str, PairCurves], path: str | Path, title: str, positive: str = "") -> Path:
    """Draw ROC and precision-recall side by side; what a guess would give is grey.

    Args:
        curves: Model -> what `pair_curves` returns, all of the same records.
        path: Where the PNG goes; missing folders are made.
        title: Heading, any text.
        positive: The class that is looked for, named on the axes.

    Returns:
        The path.

    Raises:
        ValueError: There is no model.
    """
    _some(curves, "model")
    side, gap = 2.3, 0.75
    wide = 2 * side + gap
    fig, left = page(wide, side)
    left.set_position((0, 0, side / wide, 1))
    right = fig.add_axes(((side + gap) / wide, 0, side / wide, 1))
    first = next(iter(curves.values()))
    base = first.n_positive / (first.n_positive + first.n_negative)
    left.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
    right.plot([0, 1], [base, base], color=FAINT, linewidth=1)
    named = f" of {fit_text(fig, positive, 1.3, 9)}" if positive else ""
    for ax, x_label, y_label, heading in (
        (left, "false positive rate", f"recall{named}", "ROC"),
        (right, f"recall{named}", "precision", "precision-recall"),
    ):
        ax.set_xlabel(x_label, fontsize=9, color=MUTED, **plain_text())
        ax.set_ylabel(y_label, fontsize=9, color=MUTED, **plain_text())
        ax.set_title(heading, loc="left", fontsize=9.5, color=INK, **plain_text())
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_ticks([0, 0.5, 1], ["0", "0.5", "1"], fontsize=8.5, color=MUTED, **plain_text())
        ax.tick_params(length=0)
        ax.grid(color=_GRID, linewidth=0.6)
        ax.set_axisbelow(True)
        ax.spines[:].set_color(FAINT)
    # The key is a table below both: line, model, areas with intervals.
    columns, top = (0.3, 2.2, 3.9), -0.68
    for x_in, text in zip(columns, ("", "area under ROC", "average precision"), strict=True):
        fig.text(x_in / wide, top / side, text, size=8.5, color=MUTED, va="center", **plain_text())
    short, full = _short_names(fig, curves, columns[1] - columns[0] - 0.1)
    for row, found in enumerate(curves.values()):
        style: dict[str, Any] = {
            "color": MODEL_COLOURS[row % 6],
            "linestyle": _LINES[row // 6 % 3],
            "linewidth": 1.8,
            "alpha": 0.9,
        }
        left.plot(*found.roc, clip_on=False, **style)
        # Steps, as the average precision is the area below steps: straight lines would promise more.
        right.plot(*found.precision_recall, drawstyle="steps-post", clip_on=False, **style)
        y = (top - _ROW_IN * (row + 1)) / side
        left.plot([-0.1 / side, 0.2 / side], [y, y], transform=left.transAxes, clip_on=False, **style)
        cells = (
            short[row],
            _number(found.auc, found.auc_ci),
            _number(found.average_precision, found.average_precision_ci),
        )
        for x_in, cell in zip(columns, cells, strict=True):
            fig.text(x_in / wide, y, cell, size=9, color=INK, va="center", **plain_text())
    for row, text in enumerate(full):
        y = (top - _ROW_IN * (len(curves) + 1.8 + 0.85 * row)) / side
        fig.text(0, y, text, size=8.5, color=MUTED, va="center", **plain_text())
    return save(fig, path, title, f"{first.n_positive} positive and {first.n_negative} negative records; grey: a guess")


def _row(ax: Axes, y: float, place: int, name: str, value: float, bounds: tuple[float | None, float | None]) -> None:
    """A model's name, its value as a marker with interval, and the numbers."""
    colour, marker = MODEL_COLOURS[place % 6], _MARKERS[place // 6 % 3]
    low, high = bounds
    if low is not None and high is not None:
        ax.plot([low, high], [y, y], color=colour, linewidth=3, alpha=0.55, solid_capstyle="butt")
    ax.plot([value], [y], marker=marker, color=colour, markersize=5.5, clip_on=False, zorder=4)
    at = {"transform": ax.get_yaxis_transform(), "va": "center", "size": 9, "color": INK, **plain_text()}
    ax.text(-_NAME_IN / _PLOT_IN, y, name, **at)
    ax.text(1.04, y, _number(value, bounds), **at)


def _number(value: float, bounds: tuple[float | None, float | None]) -> str:
    """A value with its interval, as text."""
    low, high = bounds
    return f"{value:.2f}" if low is None or high is None else f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _reference(number: int) -> dict[str, Any]:
    """How a reference line is drawn."""
    return {"color": INK, "linestyle": _DASHES[number % len(_DASHES)], "linewidth": 1.2, "zorder": 2}


def _share_axis(ax: Axes, high: float, label: str) -> None:
    """An axis from 0 to 1 below rows that run down to ``high``."""
    ticks = np.linspace(0, 1, 6)
    ax.set(xlim=(-0.02, 1.02), ylim=(high, 0))
    ax.set_xticks(ticks, [f"{x:.1f}" for x in ticks], fontsize=8.5, color=MUTED, **plain_text())
    ax.set_xlabel(label, fontsize=9, color=MUTED, **plain_text())
    ax.set_yticks([])
    ax.tick_params(length=0)
    ax.grid(axis="x", color=_GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[:].set_visible(False)


def _key(ax: Axes, lines: Mapping[str, Mapping[str, Any]], names: Sequence[str], high: float) -> None:
    """What the reference lines are, then full names, a row each below the axis label."""
    row = high * 0.2 / (ax.get_position().height * ax.figure.get_figheight())  # type: ignore[union-attr]
    beside = ax.get_yaxis_transform()
    for number, (text, style) in enumerate(lines.items()):
        y = high + row * (2.9 + number)
        ax.plot([-0.02, 0.12], [y, y], transform=beside, clip_on=False, **style)
        ax.text(0.16, y, text, transform=beside, va="center", size=8.5, color=INK, **plain_text())
    for number, text in enumerate(names):
        y = high + row * (3.2 + len(lines) + number)
        ax.text(-_NAME_IN / _PLOT_IN, y, text, transform=beside, va="center", size=8.5, color=MUTED, **plain_text())


def _short_names(fig: Figure, models: Iterable[str], wide_in: float) -> tuple[list[str], list[str]]:
    """Names that fit and, where they are then no longer told apart, numbers before them and the key to these."""
    names = list(models)
    short = [fit_text(fig, name, wide_in, 9) for name in names]
    if len(set(short)) == len(names):
        return short, []
    numbered = [f"{i}  {fit_text(fig, name, wide_in - 0.25, 9)}" for i, name in enumerate(names, 1)]
    return numbered, [f"{i}  {fit_text(fig, name, _FULL_IN, 8.5)}" for i, name in enumerate(names, 1)]


def _some(models: Mapping[str, Any], what: str) -> None:
    if not models:
        raise ValueError(f"expected at least one {what}; got none")

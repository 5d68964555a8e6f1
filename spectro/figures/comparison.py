"""Figures that set models side by side: names and numbers stand beside what they name.

A model keeps its colour through all figures if it keeps its place. Colours are those of M. Okabe and K. Ito (2008),
"Color universal design", which people with any colour vision tell apart; further models get them again with another
marker and line.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spectro.evaluation.curves import PairCurves
from spectro.evaluation.format import format_number
from spectro.evaluation.paired import Estimate
from spectro.figures.style import FAINT, GRID, INK, MUTED, fit_text, page, panels, save, score_axis, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MODEL_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
_MARKERS, _LINES = ("o", "s", "D"), ("-", "--", ":")
_NAME_IN, _PLOT_IN, _FULL_IN, _ROW_IN, _SIDE_IN = 1.6, 3.0, 5.0, 0.23, 2.3


@styled
def estimates_figure(
    blocks: Mapping[str, Mapping[str, Estimate | None]],
    path: str | Path,
    title: str,
    *,
    axis: str,
    baselines: Collection[str] = (),
) -> Path:
    """Draws values with their 95 % intervals: a block for each metric or class, in it a row for each model.

    Args:
        blocks: Name of a block -> model -> value; None where it is not known. Values of single seeds are small marks.
        path: See `spectro.figures.style`.
        title: Likewise.
        axis: Label of the axis.
        baselines: Models that are drawn in grey.
    """
    models = list(dict.fromkeys(model for rows in blocks.values() for model in rows))
    known = {name: {m: e for m, e in rows.items() if e is not None} for name, rows in blocks.items()}
    fig, ax = page(_PLOT_IN, _ROW_IN * sum(len(rows) + 1.7 for rows in known.values()))
    short, full = _short_names(fig, models, _NAME_IN - 0.15)
    text_at: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "va": "center"}
    y, lowest = 0.0, 0.0
    for name, rows in known.items():
        heading = fit_text(fig, name, 3.6, 9.5) + ": no records" * (not rows)
        ax.text(-_NAME_IN / _PLOT_IN, y + 0.7, heading, size=9.5, weight="bold", color=INK, **text_at)
        y += 1.7
        for model, estimate in rows.items():
            place = models.index(model)
            colour = MUTED if model in baselines else MODEL_COLOURS[place % len(MODEL_COLOURS)]
            marker = _MARKERS[place // len(MODEL_COLOURS) % len(_MARKERS)]
            if estimate.ci_low is not None and estimate.ci_high is not None:
                ax.plot([estimate.ci_low, estimate.ci_high], [y, y], color=colour, linewidth=3, alpha=0.5)
            ax.plot([estimate.value], [y], marker=marker, color=colour, markersize=5.5, clip_on=False, zorder=4)
            if len(estimate.values) > 1:
                ax.plot(estimate.values, [y] * len(estimate.values), "|", color=colour, markersize=9, clip_on=False)
            ax.text(-_NAME_IN / _PLOT_IN, y, short[place], size=9, color=colour, **text_at)
            ax.text(1.04, y, str(estimate), size=9, color=INK, **text_at)
            lowest = min(lowest, estimate.value, estimate.ci_low or 0.0)
            y += 1
        ax.axhline(y - 0.1, color=GRID, linewidth=0.8)
    ax.set(ylim=(y, 0), yticks=[])
    score_axis(ax, axis, low=float(np.floor(5 * lowest) / 5))
    for row, text in enumerate(full):
        ax.text(-_NAME_IN / _PLOT_IN, y + 2.8 + row, text, size=8.5, color=MUTED, **text_at)
    return save(fig, path, title)


@styled
def pair_figure(curves: Mapping[str, PairCurves], path: str | Path, title: str, positive: str) -> Path:
    """Draws ROC and precision-recall side by side; the curve of a guess is grey.

    Args:
        curves: Model -> what `pair_curves` returns, all of the same records.
        path: See `spectro.figures.style`.
        title: Likewise.
        positive: The positive class, named on the axes.
    """
    fig, ((left, right),) = panels(1, 2, _SIDE_IN, _SIDE_IN, 0.75)
    wide = fig.get_figwidth()
    first = next(iter(curves.values()))
    base = first.n_positive / (first.n_positive + first.n_negative)
    left.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
    right.plot([0, 1], [base, base], color=FAINT, linewidth=1)
    recall = f"recall of {fit_text(fig, positive, 1.3, 9)}"
    left.set(title="ROC", xlabel="false positive rate", ylabel=recall)
    right.set(title="precision-recall", xlabel=recall, ylabel="precision")
    for ax in (left, right):
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        ax.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
        ax.grid(linewidth=0.6)
    # The key is a table below both: line, model, areas with intervals.
    columns, top = (0.3, 2.2, 3.9), -0.68
    for x_in, text in zip(columns, ("", "area under ROC", "average precision"), strict=True):
        fig.text(x_in / wide, top / _SIDE_IN, text, size=8.5, color=MUTED, va="center")
    short, full = _short_names(fig, curves, columns[1] - columns[0] - 0.1)
    for row, curve in enumerate(curves.values()):
        style: dict[str, Any] = {
            "color": MODEL_COLOURS[row % len(MODEL_COLOURS)],
            "linestyle": _LINES[row // len(MODEL_COLOURS) % len(_LINES)],
            "linewidth": 1.8,
            "alpha": 0.9,
        }
        left.plot(*curve.roc, clip_on=False, **style)
        # Steps, as the average precision is the area below steps: straight lines would promise more.
        right.plot(*curve.precision_recall, drawstyle="steps-post", clip_on=False, **style)
        y = (top - _ROW_IN * (row + 1)) / _SIDE_IN
        left.plot([-0.1 / _SIDE_IN, 0.2 / _SIDE_IN], [y, y], transform=left.transAxes, clip_on=False, **style)
        areas = (curve.auc, *curve.auc_ci), (curve.average_precision, *curve.average_precision_ci)
        for x_in, cell in zip(columns, (short[row], *(format_number(*area) for area in areas)), strict=True):
            fig.text(x_in / wide, y, cell, size=9, color=INK, va="center")
    for row, text in enumerate(full):
        y = (top - _ROW_IN * (len(curves) + 1.8 + 0.85 * row)) / _SIDE_IN
        fig.text(0, y, text, size=8.5, color=MUTED, va="center")
    return save(fig, path, title, f"{first.n_positive} positive and {first.n_negative} negative records; grey: a guess")


def _short_names(fig: Figure, models: Iterable[str], wide_in: float) -> tuple[list[str], list[str]]:
    """Names that fit and, where they are then no longer different, numbers before them and the key to these."""
    names = list(models)
    short = [fit_text(fig, name, wide_in, 9) for name in names]
    if len(set(short)) == len(names):
        return short, []
    numbered = [f"{i}  {fit_text(fig, name, wide_in - 0.25, 9)}" for i, name in enumerate(names, 1)]
    return numbered, [f"{i}  {fit_text(fig, name, _FULL_IN, 8.5)}" for i, name in enumerate(names, 1)]

"""The figure of a comparison: the scores of its models with their intervals on one axis."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from spectro.evaluation.paired import Estimate
from spectro.figures.style import COLOURS, INK, MUTED, fit_text, page, save, score_axis, styled

_NAME_IN, _PLOT_IN, _ROW_IN = 2.1, 2.6, 0.26


@styled
def scores_figure(
    scores: Mapping[str, Estimate], path: str | Path, title: str, *, axis: str, baselines: Collection[str] = ()
) -> Path:
    """Draws values with their 95 % intervals, a row for each model; values of single seeds are small marks.

    Args:
        scores: Model -> value.
        path: See `spectro.figures.style`.
        title: Likewise.
        axis: Label of the axis.
        baselines: Models that are drawn in grey.
    """
    fig, ax = page(_PLOT_IN, _ROW_IN * len(scores))
    beside: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "va": "center", "size": 9, "color": INK}
    for row, (model, estimate) in enumerate(scores.items()):
        colour = MUTED if model in baselines else COLOURS[0]
        if estimate.ci_low is not None and estimate.ci_high is not None:
            ax.plot([estimate.ci_low, estimate.ci_high], [row, row], color=colour, linewidth=3, alpha=0.5)
        ax.plot([estimate.value], [row], "o", color=colour, markersize=5.5, clip_on=False, zorder=4)
        if len(estimate.values) > 1:
            ax.plot(estimate.values, [row] * len(estimate.values), "|", color=colour, markersize=9, clip_on=False)
        ax.text(1.04, row, str(estimate), **beside)
    ax.set_yticks(range(len(scores)), [fit_text(fig, model, _NAME_IN, 9) for model in scores], fontsize=9)
    ax.set_ylim(len(scores) - 0.5, -0.5)
    lowest = min(e.value if e.ci_low is None else e.ci_low for e in scores.values())
    score_axis(ax, axis, low=float(np.floor(5 * min(lowest, 0.8)) / 5))
    return save(fig, path, title)

"""Curves over the epochs of a training, and over the number of training records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from spectro.figures.style import GRID, INK, MUTED, SPLIT_COLOURS, fit_text, page, plain_text, save

_WIDE_IN, _HIGH_IN, _GAP_IN = 3.4, 2.2, 0.75
_LOSSES = (("train_loss", "train", SPLIT_COLOURS[0]), ("val_loss", "val", SPLIT_COLOURS[1]))
# Training records, the score, the ends of its interval (None: unknown) and the score of each seed.
Measured = tuple[float, float, float | None, float | None, Sequence[float]]


def curves_figure(history: Sequence[Mapping[str, str]], path: str | Path, title: str) -> Path:
    """Draw losses and val macro-F1 over the epochs, a row for each stage; a line marks the best epoch.

    Args:
        history: The rows of a ``history.csv``, values as text; an empty one is not known.
        path: Where the PNG goes; missing folders are made.
        title: Heading, any text.

    Returns:
        The path.
    """
    from matplotlib.ticker import MaxNLocator

    stages = list(dict.fromkeys(row["stage"] for row in history))
    fig, first = page(2 * _WIDE_IN + _GAP_IN, len(stages) * (_HIGH_IN + _GAP_IN) - _GAP_IN)
    first.remove()
    wide, high = fig.get_figwidth(), fig.get_figheight()
    for number, stage in enumerate(stages):
        rows = [row for row in history if row["stage"] == stage]
        bottom = (high - number * (_HIGH_IN + _GAP_IN) - _HIGH_IN) / high
        for column, (name, curves) in enumerate(
            (("loss", _LOSSES), ("macro-F1", (("val_macro_f1", "val", SPLIT_COLOURS[1]),)))
        ):
            left = column * (_WIDE_IN + _GAP_IN) / wide
            ax = fig.add_axes((left, bottom, _WIDE_IN / wide, _HIGH_IN / high))
            for key, label, colour in curves:
                known = [(int(row["epoch"]), float(row[key])) for row in rows if row[key]]
                if known:
                    epochs, values = zip(*known, strict=True)
                    ax.plot(epochs, values, color=colour, marker=".", markersize=4, linewidth=1.2, label=label)
            for row in rows:
                if row["best"] == "True":
                    ax.axvline(int(row["epoch"]), color=MUTED, linewidth=0.8, linestyle=":")
            heading = f"{stage}: {name}" if stage else name
            ax.set_title(fit_text(fig, heading, _WIDE_IN, 9), loc="left", fontsize=9, color=INK, **plain_text())
            ax.set_xlabel("epoch", fontsize=8, color=MUTED, **plain_text())
            ax.tick_params(labelsize=8, labelcolor=MUTED, length=2)
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            ax.grid(color=GRID, linewidth=0.6)
            if name == "macro-F1":
                ax.set_ylim(-0.02, 1.02)
            elif ax.lines:
                ax.legend(fontsize=8, frameon=False)
    return save(fig, path, title)


def label_curve_figure(
    curves: Mapping[str, Sequence[Measured]],
    sizes: Sequence[tuple[float, float, float]],
    path: str | Path,
    title: str,
    said: str,
) -> Path:
    """Draw macro-F1 against training records, a colour for each model: mean, 95 % interval, a small dot for each seed.

    The axis is logarithmic: as far to the right again means twice as many labels.

    Args:
        curves: Model -> what was measured, the smallest number of records first.
        sizes: For each tick the training records in all, of the smallest class, and of the median class.
        path: Where the PNG goes; missing folders are made.
        title: Heading, any text.
        said: What stands below it.

    Returns:
        The path.

    Raises:
        ValueError: There is nothing to draw.
    """
    if not curves or not sizes:
        raise ValueError(f"expected curves and sizes; got {len(curves)} and {len(sizes)}")
    fig, ax = page(5.6, 3.6)
    ax.set_xscale("log", base=2)
    top = 0.0
    for number, (model, measured) in enumerate(curves.items()):
        colour = SPLIT_COLOURS[number % len(SPLIT_COLOURS)]
        # Side by side: intervals of several models at one number of records would lie over one another.
        aside = 2 ** (0.07 * (number - (len(curves) - 1) / 2))
        x, y = np.array([m[0] for m in measured]) * aside, np.array([m[1] for m in measured])
        ax.plot(x, y, color=colour, linewidth=1.6, marker="o", markersize=5, label=fit_text(fig, model, 1.6, 9))
        for place, (_, value, low, high, seeds) in zip(x, measured, strict=True):
            if low is not None and high is not None:
                ax.errorbar(place, value, yerr=[[value - low], [high - value]], color=colour, capsize=3, linewidth=1)
            beside = [place * 2**0.025] * len(seeds)
            ax.plot(beside, seeds, ".", color=colour, markersize=5, alpha=0.5, markeredgewidth=0)
            top = max(top, value, high or 0.0, *seeds)
    ax.set_ylim(0, min(1.02, 1.1 * top + 0.02))
    ticks = sorted(sizes)
    told = ["\n".join(f"{n:.1f}".removesuffix(".0") if n < 10 else f"{n:.0f}" for n in size) for size in ticks]
    ax.set_xticks([size[0] for size in ticks], told, fontsize=8, color=INK, **plain_text())
    ax.set_xticks([], minor=True)
    ax.set_xlim(0.85 * ticks[0][0], ticks[-1][0] / 0.85)
    for line, below in (("in all", -0.042), ("smallest class", -0.085), ("median class", -0.128)):
        ax.text(
            -0.02, below, line, transform=ax.transAxes, ha="right", va="center", size=8, color=MUTED, **plain_text()
        )
    ax.set_xlabel("training records, mean over the folds", fontsize=9, color=MUTED, **plain_text())
    ax.set_ylabel("macro-F1, 95 % interval, dots: seeds", fontsize=9, color=MUTED, **plain_text())
    ax.tick_params(labelsize=8, length=2, color=MUTED)
    ax.grid(color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(fontsize=9, frameon=False, loc="lower right")
    return save(fig, path, title, said)

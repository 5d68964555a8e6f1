"""Curves over the epochs of a training, and over the number of training records."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from spectro.figures.style import COLOURS, INK, MUTED, fit_text, page, panels, save, styled

_WIDE_IN = 3.4
# What is drawn in each panel: columns of history.csv.
_PANELS = {"loss": {"train": "train_loss", "val": "val_loss"}, "macro-F1": {"val": "val_macro_f1"}}
_COLOURS = {"train": COLOURS[0], "val": COLOURS[1]}
# Training records, the score, the ends of its interval (None: unknown) and the score of each seed.
Measured = tuple[float, float, float | None, float | None, Sequence[float]]


@styled
def curves_figure(history: Sequence[Mapping[str, str]], path: str | Path, title: str) -> Path:
    """Draws losses and val macro-F1 over the epochs, a row for each stage; a line marks the best epoch.

    Args:
        history: The rows of a ``history.csv``, values as text; an empty value is unknown.
    """
    from matplotlib.ticker import MaxNLocator

    stages = list(dict.fromkeys(row["stage"] for row in history))
    fig, axes = panels(len(stages), 2, _WIDE_IN, 2.2, 0.75)
    for stage, of_stage in zip(stages, axes, strict=True):
        rows = [row for row in history if row["stage"] == stage]
        for ax, (name, curves) in zip(of_stage, _PANELS.items(), strict=True):
            for split, key in curves.items():
                known = [(int(row["epoch"]), float(row[key])) for row in rows if row[key]]
                if known:
                    style = {"color": _COLOURS[split], "marker": ".", "markersize": 4, "linewidth": 1.2}
                    ax.plot(*zip(*known, strict=True), label=split, **style)
            for row in rows:
                if row["best"] == "True":
                    ax.axvline(int(row["epoch"]), color=MUTED, linewidth=0.8, linestyle=":")
            ax.set_title(fit_text(fig, f"{stage}: {name}" if stage else name, _WIDE_IN, 9))
            ax.set_xlabel("epoch")
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            ax.grid(linewidth=0.6)
            if name == "macro-F1":
                ax.set_ylim(-0.02, 1.02)
            elif ax.lines:
                ax.legend()
    return save(fig, path, title)


@styled
def label_curve_figure(
    curves: Mapping[str, Sequence[Measured]],
    sizes: Sequence[tuple[float, float, float]],
    path: str | Path,
    title: str,
    subtitle: str,
) -> Path:
    """Draws macro-F1 against training records, a colour for each model: mean, 95 % interval, a small dot for each seed.

    The axis is logarithmic: as far to the right again means twice as many labels.

    Args:
        curves: Model -> what was measured, the smallest number of records first.
        sizes: For each tick the training records in all, of the smallest class, and of the median class.
    """
    fig, ax = page(5.6, 3.6)
    ax.set_xscale("log", base=2)
    top = 0.0
    for number, (model, measured) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
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
    labels = ["\n".join(f"{n:.1f}".removesuffix(".0") if n < 10 else f"{n:.0f}" for n in size) for size in ticks]
    ax.set_xticks([size[0] for size in ticks], labels, color=INK)
    ax.set_xticks([], minor=True)
    ax.set_xlim(0.85 * ticks[0][0], ticks[-1][0] / 0.85)
    for line, y_axes in (("in all", -0.042), ("smallest class", -0.085), ("median class", -0.128)):
        ax.text(-0.02, y_axes, line, transform=ax.transAxes, ha="right", va="center", size=8, color=MUTED)
    ax.set(xlabel="training records, mean over the folds", ylabel="macro-F1, 95 % interval, dots: seeds")
    ax.grid(linewidth=0.8)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="lower right")
    return save(fig, path, title, subtitle)

"""Figures of an evaluation: confusion matrix, recall of each class, reliability."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from spectro.evaluation.format import DASH, format_number
from spectro.evaluation.metrics import METRICS
from spectro.figures.style import (
    FAINT,
    FIXED_SPACE,
    GRID,
    INK,
    LABEL_IN,
    MUTED,
    SPLIT_COLOURS,
    Report,
    fit_text,
    page,
    panels,
    save,
    score_axis,
    styled,
)


@styled
def confusion_figure(report: Report, path: str | Path, title: str) -> Path:
    """Draws a confusion matrix: count and share of the true class in each cell.

    Args:
        report: What `spectro.evaluation.score` returns; rows of its confusion matrix are the truth.
        path: See `spectro.figures.style`.
        title: Likewise.
    """
    from matplotlib.colors import LinearSegmentedColormap

    counts = np.asarray(report["confusion_matrix"])
    k = len(counts)
    support = counts.sum(axis=1, keepdims=True)
    share = counts / np.maximum(support, 1)
    side_in = k * (1.0 if k <= 4 else 0.72 if k <= 20 else 0.5)
    fig, ax = page(side_in, side_in)
    # The scale ends at a middle blue on which dark text still has contrast.
    blues = LinearSegmentedColormap.from_list("light_blues", ["#ffffff", "#d6e6f4", "#7fb2dc"])
    ax.imshow(share, cmap=blues, vmin=0, vmax=1, aspect="equal", interpolation="nearest")
    for row, column in np.ndindex(k, k):
        at = {"x": column, "ha": "center", "in_layout": False}
        if not support[row, 0]:
            ax.text(y=row, s=DASH, va="center", color=MUTED, fontsize=10, **at)
            continue
        at["color"] = INK if counts[row, column] else FAINT
        weight = "bold" if row == column else "normal"
        ax.text(y=row - 0.02, s=str(counts[row, column]), va="bottom", fontsize=10, weight=weight, **at)
        ax.text(y=row + 0.08, s=f"{100 * share[row, column]:.0f} %", va="top", fontsize=7, **at)
    for row in np.flatnonzero(support[:, 0] == 0):
        ax.axhspan(row - 0.5, row + 0.5, color="#f1f3f5", linewidth=0)
    labels = [fit_text(fig, name, LABEL_IN, 9) for name in report["classes"]]
    rows = [f"{label}  (n={n})" for label, n in zip(labels, support[:, 0], strict=True)]
    ax.set_yticks(range(k), rows, fontsize=9, color=INK)
    ax.set_xticks(range(k), labels, fontsize=9, color=INK, rotation=40, ha="right", rotation_mode="anchor")
    ax.set(xlabel="predicted", ylabel="true")
    ax.set_xticks(np.arange(k + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(k + 1) - 0.5, minor=True)
    ax.grid(which="minor", linewidth=0.8)
    return save(fig, path, title, _summary(report))


@styled
def recall_figure(reports: Mapping[str, Report], path: str | Path, title: str) -> Path:
    """Draws the recall of each class with its 95 % Wilson interval and support, the splits below one another.

    Args:
        reports: For each split, at least one, what `spectro.evaluation.score` returns. Classes stand in the order of
            their first appearance; a class without records in a split has a dash.
        path: See `spectro.figures.style`.
        title: Likewise.
    """
    classes = list(dict.fromkeys(name for report in reports.values() for name in report["classes"]))
    step = 1 / (len(reports) + 0.7)
    fig, ax = page(4.6, 0.24 / step * len(classes))
    for i, (split, report) in enumerate(reports.items()):
        colour = SPLIT_COLOURS[i % len(SPLIT_COLOURS)]
        for j, name in enumerate(classes):
            y = j + (i - (len(reports) - 1) / 2) * step
            scores = report["per_class"].get(name, {"support": 0, "recall": None})
            recall, low, high = (scores.get(key) for key in ("recall", "recall_ci_low", "recall_ci_high"))
            if recall is not None:
                ax.barh(y, recall, height=0.8 * step, color=colour, alpha=0.3, linewidth=0)
                bounds = [[recall - low], [high - recall]]
                ax.errorbar(recall, y, xerr=bounds, fmt="o", color=colour, markersize=4, capsize=2.5)
            texts = fit_text(fig, split, 0.6, 8), f"n={scores['support']}", format_number(recall, low, high)
            for x, text in zip((1.03, 1.18, 1.29), texts, strict=True):
                ax.text(x, y, text, transform=ax.get_yaxis_transform(), va="center", size=8, color=colour)
    for edge in np.arange(1, len(classes)) - 0.5:
        ax.axhline(edge, color=GRID, linewidth=0.8)
    labels = [fit_text(fig, name, LABEL_IN, 9) for name in classes]
    ax.set_yticks(range(len(classes)), labels, fontsize=9, color=INK)
    ax.set_ylim(len(classes) - 0.5, -0.5)
    score_axis(ax, "recall, with 95 % Wilson interval")
    return save(fig, path, title)


@styled
def reliability_figure(reports: Mapping[str, Report], path: str | Path, title: str) -> Path:
    """Draws accuracy against confidence, the largest probability, a panel for each split.

    Each bin has its 95 % Wilson interval, and its number of records stands below: an interval that reaches the diagonal
    is no evidence against the model.

    Args:
        reports: For each split, at least one, what `spectro.evaluation.calibration` returns.
        path: See `spectro.figures.style`.
        title: Likewise.
    """
    fig, (axes,) = panels(1, len(reports), 2.7, 2.7, 0.55)
    ticks = np.linspace(0, 1, 6)
    for number, (ax, (split, report)) in enumerate(zip(axes, reports.items(), strict=True)):
        colour, bins = SPLIT_COLOURS[number % len(SPLIT_COLOURS)], report["reliability"]
        ax.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle="--")
        summary, sizes = "no records", [b["n"] for b in bins]
        if bins:
            keys = ("confidence", "accuracy", "accuracy_ci_low", "accuracy_ci_high")
            x, y, low, high = (np.array([b[key] for b in bins]) for key in keys)
            ax.errorbar(x, y, yerr=[y - low, high - y], fmt="o", color=colour, markersize=4, capsize=2.5, linewidth=1.2)
            by_chance = f"by chance up to {report['ece_by_chance_high']:.2f}"
            summary = f"n={sum(sizes)}, ECE {report['ece']:.2f}, {by_chance}"
            per_bin = f"records per bin: {' '.join(map(str, sizes))}"
            ax.text(0.5, -0.17, per_bin, transform=ax.transAxes, ha="center", va="top", size=7, color=colour)
        ax.set_title(f"{fit_text(fig, split, 1.0, 9)}: {summary}", fontsize=8, color=colour)
        labels = [f"{tick:.1f}" for tick in ticks]
        ax.set_xticks(ticks, labels)
        ax.set_yticks(ticks, labels if number == 0 else [])
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="confidence (largest probability)")
        ax.grid(linewidth=0.6)
    axes[0].set_ylabel("accuracy, 95 % interval")
    return save(fig, path, title, "accuracy against confidence, in bins of about equally many records")


def _summary(report: Report) -> str:
    """The metrics of a report, with interval and support."""
    if not report["n_records"]:
        return "no records"
    parts = [
        f"{metric.label} {format_number(report[key], report[f'{key}_ci_low'], report[f'{key}_ci_high'])}"
        for key, metric in METRICS.items()
        if report.get(key) is not None
    ]
    n_present, k = len(report["macro_f1_classes"]), len(report["classes"])
    parts[0] += f" over {n_present} of {k} classes" * (n_present < k)
    # A line ends between two parts, not within a part.
    return "   ".join(part.replace(" ", FIXED_SPACE) for part in [*parts, f"n={report['n_records']}"])

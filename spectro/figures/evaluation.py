"""Figures of an evaluation: confusion matrix, recall of each class, reliability."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from spectro.evaluation.format import format_number
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
    plain_text,
    save,
    share_axis,
)

_SIDE_IN, _GAP_IN = 2.7, 0.55


def confusion_figure(report: Report, path: str | Path, title: str) -> Path:
    """Draw a confusion matrix: count and share of the true class in each cell.

    Args:
        report: What `spectro.evaluation.score` returns; rows of its confusion matrix are the truth.
        path: Where the PNG goes; missing folders are made.
        title: Heading, any text.

    Returns:
        The path.
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
        at = {"x": column, "ha": "center", "in_layout": False, **plain_text()}
        if not support[row, 0]:
            ax.axhspan(row - 0.5, row + 0.5, color="#f1f3f5", linewidth=0)
            ax.text(y=row, s="–", va="center", color=MUTED, fontsize=10, **at)
            continue
        colour = INK if counts[row, column] else FAINT
        weight = "bold" if row == column else "normal"
        ax.text(y=row - 0.02, s=str(counts[row, column]), va="bottom", color=colour, fontsize=10, weight=weight, **at)
        ax.text(y=row + 0.08, s=f"{100 * share[row, column]:.0f} %", va="top", color=colour, fontsize=7, **at)
    labels = [fit_text(fig, name, LABEL_IN, 9) for name in report["classes"]]
    rows = [f"{label}  (n={n})" for label, n in zip(labels, support[:, 0], strict=True)]
    ax.set_yticks(range(k), rows, fontsize=9, color=INK, **plain_text())
    ax.set_xticks(
        range(k), labels, fontsize=9, color=INK, rotation=40, ha="right", rotation_mode="anchor", **plain_text()
    )
    ax.set_xlabel("predicted", fontsize=10, color=MUTED, **plain_text())
    ax.set_ylabel("true", fontsize=10, color=MUTED, **plain_text())
    ax.set_xticks(np.arange(k + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(k + 1) - 0.5, minor=True)
    ax.grid(which="minor", color=GRID, linewidth=0.8)
    ax.tick_params(which="both", length=0)
    ax.spines[:].set_color(FAINT)
    return save(fig, path, title, _summary(report))


def recall_figure(reports: Mapping[str, Report], path: str | Path, title: str) -> Path:
    """Draw the recall of each class with its 95 % Wilson interval and support, the splits below one another.

    Args:
        reports: For each split what `spectro.evaluation.score` returns. Classes stand in the order of their first
            appearance; a class without records in a split is marked so.
        path: Where the PNG goes; missing folders are made.
        title: Heading, any text.

    Returns:
        The path.

    Raises:
        ValueError: There is no report.
    """
    if not reports:
        raise ValueError("expected the report of at least one split; got none")
    classes = list(dict.fromkeys(name for report in reports.values() for name in report["classes"]))
    step = 1 / (len(reports) + 0.7)
    fig, ax = page(4.6, 0.24 / step * len(classes))
    beside = ax.get_yaxis_transform()
    for i, (split, report) in enumerate(reports.items()):
        colour = SPLIT_COLOURS[i % len(SPLIT_COLOURS)]
        for j, name in enumerate(classes):
            y = j + (i - (len(reports) - 1) / 2) * step
            found = report["per_class"].get(name, {"support": 0})
            said = "–"
            if found["support"]:
                recall, low, high = found["recall"], found["recall_ci_low"], found["recall_ci_high"]
                ax.barh(y, recall, height=0.8 * step, color=colour, alpha=0.3, linewidth=0)
                ax.errorbar(
                    recall, y, xerr=[[recall - low], [high - recall]], fmt="o", color=colour, markersize=4, capsize=2.5
                )
                said = format_number(recall, low, high)
            for x, text in ((1.03, fit_text(fig, split, 0.6, 8)), (1.18, f"n={found['support']}"), (1.29, said)):
                ax.text(x, y, text, transform=beside, va="center", size=8, color=colour, **plain_text())
    for edge in np.arange(1, len(classes)) - 0.5:
        ax.axhline(edge, color=GRID, linewidth=0.8)
    labels = [fit_text(fig, name, LABEL_IN, 9) for name in classes]
    ax.set_yticks(range(len(classes)), labels, fontsize=9, color=INK, **plain_text())
    ax.set_ylim(len(classes) - 0.5, -0.5)
    share_axis(ax, "recall, with 95 % Wilson interval")
    return save(fig, path, title)


def reliability_figure(reports: Mapping[str, Report], path: str | Path, title: str) -> Path:
    """Draw how often the largest probability is right against what it says, a panel for each split.

    Each bin has its 95 % Wilson interval, and its number of records stands below: an interval that reaches the diagonal
    says nothing against the model.

    Args:
        reports: For each split what `spectro.evaluation.calibration` returns.
        path: Where the PNG goes; missing folders are made.
        title: Heading, any text.

    Returns:
        The path.

    Raises:
        ValueError: There is no report.
    """
    if not reports:
        raise ValueError("expected the report of at least one split; got none")
    fig, first = page(len(reports) * (_SIDE_IN + _GAP_IN) - _GAP_IN, _SIDE_IN)
    first.remove()
    ticks = np.linspace(0, 1, 6)
    for number, (split, report) in enumerate(reports.items()):
        colour = SPLIT_COLOURS[number % len(SPLIT_COLOURS)]
        ax = fig.add_axes((number * (_SIDE_IN + _GAP_IN) / fig.get_figwidth(), 0, _SIDE_IN / fig.get_figwidth(), 1))
        ax.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle="--")
        said, bins = "no records", report["reliability"]
        if bins:
            x, y, low, high = (
                np.array([own[key] for own in bins])
                for key in ("confidence", "accuracy", "accuracy_ci_low", "accuracy_ci_high")
            )
            ax.errorbar(x, y, yerr=[y - low, high - y], fmt="o", color=colour, markersize=4, capsize=2.5, linewidth=1.2)
            n = sum(own["n"] for own in bins)
            said = f"n={n}, ECE {report['ece']:.2f}, by chance up to {report['ece_by_chance_high']:.2f}"
        heading = f"{fit_text(fig, split, 1.0, 9)}: {said}"
        ax.set_title(heading, loc="left", fontsize=8, color=colour, **plain_text())
        per_bin = f"records per bin: {' '.join(str(own['n']) for own in bins)}" if bins else ""
        ax.set_xlabel("largest probability", fontsize=8, color=MUTED, **plain_text())
        ax.text(
            0.5, -0.155, per_bin, transform=ax.transAxes, ha="center", va="top", size=6, color=colour, **plain_text()
        )
        labels = [f"{tick:.1f}" for tick in ticks]
        ax.set_xticks(ticks, labels, fontsize=8, color=MUTED, **plain_text())
        ax.set_yticks(ticks, labels if number == 0 else [], fontsize=8, color=MUTED, **plain_text())
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        if number == 0:
            ax.set_ylabel("share that is right, 95 %", fontsize=8, color=MUTED, **plain_text())
        ax.tick_params(length=2, color=MUTED)
        ax.grid(color=GRID, linewidth=0.6)
        ax.set_axisbelow(True)
        ax.spines[:].set_color(FAINT)
    return save(fig, path, title, "how often the largest probability is right; bins of about equally many records")


def _summary(report: Report) -> str:
    """The averages of a report, with interval and support."""
    if not report["n_records"]:
        return "no records"
    parts = []
    for key, metric in METRICS.items():
        if report.get(key) is not None:
            value = format_number(report[key], report[f"{key}_ci_low"], report[f"{key}_ci_high"])
            parts.append(f"{metric.label} {value}")
    have, of = len(report["macro_f1_classes"]), len(report["classes"])
    parts[0] += f" over {have} of {of} classes" if have < of else ""
    # A line ends between two of them, not within one.
    return "   ".join(part.replace(" ", FIXED_SPACE) for part in [*parts, f"n={report['n_records']}"])

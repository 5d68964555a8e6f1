"""Figures of an evaluation: confusion matrix, recall of each class, reliability, risk and coverage, several models."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spectro.evaluation.format import DASH, format_number
from spectro.evaluation.paired import Estimate, axis_start
from spectro.figures.style import (
    COLOURS,
    GRID,
    INK,
    LABEL_IN,
    MUTED,
    SHARES,
    Report,
    fit_text,
    page,
    save,
    score_axis,
    shades,
    styled,
)

_ROW_IN, _BIN_IN = 0.26, 1.0


@styled
def confusion_figure(report: Report, path: str | Path, title: str) -> Path:
    """Draws a confusion matrix: count and share of the true class in each cell that holds records.

    Args:
        report: What `spectro.evaluation.score` returns; rows of its confusion matrix are the truth.
    """
    counts = np.asarray(report["confusion_matrix"])
    k = len(counts)
    support = counts.sum(axis=1, keepdims=True)
    share = counts / np.maximum(support, 1)
    side_in = k * (1.0 if k <= 4 else 0.72 if k <= 20 else 0.5)
    fig, ax = page(side_in, side_in)
    ax.imshow(share, cmap=shades(SHARES), vmin=0, vmax=1, aspect="equal", interpolation="nearest")
    for row, column in np.argwhere(counts).tolist():
        at: dict[str, Any] = {"x": column, "ha": "center", "in_layout": False, "color": INK}
        weight = "bold" if row == column else "normal"
        ax.text(y=row - 0.02, s=str(counts[row, column]), va="bottom", fontsize=10, weight=weight, **at)
        ax.text(y=row + 0.08, s=f"{100 * share[row, column]:.0f} %", va="top", fontsize=7, **at)
    for row in np.flatnonzero(support[:, 0] == 0).tolist():
        ax.axhspan(row - 0.5, row + 0.5, color="#f1f3f5", linewidth=0)
        for column in range(k):
            ax.text(column, row, DASH, ha="center", va="center", color=MUTED, fontsize=10, in_layout=False)
    labels = [fit_text(fig, name, LABEL_IN, 9) for name in report["classes"]]
    rows = [f"{label}  (n={n})" for label, n in zip(labels, support[:, 0], strict=True)]
    ax.set_yticks(range(k), rows, fontsize=9, color=INK)
    ax.set_xticks(range(k), labels, fontsize=9, color=INK, rotation=40, ha="right", rotation_mode="anchor")
    ax.set(xlabel="predicted", ylabel="true")
    ax.set_xticks(np.arange(k + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(k + 1) - 0.5, minor=True)
    ax.grid(which="minor", linewidth=0.8)
    return save(fig, path, title)


@styled
def recall_figure(reports: Mapping[str, Report], path: str | Path, title: str) -> Path:
    """Draws the recall of each class with its 95 % Wilson interval and support, the splits below one another.

    Args:
        reports: For each split, at least one, what `spectro.evaluation.score` returns. Classes stand in the order of
            their first appearance; a class without records in a split has a dash.
    """
    classes = list(dict.fromkeys(name for report in reports.values() for name in report["classes"]))
    step = 1 / (len(reports) + 0.7)
    fig, ax = page(4.6, 0.24 / step * len(classes))
    for i, (split, report) in enumerate(reports.items()):
        colour = COLOURS[i % len(COLOURS)]
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
    """Draws accuracy beside confidence, the largest probability: a block for each split, in it a row for each bin.

    Rows stay apart where all confidences are about equal. A bin whose 95 % Wilson interval holds its mean confidence, a
    black mark, is no evidence against the model.

    Args:
        reports: For each split, at least one, what `spectro.evaluation.calibration` returns.
    """
    n_rows = sum(len(report["reliability"]) + 2 for report in reports.values())
    fig, ax = page(3.6, _ROW_IN * n_rows)
    beside: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "va": "center"}
    y = 0.0
    for number, (split, report) in enumerate(reports.items()):
        colour, bins = COLOURS[number % len(COLOURS)], report["reliability"]
        by_chance = f"ECE {format_number(report['ece'])}, by chance up to {format_number(report['ece_by_chance_high'])}"
        summary = f"n={sum(b['n'] for b in bins)}, {by_chance}" if bins else "no records"
        ax.text(-_BIN_IN / 3.6, y + 0.8, fit_text(fig, split, 0.9, 9), size=9, weight="bold", color=colour, **beside)
        ax.text(0, y + 0.8, summary, size=8.5, color=MUTED, **beside)
        y += 1.6
        for b in bins:
            ax.plot([b["accuracy_ci_low"], b["accuracy_ci_high"]], [y, y], color=colour, linewidth=3, alpha=0.5)
            ax.plot([b["accuracy"]], [y], "o", color=colour, markersize=5.5, clip_on=False, zorder=4)
            ax.plot([b["confidence"]], [y], "|", color=INK, markersize=11, markeredgewidth=1.8, clip_on=False, zorder=5)
            ax.text(-_BIN_IN / 3.6, y, f"confidence {b['confidence']:.2f}", size=8, color=INK, **beside)
            right = format_number(b["accuracy"], b["accuracy_ci_low"], b["accuracy_ci_high"])
            ax.text(1.04, y, f"{right}  n={b['n']}", size=8, color=INK, **beside)
            y += 1
        ax.axhline(y, color=GRID, linewidth=0.8)
        y += 0.4
    ax.set(ylim=(y, 0), yticks=[])
    score_axis(ax, "dot: accuracy, with 95 % Wilson interval; |: mean confidence")
    return save(fig, path, title)


@styled
def review_figure(
    rows: Sequence[Mapping[str, str]], chosen: Mapping[str, float | None], path: str | Path, title: str
) -> Path:
    """Draws the accuracy of the most confident records against the share of the records that they are, by split.

    Args:
        rows: Those of a ``risk_coverage.csv``, values as text.
        chosen: Split -> the share that is automatic under the thresholds, which are by class: it may lie off the curve.
    """
    fig, ax = page(4.6, 3.2)
    lowest = 1.0
    for number, split in enumerate(dict.fromkeys(row["split"] for row in rows)):
        names = ("automatic", "automatic_accuracy", "automatic_accuracy_ci_low", "automatic_accuracy_ci_high")
        of_split = [[float(row[name]) for name in names] for row in rows if row["split"] == split]
        share, accuracy, low, high = np.array(of_split).T
        colour = COLOURS[number % len(COLOURS)]
        n = max(int(row["n"]) for row in rows if row["split"] == split)
        ax.plot(share, accuracy, color=colour, linewidth=1.6, drawstyle="steps-pre", label=f"{split}, n={n}")
        ax.fill_between(share, low, high, step="pre", color=colour, alpha=0.15, linewidth=0)
        if (automatic := chosen.get(split)) is not None:
            ax.axvline(automatic, color=colour, linewidth=1.0, linestyle=":")
        lowest = min(lowest, float(low[share > 0.1].min(initial=1.0)))
    ax.set(xlim=(0, 1.01), ylim=(np.floor(10 * lowest) / 10, 1.01))
    ax.set(xlabel="share that is automatic, the most confident first; dotted: chosen", ylabel="accuracy, 95 % interval")
    ax.grid(linewidth=0.8)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="lower left")
    return save(fig, path, title)


@styled
def scores_figure(
    scores: Mapping[str, Estimate], path: str | Path, title: str, *, axis: str, baselines: Collection[str] = ()
) -> Path:
    """Draws values with their 95 % intervals, a row for each model; values of single seeds are small marks.

    Args:
        baselines: Models that are drawn in grey.
    """
    fig, ax = page(2.6, _ROW_IN * len(scores))
    beside: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "va": "center", "size": 9, "color": INK}
    for row, (model, estimate) in enumerate(scores.items()):
        colour = MUTED if model in baselines else COLOURS[0]
        if estimate.ci_low is not None and estimate.ci_high is not None:
            ax.plot([estimate.ci_low, estimate.ci_high], [row, row], color=colour, linewidth=3, alpha=0.5)
        ax.plot([estimate.value], [row], "o", color=colour, markersize=5.5, clip_on=False, zorder=4)
        if len(estimate.values) > 1:
            ax.plot(estimate.values, [row] * len(estimate.values), "|", color=colour, markersize=9, clip_on=False)
        ax.text(1.04, row, str(estimate), **beside)
    ax.set_yticks(range(len(scores)), [fit_text(fig, model, 2.1, 9) for model in scores], fontsize=9)
    ax.set_ylim(len(scores) - 0.5, -0.5)
    score_axis(ax, axis, low=axis_start(scores.values()))
    return save(fig, path, title)

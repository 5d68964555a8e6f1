"""Learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from spectro.figures.run import INK, MUTED, SPLIT_COLOURS, fit_text, page, plain_text, save

_WIDE_IN, _HIGH_IN, _GAP_IN = 3.4, 2.2, 0.75
_LOSSES = (("train_loss", "train", SPLIT_COLOURS[0]), ("val_loss", "val", SPLIT_COLOURS[1]))


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
            ax.grid(color="#e4e7eb", linewidth=0.6)
            if name == "macro-F1":
                ax.set_ylim(-0.02, 1.02)
            elif ax.lines:
                ax.legend(fontsize=8, frameon=False)
    return save(fig, path, title)

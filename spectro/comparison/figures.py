"""The figures of a comparison."""

from pathlib import Path

import numpy as np

from spectro.comparison.look_alikes import LookAlikes
from spectro.comparison.result import Result
from spectro.figures.comparison import macro_f1_figure, pair_curves, pair_figure, recall_by_model_figure


def draw(result: Result, folder: Path) -> dict[str, Path]:
    """Draws every figure.

    Args:
        result: What was found.
        folder: Where the PNGs go.

    Returns:
        Name -> file: ``macro_f1``, ``recall``, and ``pair_<number>`` for each pair of look-alikes.
    """
    named = f"{result.split} of {result.runs[0].info['data']['name']}"
    models, lines = [one.name for one in result.models], [one.name for one in result.lines]
    macro_f1 = {name: own.averages["macro_f1"] for name, own in result.scores.items()}
    recall = {name: own.recall for name, own in result.scores.items()}
    figures = {
        "macro_f1": macro_f1_figure(
            {name: macro_f1[name] for name in models},
            folder / "macro_f1.png",
            f"macro-F1 on {named}",
            references={name: macro_f1[name] for name in lines},
        ),
        "recall": recall_by_model_figure(
            {name: recall[name] for name in models},
            folder / "recall.png",
            f"Recall on {named}",
            references={name: recall[name] for name in lines},
        ),
    }
    for number, group in enumerate(result.look_alikes):
        if group.truth is not None:
            figures[f"pair_{number}"] = _pair(group, group.truth, folder / f"pair_{number}.png", named)
    return figures


def _pair(group: LookAlikes, truth: np.ndarray, path: Path, named: str) -> Path:
    """The curves of one pair; the second class is the one that is looked for."""
    curves = {name: pair_curves(truth, score, sources=group.sources) for name, score in group.second.items()}
    title = f"{group.members[0]} or {group.members[1]} on {named}"
    return pair_figure(curves, path, title, positive=group.members[1])

"""Would more labels help? Scores against the number of training records, evaluated out of fold.

Every train and val record is evaluated by models that were fitted to a share of their fold's training records; test is
never read. Of one seed all shares have the same folds, and the smaller share lies inside the larger.
"""

import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spectro.config.check import Config
from spectro.data import Dataset, labels_of
from spectro.evaluation.format import format_number, markdown_table
from spectro.evaluation.metrics import applicable_metrics
from spectro.evaluation.paired import Difference, differences, score_over_seeds
from spectro.files import write_csv, write_text
from spectro.paths import redact
from spectro.progress import progress
from spectro.runs.crossval import Folds, cross_validate
from spectro.runs.predictions import Predictions
from spectro.runs.runinfo import git_commit
from spectro.runs.task import Task


@dataclass(frozen=True)
class Point:
    """One cross-validation with a share of the training records.

    Attributes:
        seed: Seed of the folds, of the share, and of the model.
        share: Share of each fold's training records.
        counts: Class -> its training records, mean over the folds.
        predictions: Out-of-fold predictions.
        averages: Metric -> value.
    """

    model: str
    seed: int
    share: float
    counts: Mapping[str, float]
    predictions: Predictions
    averages: Mapping[str, float | None]
    wall_s: float

    @property
    def sizes(self) -> tuple[float, float, float]:
        """Training records in all, of the smallest class, and of the median class."""
        values = list(self.counts.values())
        return float(sum(values)), float(min(values)), float(np.median(values))


class LearningCurve:
    """Measures points and keeps a new folder up to date with them.

    It gets ``curve.csv`` after every point, ``curve.png`` and ``curve.md`` at the end. All models have the same data.
    """

    def __init__(self, folder: Path, dataset: Dataset):
        self.folder, self.dataset = folder, dataset
        self.points: list[Point] = []

    def measure(self, configs: Mapping[str, Sequence[Config]], shares: Sequence[float]) -> None:
        """Measures every model at every share, seed by seed, and writes everything, also if it is interrupted.

        ``configs`` are, for each model and seed, a configuration with ``validation=kfold`` and one repeat.
        """
        n_seeds = max(map(len, configs.values()))
        todo = [(i, m, share) for i in range(n_seeds) for m in configs for share in sorted(shares)]
        try:
            with progress("learning curve", len(todo)) as advance:
                for i, model, share in todo:
                    advance(0, f"{model} seed {i + 1}/{n_seeds} share {share:g}")
                    self.points.append(_measure(model, Task(configs[model][i], self.dataset), share))
                    self._write_csv()
                    advance(1)
        finally:
            if self.points:
                self._write_summary()

    def gains(self) -> list[str]:
        """For every model a line about its last step, from about half of the training records to all."""
        lines, first = [], self.points[0].predictions
        for model, steps in self._curves().items():
            *earlier, last = steps
            if not earlier:
                continue
            half = min(earlier, key=lambda share: abs(np.log2(last / share) - 1))
            # An interrupted curve has fewer seeds at its end.
            after = steps[last]
            before = steps[half][: len(after)]
            gain = differences(
                first.y_true, _predicted(after), _predicted(before), first.classes, sources=first.sources
            )
            lines.append(gain_line(model, _mean_sizes(before)[0], _mean_sizes(after)[0], gain["macro_f1"]))
        return lines

    def _curves(self) -> dict[str, dict[float, list[Point]]]:
        """Model -> share, the smallest first -> a point for each seed."""
        curves: dict[str, dict[float, list[Point]]] = {point.model: {} for point in self.points}
        for point in sorted(self.points, key=lambda point: point.share):
            curves[point.model].setdefault(point.share, []).append(point)
        return curves

    def _write_csv(self) -> None:
        classes = [str(label) for label in self.points[0].predictions.classes]
        metrics = [metric.name for metric in applicable_metrics(classes)]
        header = ["model", "seed", "share", "records", "smallest_class", "median_class", *metrics]
        header += [f"{column}_{label}" for label in classes for column in ("records", "recall")]
        rows = []
        for p in self.points:
            y, predicted = p.predictions.y_true, p.predictions.predicted
            recalls = {label: float((predicted[y == label] == label).mean()) for label in classes}
            of_classes = [value for label in classes for value in (p.counts[label], recalls[label])]
            averages = [p.averages[name] for name in metrics]
            rows.append([p.model, p.seed, p.share, *p.sizes, *averages, *of_classes, p.wall_s])
        write_csv(self.folder / "curve.csv", [*header, "wall_s"], rows)

    def _write_summary(self) -> None:
        from spectro.figures.curves import label_curve_figure

        first, rows = self.points[0].predictions, []
        curves: dict[str, list[Any]] = {}
        ticks: dict[float, tuple[float, float, float]] = {}
        for model, steps in self._curves().items():
            curves[model] = []
            for share, points in steps.items():
                scores = score_over_seeds(first.y_true, _predicted(points), first.classes, sources=first.sources)
                score = scores["macro_f1"]
                ticks[share] = sizes = _mean_sizes(points)
                curves[model].append((sizes[0], score.value, score.ci_low, score.ci_high, score.values))
                spread = "" if score.std_seeds is None else f", ± {score.std_seeds:.2f} over seeds"
                rows.append([model, *(f"{n:.1f}".removesuffix(".0") for n in sizes), f"{score}{spread}"])
        about = f"{len({*np.array(first.fold)})} folds over {len(first.records)} records of train and val"
        title = f"Macro-F1 against training records, {self.dataset.root.name}"
        path = self.folder / "curve.png"
        label_curve_figure(curves, list(ticks.values()), path, title, f"{about}; test was not read")
        seeds = ", ".join(f"{model} {len({p.seed for p in self.points if p.model == model})}" for model in curves)
        text = [
            "# Would more labels help?\n",
            *(f"- {line}." for line in self.gains()),
            "\n![curve](curve.png)\n",
            markdown_table(["model", "training records", "smallest class", "median class", "macro-F1"], rows),
            f"\n{about}, by source; test was not read. Training records are originals, means over folds, a network's "
            f"own val among them. Seeds: {seeds}; each has other folds and other shares. Intervals are 95 %, a "
            "bootstrap over sources and seeds.\n",
            f"`{shlex.join(['python', *map(redact, sys.argv)])}`",
            f"Data {self.dataset.fingerprint}, commit {git_commit(Path(__file__).parent) or 'unknown'}.",
        ]
        write_text(self.folder / "curve.md", "\n".join(text) + "\n")


def gain_line(model: str, n_before: float, n_after: float, gain: Difference) -> str:
    """Whether more labels would help, as far as these records can show it: training records before and after a step."""
    number = format_number(gain.value, gain.ci_low, gain.ci_high, signed=True)
    text = f"{model}: from {n_before:.0f} to {n_after:.0f} training records {number}"
    if gain.ci_low is None or gain.ci_high is None:
        return f"{text}: no gain"
    if gain.ci_low > 0:
        return f"{text}: more labels would help"
    if gain.ci_high < 0:
        return f"{text}: more records made it worse; its settings do not suit them"
    return f"{text}: no sure gain; one below {gain.smallest:.2f} would mostly go unseen with these records"


def _measure(model: str, task: Task, share: float) -> Point:
    start, folds = time.perf_counter(), Folds.of(task, share)
    assert folds is not None
    result = cross_validate(task, folds)
    predictions = result.stages[""][0]
    labels = [labels_of(folds.take(folds.train(0, fold))) for fold in range(folds.k)]
    counts = {str(label): sum((y == label).sum() for y in labels) / folds.k for label in predictions.classes}
    wall_s = round(time.perf_counter() - start, 3)
    return Point(model, task.config.seed, share, counts, predictions, result.averages(), wall_s)


def _predicted(points: Sequence[Point]) -> np.ndarray:
    """Predicted labels, ``(seeds, n)``."""
    return np.array([point.predictions.predicted for point in points], dtype=object)


def _mean_sizes(points: Sequence[Point]) -> tuple[float, float, float]:
    in_all, smallest, median = np.mean([point.sizes for point in points], axis=0).tolist()
    return in_all, smallest, median

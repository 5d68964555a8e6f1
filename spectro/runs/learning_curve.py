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

import numpy as np

from spectro.config.check import Config
from spectro.data import Dataset, labels_of
from spectro.evaluation.format import format_number, markdown_table
from spectro.evaluation.metrics import applicable_metrics
from spectro.evaluation.paired import Difference, Estimate, differences, score_over_seeds
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
        model: The model's name.
        seed: Seed of the folds, of the share, and of the model.
        share: Share of each fold's training records.
        counts: Class -> its training records, mean over the folds.
        predictions: Out-of-fold predictions.
        averages: Metric -> value.
        k: Number of folds.
        wall_s: Seconds.
    """

    model: str
    seed: int
    share: float
    counts: Mapping[str, float]
    predictions: Predictions
    averages: Mapping[str, float | None]
    k: int
    wall_s: float

    @classmethod
    def measure(cls, model: str, task: Task, share: float) -> "Point":
        """Cross-validates a task with ``validation=kfold`` and one repeat."""
        start, folds = time.perf_counter(), Folds.of(task, share)
        if folds is None:
            raise TypeError("validation: got holdout; allowed: kfold")
        result = cross_validate(task, folds)
        predictions = result.stages[""][0]
        labels = [labels_of(folds.take(folds.train(0, fold))) for fold in range(folds.k)]
        counts = {str(label): sum((y == label).sum() for y in labels) / folds.k for label in predictions.classes}
        wall_s = round(time.perf_counter() - start, 3)
        return cls(model, task.seed, share, counts, predictions, result.averages(), folds.k, wall_s)

    @property
    def sizes(self) -> tuple[float, float, float]:
        """Training records in all, of the smallest class, and of the median class."""
        values = list(self.counts.values())
        return float(sum(values)), float(min(values)), float(np.median(values))

    def recall(self, label: str) -> float:
        """Share of a class's records that are predicted as it."""
        predictions = self.predictions
        return float((predictions.predicted[predictions.y_true == label] == label).mean())


@dataclass(frozen=True)
class Size:
    """One model with one share, over all seeds.

    Attributes:
        share: Share of each fold's training records.
        sizes: Training records in all, of the smallest class, of the median class; means over folds and seeds.
        score: Macro-F1 over seeds and records, with its interval.
    """

    share: float
    sizes: tuple[float, float, float]
    score: Estimate


@dataclass(frozen=True)
class Gain:
    """The last step of a curve: from about half of the training records to all that were used.

    Attributes:
        model: The model's name.
        n_before: Training records before the step, mean over folds and seeds.
        n_after: Training records after it.
        macro_f1: The difference in macro-F1.
    """

    model: str
    n_before: float
    n_after: float
    macro_f1: Difference

    @property
    def sentence(self) -> str:
        """Whether more labels would help, as far as these records can show it."""
        gain, low, high = self.macro_f1, self.macro_f1.ci_low, self.macro_f1.ci_high
        size = format_number(gain.value, low, high, signed=True)
        text = f"{self.model}: from {self.n_before:.0f} to {self.n_after:.0f} training records {size}"
        if low is None or high is None:
            return f"{text}: no gain"
        if low > 0:
            return f"{text}: more labels would help"
        if high < 0:
            return f"{text}: more records made it worse; its settings do not suit them"
        return f"{text}: no sure gain; one below {gain.smallest:.2f} would mostly go unseen with these records"


class LearningCurve:
    """Measures points and keeps a folder up to date with them.

    Args:
        folder: A new folder; it gets ``curve.csv`` after every point, ``curve.png`` and ``curve.md`` at the end.
        dataset: The data, the same for all models.
        resamples: Resamples of the bootstrap.
    """

    def __init__(self, folder: Path, dataset: Dataset, resamples: int = 2000):
        self.folder, self.dataset, self._resamples = folder, dataset, resamples
        self.points: list[Point] = []

    def measure(self, configs: Mapping[str, Sequence[Config]], shares: Sequence[float]) -> None:
        """Measures every model at every share, seed by seed, and writes everything, also if it is interrupted.

        Args:
            configs: Model -> a configuration with ``validation=kfold`` for each seed.
            shares: Above 0, at most 1.
        """
        n_seeds = max(map(len, configs.values()))
        todo = [(i, m, share) for i in range(n_seeds) for m in configs for share in sorted(shares)]
        try:
            with progress("learning curve", len(todo)) as advance:
                for i, model, share in todo:
                    advance(0, f"{model} seed {i + 1}/{n_seeds} share {share:g}")
                    self.points.append(Point.measure(model, Task(configs[model][i], self.dataset), share))
                    self._write_csv()
                    advance(1)
        finally:
            if self.points:
                self._write_summary()

    def curves(self) -> dict[str, list[Size]]:
        """Model -> its sizes, the smallest first."""
        curves: dict[str, list[Size]] = {}
        for model, share in sorted({(p.model, p.share) for p in self.points}):
            points = [p for p in self.points if (p.model, p.share) == (model, share)]
            first, predicted = points[0].predictions, _by_seed(points)
            score = score_over_seeds(
                first.y_true, predicted, first.classes, sources=first.sources, resamples=self._resamples
            )
            in_all, smallest, median = np.mean([p.sizes for p in points], axis=0).tolist()
            curves.setdefault(model, []).append(Size(share, (in_all, smallest, median), score["macro_f1"]))
        return {model: curves[model] for model in dict.fromkeys(p.model for p in self.points)}

    def gains(self) -> list[Gain]:
        """The last step of every curve that has one, over the seeds that both of its ends have."""
        gains = []
        for model in dict.fromkeys(p.model for p in self.points):
            points = {(p.share, p.seed): p for p in self.points if p.model == model}
            shares = sorted({share for share, _ in points})
            if len(shares) < 2:
                continue
            last, half = shares[-1], min(shares[:-1], key=lambda share: abs(np.log2(shares[-1] / share) - 1))
            seeds = [seed for share, seed in points if share == last and (half, seed) in points]
            if not seeds:
                continue
            before, after = ([points[share, seed] for seed in seeds] for share in (half, last))
            first = after[0].predictions
            difference = differences(
                first.y_true,
                _by_seed(after),
                _by_seed(before),
                first.classes,
                sources=first.sources,
                resamples=self._resamples,
            )
            n_before, n_after = (float(np.mean([p.sizes[0] for p in step])) for step in (before, after))
            gains.append(Gain(model, n_before, n_after, difference["macro_f1"]))
        return gains

    def _write_csv(self) -> None:
        classes = [str(label) for label in self.points[0].predictions.classes]
        metrics = [metric.name for metric in applicable_metrics(classes)]
        header = ["model", "seed", "share", "records", "smallest_class", "median_class", *metrics]
        header += [f"{column}_{label}" for label in classes for column in ("records", "recall")]
        rows = [
            [p.model, p.seed, p.share, *p.sizes, *(p.averages[name] for name in metrics)]
            + [value for label in classes for value in (p.counts[label], p.recall(label))]
            + [p.wall_s]
            for p in self.points
        ]
        write_csv(self.folder / "curve.csv", [*header, "wall_s"], rows)

    def _write_summary(self) -> None:
        from spectro.figures.curves import label_curve_figure

        curves, first = self.curves(), self.points[0].predictions
        about = f"{self.points[0].k} folds over {len(first.records)} records of train and val"
        label_curve_figure(
            {
                model: [(s.sizes[0], s.score.value, s.score.ci_low, s.score.ci_high, s.score.values) for s in sizes]
                for model, sizes in curves.items()
            },
            list({size.share: size.sizes for sizes in curves.values() for size in sizes}.values()),
            self.folder / "curve.png",
            f"Macro-F1 against training records, {self.dataset.root.name}",
            f"{about}; test was not read",
        )
        rows = [
            [model, *(f"{n:.1f}".removesuffix(".0") for n in size.sizes), _text_of(size.score)]
            for model, sizes in curves.items()
            for size in sizes
        ]
        seeds = ", ".join(f"{model} {len({p.seed for p in self.points if p.model == model})}" for model in curves)
        command = shlex.join(["python", *map(redact, sys.argv)])
        text = [
            "# Would more labels help?\n",
            *(f"- {gain.sentence}." for gain in self.gains()),
            "\n![curve](curve.png)\n",
            markdown_table(["model", "training records", "smallest class", "median class", "macro-F1"], rows),
            f"\n{about}, by source; test was not read. Training records are originals, means over folds, a network's "
            f"own val among them. Seeds: {seeds}; each has other folds and other shares. Intervals are 95 %, a "
            "bootstrap over sources and seeds.\n",
            f"`{command}`",
            f"Data {self.dataset.fingerprint}, commit {git_commit(Path(__file__).parent) or 'unknown'}.",
        ]
        write_text(self.folder / "curve.md", "\n".join(text) + "\n")


def _by_seed(points: Sequence[Point]) -> np.ndarray:
    """Predicted labels, ``(seeds, n)``."""
    return np.array([point.predictions.predicted for point in points], dtype=object)


def _text_of(score: Estimate) -> str:
    spread = "" if score.std_seeds is None else f", ± {score.std_seeds:.2f} over seeds"
    return str(score) + spread

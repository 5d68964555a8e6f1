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
from spectro.evaluation.format import format_number
from spectro.evaluation.metrics import applicable_metrics
from spectro.evaluation.paired import Difference, Estimate, differences, score_over_seeds
from spectro.files import write_csv, write_text
from spectro.paths import redact
from spectro.progress import progress
from spectro.runs.crossval import OutOfFold, cross_validate
from spectro.runs.fold_plan import plan
from spectro.runs.runinfo import git_commit


@dataclass(frozen=True)
class Point:
    """One cross-validation with a share of the training records.

    Attributes:
        model: The model's name.
        seed: Of the folds, of the share, and of the model.
        share: Of each fold's training records.
        counts: Class -> its training records, mean over the folds.
        said: What was said out of fold.
        wall_s: Seconds that it took.
    """

    model: str
    seed: int
    share: float
    counts: Mapping[str, float]
    said: OutOfFold
    wall_s: float

    @property
    def sizes(self) -> tuple[float, float, float]:
        """Training records in all, of the smallest class, and of the median class."""
        values = list(self.counts.values())
        return float(sum(values)), float(min(values)), float(np.median(values))

    def recall(self, label: str) -> float:
        """Share of a class's records that are called so."""
        own = self.said.truth == label
        return float((self.said.predicted[0][own] == label).mean())


@dataclass(frozen=True)
class Size:
    """What all seeds say together of one model with one share.

    Attributes:
        share: Of each fold's training records.
        sizes: Training records in all, of the smallest class, of the median class; means over folds and seeds.
        score: Macro-F1 over seeds and records, with its interval.
    """

    share: float
    sizes: tuple[float, float, float]
    score: Estimate


@dataclass(frozen=True)
class Gain:
    """What the last step of a curve brought: from about half of the training records to all that were used.

    Attributes:
        model: The model's name.
        n_before: Training records before it, mean over folds and seeds.
        n_after: Behind it.
        macro_f1: The difference in macro-F1.
        recalls: Class -> its training records before and behind the step, and the difference in its recall with its
            interval, whose ends are None where no resample differs.
    """

    model: str
    n_before: float
    n_after: float
    macro_f1: Difference
    recalls: Mapping[str, tuple[float, float, float, float | None, float | None]]

    @property
    def sentence(self) -> str:
        """Whether more labels would help, as far as these records can tell."""
        found, low = self.macro_f1, self.macro_f1.ci_low
        size = format_number(found.value, low, found.ci_high, signed=True)
        told = f"{self.model}: from {self.n_before:.0f} to {self.n_after:.0f} training records {size}"
        if low is None or found.ci_high is None:
            return f"{told}: no gain"
        if low > 0:
            return f"{told}: more labels would help"
        if found.ci_high < 0:
            return f"{told}: more records made it worse; its settings do not suit them"
        return f"{told}: no sure gain; one below {found.smallest:.2f} would mostly go unseen with these records"


class LearningCurve:
    """Measures points and keeps a folder up to date with them.

    Args:
        folder: A new folder; it gets ``curve.csv`` after every point, ``curve.png`` and ``curve.md`` at the end.
        dataset: The data, the same for all models.
        resamples: Of the bootstrap behind the intervals.
    """

    def __init__(self, folder: Path, dataset: Dataset, resamples: int = 2000):
        self.folder, self.dataset, self._resamples = folder, dataset, resamples
        self.points: list[Point] = []

    def measure(self, configs: Mapping[str, Sequence[Config]], shares: Sequence[float]) -> None:
        """Measures every model at every share, seed by seed, and writes everything; also if it is interrupted.

        Args:
            configs: Model -> a configuration with ``validation=kfold`` for each seed.
            shares: Above 0, at most 1.
        """
        n_seeds = max(map(len, configs.values()))
        total = sum(map(len, configs.values())) * len(shares)
        try:
            with progress("learning curve", total) as advance:
                for number in range(n_seeds):
                    for model, own in configs.items():
                        for share in sorted(shares) if number < len(own) else ():
                            advance(0, f"{model} seed {number + 1}/{n_seeds} share {share:g}")
                            self.points.append(_point(model, own[number], self.dataset, share))
                            self._write_csv()
                            advance(1)
        finally:
            if self.points:
                self._write_summary()

    def curves(self) -> dict[str, list[Size]]:
        """Model -> its sizes, the smallest first."""
        found: dict[str, list[Size]] = {}
        for model, share in dict.fromkeys((p.model, p.share) for p in self.points):
            own = [p for p in self.points if (p.model, p.share) == (model, share)]
            said = own[0].said
            predicted = np.array([p.said.predicted[0] for p in own], dtype=object)
            score = score_over_seeds(
                said.truth, predicted, said.classes, sources=_sources(said), seed=0, resamples=self._resamples
            )["macro_f1"]
            all_, smallest, median = np.mean([p.sizes for p in own], axis=0).tolist()
            found.setdefault(model, []).append(Size(share, (all_, smallest, median), score))
        return {model: sorted(sizes, key=lambda size: size.share) for model, sizes in found.items()}

    def gains(self) -> list[Gain]:
        """The last step of every curve that has one, over the seeds that both of its ends have."""
        found = []
        for model in dict.fromkeys(p.model for p in self.points):
            by = {(p.share, p.seed): p for p in self.points if p.model == model}
            shares = sorted({share for share, _ in by})
            if len(shares) < 2:
                continue
            last = shares[-1]
            before = min(shares[:-1], key=lambda share: abs(np.log2(last / share) - 1))
            seeds = [seed for share, seed in by if share == last and (before, seed) in by]
            if seeds:
                found.append(self._gain([by[before, seed] for seed in seeds], [by[last, seed] for seed in seeds]))
        return found

    def _gain(self, before: Sequence[Point], after: Sequence[Point]) -> Gain:
        said, sources = after[0].said, _sources(after[0].said)
        a, b = (np.array([p.said.predicted[0] for p in own], dtype=object) for own in (after, before))
        found = differences(said.truth, a, b, said.classes, sources=sources, resamples=self._resamples)["macro_f1"]
        recalls = {}
        for label in said.classes:
            n_before, n_after = (float(np.mean([p.counts[label] for p in own])) for own in (before, after))
            own = said.truth == label
            mine = [s for s, is_own in zip(sources, own, strict=True) if is_own]
            # Of records of one class the balanced accuracy is its recall.
            change = differences(
                said.truth[own], a[:, own], b[:, own], said.classes, sources=mine, resamples=self._resamples
            )["balanced_accuracy"]
            recalls[str(label)] = (n_before, n_after, change.value, change.ci_low, change.ci_high)
        n_before, n_after = (float(np.mean([p.sizes[0] for p in own])) for own in (before, after))
        return Gain(after[0].model, n_before, n_after, found, recalls)

    def _write_csv(self) -> None:
        classes = list(self.points[0].said.classes)
        names = [metric.name for metric in applicable_metrics(classes)]
        header = ("model", "seed", "share", "records", "smallest_class", "median_class", *names)
        rows = []
        for p in self.points:
            averages = p.said.averages()
            recalls = [value for label in classes for value in (p.counts[label], p.recall(label))]
            rows.append((p.model, p.seed, p.share, *p.sizes, *(averages[name] for name in names), *recalls, p.wall_s))
        by_class = (name for label in classes for name in (f"records_{label}", f"recall_{label}"))
        write_csv(self.folder / "curve.csv", (*header, *by_class, "wall_s"), rows)

    def _write_summary(self) -> None:
        from spectro.figures.curves import label_curve_figure

        curves, said = self.curves(), self.points[0].said
        sizes = {size.share: size.sizes for own in curves.values() for size in own}
        label_curve_figure(
            {
                model: [(s.sizes[0], s.score.value, s.score.ci_low, s.score.ci_high, s.score.values) for s in own]
                for model, own in curves.items()
            },
            list(sizes.values()),
            self.folder / "curve.png",
            f"Macro-F1 against training records, {self.dataset.root.name}",
            f"{said.k} folds over {len(said.records)} records of train and val; test was not read",
        )
        write_text(self.folder / "curve.md", _markdown(self, curves))


def _point(model: str, config: Config, dataset: Dataset, share: float) -> Point:
    start = time.perf_counter()
    planned = plan(config, dataset, share)
    said = cross_validate(config, dataset, planned).tasks[""]
    labels, counts = labels_of(planned.records), dict.fromkeys(map(str, said.classes), 0.0)
    for number in range(said.k):
        for i in planned.learned(0, number):
            counts[labels[i]] += 1
    means = {label: n / said.k for label, n in counts.items()}
    return Point(model, config.common.seed, share, means, said, round(time.perf_counter() - start, 3))


def _sources(said: OutOfFold) -> list[str]:
    return [record.source for record in said.records]


def _markdown(curve: LearningCurve, curves: Mapping[str, Sequence[Size]]) -> str:
    """The answer first, then the numbers behind it."""
    gains, said = curve.gains(), curve.points[0].said
    seeds = {model: len({p.seed for p in curve.points if p.model == model}) for model in curves}
    command = shlex.join(["python", *map(redact, sys.argv)])
    lines = ["# Would more labels help?", "", *(f"- {gain.sentence}." for gain in gains), ""]
    lines += ["![curve](curve.png)", "", "| model | training records | smallest class | median class | macro-F1 |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    for model, own in curves.items():
        for size in own:
            told = " | ".join(f"{n:.1f}".removesuffix(".0") for n in size.sizes)
            lines.append(f"| {model} | {told} | {_estimate(size.score)} |")
    if gains:
        lines += ["", "The last step, class by class: training records, and the change in recall.", ""]
        lines += [
            f"| class | records | {' | '.join(gain.model for gain in gains)} |",
            "| --- " * (2 + len(gains)) + "|",
        ]
        for label, (n_before, n_after, *_) in gains[0].recalls.items():
            changes = [gain.recalls[label][2:] for gain in gains]
            told = " | ".join(format_number(*change, signed=True) for change in changes)
            lines.append(f"| {label.replace('|', chr(92) + '|')} | {n_before:.1f} to {n_after:.1f} | {told} |")
    lines += [
        "",
        f"{said.k} folds over {len(said.records)} records of train and val, by source; test was not read. "
        "Training records are originals, means over folds, a network's own val among them. "
        f"Seeds: {', '.join(f'{model} {n}' for model, n in seeds.items())}; each has other folds and other shares. "
        "Intervals are 95 %, a bootstrap over sources and seeds.",
        "",
        f"`{command}`",
        f"Data {curve.dataset.fingerprint}, commit {git_commit(Path(__file__).parent) or 'unknown'}.",
    ]
    return "\n".join(lines) + "\n"


def _estimate(score: Estimate) -> str:
    spread = "" if score.std_seeds is None else f", ± {score.std_seeds:.2f} over seeds"
    return str(score) + spread

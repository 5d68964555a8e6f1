"""What was evaluated, as metrics, tables and figures in the run directory."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from spectro.classifiers import ImageClassifier
from spectro.classifiers.fit_context import is_fold
from spectro.config.check import Config
from spectro.data import Dataset
from spectro.files import write_csv, write_json
from spectro.runs.crossval import CrossValidated, OutOfFold
from spectro.runs.predictions import Predictions
from spectro.runs.task import EVAL_SPLITS, SHOW


class History:
    """``history.csv``: called after every epoch of a stage, it writes all that is known by then."""

    def __init__(self, path: Path):
        self._path = path
        self._stages: dict[str, Sequence[Mapping[str, Any]]] = {}

    def __call__(self, stage: str, history: Sequence[Mapping[str, Any]]) -> None:
        """Takes the rows of a stage, one for each epoch so far."""
        self._stages[stage] = history
        rows = [{"epoch": row["epoch"], "stage": name, **row} for name, own in self._stages.items() for row in own]
        if rows:
            table = [["" if value is None else value for value in row.values()] for row in rows]
            write_csv(self._path, list(rows[0]), table)


def metrics_of(
    config: Config, tasks: Mapping[str, Mapping[str, Predictions]], cv: CrossValidated | None = None
) -> dict[str, Any]:
    """The content of ``metrics.json``: the whole task's splits, the stages', and the objective.

    Args:
        config: The configuration.
        tasks: What the fitted classifier says, as `spectro.runs.task.evaluate` gives it.
        cv: What was said out of fold; it stands beside the splits as ``cv``.
    """
    seed = config.common.seed
    scored = {}
    for name, splits in tasks.items():
        look_alikes = () if name else config.look_alikes
        scored[name] = {split: p.report(seed=seed, look_alikes=look_alikes) for split, p in splits.items()}
    for name, own in (cv.tasks if cv else {}).items():
        scored[name] = {"cv": own.report(seed), **scored[name]}
    metrics: dict[str, Any] = {**scored.pop(""), "stages": scored, "objective": None}
    if config.common.objective is not None:
        *stage, split, metric = config.common.objective.split("/")
        metrics["objective"] = (metrics["stages"]["/".join(stage)] if stage else metrics)[split][metric]
    return metrics


def write_records(path: Path, dataset: Dataset) -> None:
    """Every record used, with the split it is in: what a split drawn here was."""
    rows = ((r.split, dataset.name_of(r), r.source, r.folder, r.label, r.digest) for r in dataset.records)
    write_csv(path, ("split", "path", "source", "folder", "label", "sha256"), rows)


def write_out_of_fold(path: Path, dataset: Dataset, said: OutOfFold) -> None:
    """One row for each repeat and record of train and val, evaluated by the fold that was not fitted to it."""
    write_csv(
        path,
        ("repeat", "fold", "path", "source", "label", "predicted", *(f"p_{label}" for label in said.classes)),
        (
            (repeat + 1, fold + 1, dataset.name_of(record), record.source, truth, predicted, *row)
            for repeat, (folds, guesses, rows) in enumerate(
                zip(said.folds, said.predicted, said.probabilities, strict=True)
            )
            for record, fold, truth, predicted, row in zip(
                said.records, folds.tolist(), said.truth, guesses, rows, strict=True
            )
        ),
    )


def write_model_card(config: Config, dataset: Dataset, classifier: ImageClassifier, folder: Path) -> None:
    """What the model needs besides itself to be used on new images."""
    write_json(
        folder / "use.json",
        {
            "crop": asdict(config.common.data.crop),
            "max_megapixels": config.common.data.max_megapixels,
            "classes": list(classifier.classes_),
            "data_fingerprint": dataset.fingerprint,
        },
    )


def draw(
    folder: Path,
    metrics: Mapping[str, Any],
    splits: Mapping[str, Predictions],
    dataset: Dataset,
    named: str,
    classifier: ImageClassifier,
) -> None:
    """Confusion matrices and recall of the whole task and its stages, the wrong ones and why, learning curves.

    Args:
        folder: Where they go.
        metrics: The content of ``metrics.json``.
        splits: The whole task's evaluations.
        dataset: For the images.
        named: What stands over each figure: the run and its data.
        classifier: The fitted classifier of the whole task.
    """
    from spectro.figures.curves import curves_figure
    from spectro.figures.evaluation import confusion_figure, recall_figure, reliability_figure
    from spectro.figures.gallery import MAX_IMAGES, wrong_figure

    history = folder.parent / "history.csv"
    if history.exists():
        with history.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if not is_fold(row["stage"])]
        if rows:
            curves_figure(rows, folder / "learning_curves.png", f"{named}: learning curves")

    tasks = {"": {split: metrics[split] for split in ("cv", *EVAL_SPLITS) if split in metrics}, **metrics["stages"]}
    for number, (name, reports) in enumerate(tasks.items()):
        # A group's label may hold anything; file names have the stage and a number.
        stem = name.split("/")[0] + (f"_{number - 1}" if "/" in name else "")
        title = f"{named}: stage {name}" if name else f"{named}: whole task"
        for split, report in reports.items():
            confusion_figure(report, folder / f"confusion_{split}{'_' + stem if stem else ''}.png", f"{title}, {split}")
        recall_figure(reports, folder / f"recall{'_' + stem if stem else ''}.png", f"{title}, recall by class")
    reliability_figure(tasks[""], folder / "reliability.png", f"{named}: reliability")
    for split, evaluated in splits.items():
        wrong = np.flatnonzero(evaluated.predicted != evaluated.y_true)
        surest = evaluated.probabilities.max(axis=1)
        order = wrong[np.argsort(-surest[wrong], kind="stable")][:MAX_IMAGES]
        shown = [evaluated.records[i] for i in order]
        images = list(dataset.images(shown).pixels(SHOW)) if shown else []
        captions = [
            (evaluated.y_true[i], evaluated.predicted[i], float(surest[i]), evaluated.records[i].path.name)
            for i in order
        ]
        wrong_figure(
            images,
            captions,
            folder / f"wrong_{split}.png",
            f"{named}: wrong on {split}, the most confident first",
            len(wrong),
        )
        if shown:
            title = f"{named}: why wrong on {split}, the most confident first"
            _draw_attribution(
                folder / f"attribution_{split}.png", classifier, evaluated, order, dataset, images, captions, title
            )


def _draw_attribution(
    path: Path,
    classifier: ImageClassifier,
    evaluated: Predictions,
    order: np.ndarray,
    dataset: Dataset,
    images: Sequence[np.ndarray],
    captions: Sequence[tuple[str, str, float, str]],
    title: str,
) -> None:
    """Maps of what supports the predicted label against the true one, of the first wrong records that have one."""
    from spectro.figures.attribution import MAX_PAIRS, attribution_figure

    order = order[:MAX_PAIRS]
    X = dataset.images([evaluated.records[i] for i in order])
    found = classifier.attribution(X, evaluated.predicted[order], evaluated.y_true[order])
    known = [(one, images[n], captions[n]) for n, one in enumerate(found) if one is not None]
    if not known:
        return
    wrong = int((evaluated.predicted != evaluated.y_true).sum())
    about = dict.fromkeys(f"{one.stage}: {one.method}" if one.stage else one.method for one, _, _ in known)
    attribution_figure(
        [image for _, image, _ in known],
        [one.seen for one, _, _ in known],
        [one.map for one, _, _ in known],
        [(*caption[:3], caption[3] + (f"  ({one.stage})" if one.stage else "")) for one, _, caption in known],
        path,
        title,
        f"{len(known)} of {wrong} wrong; left the record, right the model's input, red where it supports the "
        f"predicted label and against the true one ({'; '.join(about)})",
    )

"""What was judged, as metrics, tables and figures in the run directory."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spectro.classifiers import PictureClassifier
from spectro.classifiers.work import is_fold
from spectro.config import Config
from spectro.crossval import CrossValidated, OutOfFold
from spectro.data import Dataset
from spectro.run_dir import write_csv, write_json
from spectro.task import JUDGED, SHOW, Judged


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
    config: Config, tasks: Mapping[str, Mapping[str, Judged]], cv: CrossValidated | None = None
) -> dict[str, Any]:
    """The content of ``metrics.json``: the whole task's splits, the stages', and the objective.

    Args:
        config: The configuration.
        tasks: What the fitted classifier says, as `spectro.task.judge` gives it.
        cv: What was said out of fold; it stands beside the splits as ``cv``.
    """
    seed = config.common.seed
    scored = {name: {split: j.report(seed) for split, j in splits.items()} for name, splits in tasks.items()}
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


def write_predictions(path: Path, dataset: Dataset, splits: Mapping[str, Judged]) -> None:
    """One row for each record of val and test: label, prediction, probability of every class."""
    classes = next(iter(splits.values())).classes
    write_csv(
        path,
        ("split", "path", "source", "label", "predicted", *(f"p_{label}" for label in classes)),
        (
            (split, dataset.name_of(record), record.source, truth, predicted, *row)
            for split, j in splits.items()
            for record, truth, predicted, row in zip(j.records, j.truth, j.predicted, j.probabilities, strict=True)
        ),
    )


def write_out_of_fold(path: Path, dataset: Dataset, said: OutOfFold) -> None:
    """One row for each repeat and record of train and val, judged by the fold that was not fitted to it."""
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


def write_model_card(config: Config, dataset: Dataset, classifier: PictureClassifier, folder: Path) -> None:
    """What the model needs besides itself to be used on new pictures."""
    write_json(
        folder / "use.json",
        {
            "crop": config.common.data.crop.model_dump(),
            "max_megapixels": config.common.data.max_megapixels,
            "classes": list(classifier.classes_),
            "data_fingerprint": dataset.fingerprint,
        },
    )


def draw(
    folder: Path,
    metrics: Mapping[str, Any],
    splits: Mapping[str, Judged],
    dataset: Dataset,
    named: str,
    classifier: PictureClassifier,
) -> None:
    """Confusion matrices and recall of the whole task and its stages, the wrong ones and why, learning curves.

    Args:
        folder: Where they go.
        metrics: The content of ``metrics.json``.
        splits: The whole task's judgements.
        dataset: For the pictures.
        named: What stands over each figure: the run and its data.
        classifier: The fitted classifier of the whole task.
    """
    from spectro.evaluation import confusion_figure, curves_figure, recall_figure, reliability_figure, wrong_figure
    from spectro.evaluation.gallery import MAX_PICTURES

    history = folder.parent / "history.csv"
    if history.exists():
        with history.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if not is_fold(row["stage"])]
        if rows:
            curves_figure(rows, folder / "learning_curves.png", f"{named}: learning curves")

    tasks = {"": {split: metrics[split] for split in ("cv", *JUDGED) if split in metrics}, **metrics["stages"]}
    for number, (name, reports) in enumerate(tasks.items()):
        # A group's label may hold anything; file names have the stage and a number.
        stem = name.split("/")[0] + (f"_{number - 1}" if "/" in name else "")
        title = f"{named}: stage {name}" if name else f"{named}: whole task"
        for split, report in reports.items():
            confusion_figure(report, folder / f"confusion_{split}{'_' + stem if stem else ''}.png", f"{title}, {split}")
        recall_figure(reports, folder / f"recall{'_' + stem if stem else ''}.png", f"{title}, recall by class")
    reliability_figure(tasks[""], folder / "reliability.png", f"{named}: reliability")
    for split, judged in splits.items():
        wrong = np.flatnonzero(judged.predicted != judged.truth)
        # Of what it was called, which under a threshold need not be the largest.
        surest = judged.probabilities[np.arange(len(judged.truth)), np.searchsorted(judged.classes, judged.predicted)]
        order = wrong[np.argsort(-surest[wrong], kind="stable")][:MAX_PICTURES]
        shown = [judged.records[i] for i in order]
        pictures = list(dataset.pictures(shown).pixels(SHOW)) if shown else []
        captions = [
            (judged.truth[i], judged.predicted[i], float(surest[i]), judged.records[i].path.name) for i in order
        ]
        wrong_figure(
            pictures,
            captions,
            folder / f"wrong_{split}.png",
            f"{named}: wrong on {split}, the surest first",
            len(wrong),
        )
        if shown:
            title = f"{named}: why wrong on {split}, the surest first"
            _draw_attribution(
                folder / f"attribution_{split}.png", classifier, judged, order, dataset, pictures, captions, title
            )


def _draw_attribution(
    path: Path,
    classifier: PictureClassifier,
    judged: Judged,
    order: np.ndarray,
    dataset: Dataset,
    pictures: Sequence[np.ndarray],
    captions: Sequence[tuple[str, str, float, str]],
    title: str,
) -> None:
    """What spoke for the predicted label and against the true one, of the first wrong ones of which it is known."""
    from spectro.evaluation import attribution_figure
    from spectro.evaluation.attribution import MAX_PAIRS

    order = order[:MAX_PAIRS]
    X = dataset.pictures([judged.records[i] for i in order])
    found = classifier.attribution(X, judged.predicted[order], judged.truth[order])
    known = [(one, pictures[n], captions[n]) for n, one in enumerate(found) if one is not None]
    if not known:
        return
    wrong = int((judged.predicted != judged.truth).sum())
    about = dict.fromkeys(f"{one.stage}: {one.says}" if one.stage else one.says for one, _, _ in known)
    attribution_figure(
        [picture for _, picture, _ in known],
        [one.seen for one, _, _ in known],
        [one.map for one, _, _ in known],
        [(*caption[:3], caption[3] + (f"  ({one.stage})" if one.stage else "")) for one, _, caption in known],
        path,
        title,
        f"{len(known)} of {wrong} wrong; left the record, right what the model sees of it, red where it speaks for the "
        f"predicted label and against the true one ({'; '.join(about)})",
    )

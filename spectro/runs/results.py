"""What a run writes beside its model: history, metrics, tables and figures."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from spectro.classifiers import ImageClassifier
from spectro.classifiers.fit_context import OnEpoch, is_fold
from spectro.data import Dataset
from spectro.files import read_csv, write_csv, write_json
from spectro.runs.crossval import CrossValidated
from spectro.runs.predictions import Predictions
from spectro.runs.runinfo import RunInfo
from spectro.runs.task import SHOW, Task


def history_writer(path: Path, on_epoch: OnEpoch) -> OnEpoch:
    """Returns what is called after every epoch: it writes the epochs of all stages so far, then calls ``on_epoch``."""
    stages: dict[str, Sequence[Mapping[str, Any]]] = {}

    def write(stage: str, history: Sequence[Mapping[str, Any]]) -> None:
        stages[stage] = history
        rows = [{"epoch": row["epoch"], "stage": name, **row} for name, epochs in stages.items() for row in epochs]
        if rows:
            write_csv(path, list(rows[0]), [list(row.values()) for row in rows])
        on_epoch(stage, history)

    return write


def metrics_of(
    task: Task, stages: Mapping[str, Mapping[str, Predictions]], cv: CrossValidated | None = None
) -> dict[str, Any]:
    """The content of ``metrics.json``: reports of the whole task and of its stages by split, and the objective.

    Args:
        task: The task.
        stages: Stage -> split -> predictions, as `Task.evaluate` gives them; may be empty beside ``cv``.
        cv: Out-of-fold predictions; their reports are beside those of the splits as ``cv``.
    """
    reports: dict[str, dict[str, Any]] = {}
    for stage in cv.stages if cv else stages:
        look_alikes = () if stage else task.look_alikes
        splits = stages.get(stage, {}).items()
        reports[stage] = {"cv": cv.report(stage, seed=task.seed)} if cv else {}
        reports[stage] |= {split: p.report(seed=task.seed, look_alikes=look_alikes) for split, p in splits}
    metrics: dict[str, Any] = {**reports.pop(""), "stages": reports, "objective": None}
    if task.objective is not None:
        stage, split, metric = f"/{task.objective}".rsplit("/", 2)
        metrics["objective"] = (reports[stage[1:]] if stage else metrics)[split][metric]
    return metrics


def write_records(path: Path, dataset: Dataset) -> None:
    """Writes ``records.csv``: every record used, with its split."""
    rows = ((r.split, dataset.name_of(r), r.source, r.folder, r.label, r.digest) for r in dataset.records)
    write_csv(path, ("split", "path", "source", "folder", "label", "sha256"), rows)


def write_use(path: Path, task: Task, classifier: ImageClassifier) -> None:
    """Writes what is needed beside a model to apply it to new images."""
    knobs = task.config.common.data
    content = {
        "crop": asdict(knobs.crop),
        "max_megapixels": knobs.max_megapixels,
        "classes": list(classifier.classes_),
        "data_fingerprint": task.dataset.fingerprint,
    }
    write_json(path, content)


def draw(
    info: RunInfo,
    task: Task,
    classifier: ImageClassifier,
    metrics: Mapping[str, Any],
    splits: Mapping[str, Predictions],
) -> None:
    """Draws confusion matrices and recall of the whole task and its stages, wrong records and why, learning curves.

    Args:
        info: The run.
        task: Its task.
        classifier: The fitted classifier of the whole task.
        metrics: The content of ``metrics.json``.
        splits: Split -> predictions of the whole task.
    """
    draw_reports(info, metrics)
    folder, title = info.folder / "figures", _title(info)
    for split, predictions in splits.items():
        _draw_wrong(folder, title, split, predictions, task.dataset, classifier)


def draw_reports(info: RunInfo, metrics: Mapping[str, Any]) -> None:
    """Draws the figures of `draw` that need no images."""
    from spectro.figures.curves import curves_figure
    from spectro.figures.evaluation import confusion_figure, recall_figure, reliability_figure

    folder, title = info.folder / "figures", _title(info)
    history = info.folder / "history.csv"
    epochs = [row for row in read_csv(history) if not is_fold(row["stage"])] if history.exists() else []
    if epochs:
        curves_figure(epochs, folder / "learning_curves.png", f"{title}: learning curves")
    whole = {split: metrics[split] for split in ("cv", "val", "test") if split in metrics}
    for number, (stage, reports) in enumerate({"": whole, **metrics["stages"]}.items()):
        # A group's label may hold anything; file names have the stage and a number.
        stem = (f"_{stage.split('/')[0]}" if stage else "") + (f"_{number - 1}" if "/" in stage else "")
        of_stage = f"{title}: stage {stage}" if stage else f"{title}: whole task"
        for split, report in reports.items():
            confusion_figure(report, folder / f"confusion_{split}{stem}.png", f"{of_stage}, {split}")
        recall_figure(reports, folder / f"recall{stem}.png", f"{of_stage}, recall by class")
    reliability_figure(whole, folder / "reliability.png", f"{title}: reliability")


def _title(info: RunInfo) -> str:
    return f"{info.run_name} on {info.data.name if info.data else ''}"


def _draw_wrong(
    folder: Path, title: str, split: str, predictions: Predictions, dataset: Dataset, classifier: ImageClassifier
) -> None:
    """The wrong records of a split, the most confident first, and where they support their predicted label."""
    from spectro.figures.attribution import MAX_PAIRS, attribution_figure
    from spectro.figures.gallery import MAX_IMAGES, wrong_figure

    y_true, y_pred, confidence = predictions.y_true, predictions.predicted, predictions.probabilities.max(axis=1)
    wrong = np.flatnonzero(y_pred != y_true)
    order = wrong[np.argsort(-confidence[wrong], kind="stable")][:MAX_IMAGES]
    records = [predictions.records[i] for i in order]
    images = list(dataset.images(records).pixels(SHOW)) if records else []
    names = [record.path.name for record in records]
    captions = list(zip(y_true[order], y_pred[order], confidence[order].tolist(), names, strict=True))
    order_text = f"{split}, the most confident first"
    wrong_figure(images, captions, folder / f"wrong_{split}.png", f"{title}: wrong on {order_text}", len(wrong))
    shown = order[:MAX_PAIRS]
    maps = classifier.attribution(dataset.images(records[:MAX_PAIRS]), y_pred[shown], y_true[shown]) if records else []
    explained = [
        (a, image, caption) for a, image, caption in zip(maps, images, captions, strict=False) if a is not None
    ]
    if not explained:
        return
    methods = dict.fromkeys(f"{a.stage}: {a.method}" if a.stage else a.method for a, _, _ in explained)
    attribution_figure(
        [image for _, image, _ in explained],
        [a.seen for a, _, _ in explained],
        [a.map for a, _, _ in explained],
        [(*caption[:3], caption[3] + (f"  ({a.stage})" if a.stage else "")) for a, _, caption in explained],
        folder / f"attribution_{split}.png",
        f"{title}: why wrong on {order_text}",
        f"{len(explained)} of {len(wrong)} wrong; left the record, right the model's input, red where it supports the "
        f"predicted label and against the true one ({'; '.join(methods)})",
    )

"""What a run writes beside its model: history, metrics, tables and figures."""

import filecmp
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from spectro import beside, figures
from spectro.classifiers import ImageClassifier
from spectro.classifiers.fit_context import OnEpoch, is_fold
from spectro.data import Dataset
from spectro.data.decode import BadImageError, decode
from spectro.data.images import map_chunks
from spectro.data.look import QUANTITIES, look_of, ranges_of
from spectro.evaluation.format import format_number
from spectro.figures import Job
from spectro.files import link, read_csv, write_csv, write_json, write_rows
from spectro.runs.crossval import CrossValidated
from spectro.runs.predictions import Predictions
from spectro.runs.runinfo import RunInfo
from spectro.runs.task import SHOW_PX, Task

# Training images that are looked at, for a comparison with new ones.
_LOOKS = 500


def history_writer(path: Path, on_epoch: OnEpoch) -> OnEpoch:
    """Returns what is called after every epoch: it writes the epochs of all stages so far, then calls ``on_epoch``."""
    stages: dict[str, Sequence[Mapping[str, Any]]] = {}

    def write(stage: str, history: Sequence[Mapping[str, Any]]) -> None:
        stages[stage] = history
        rows = [{"epoch": row["epoch"], "stage": name, **row} for name, epochs in stages.items() for row in epochs]
        if rows:
            write_rows(path, rows)
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
    config, reports = task.config, dict[str, dict[str, Any]]()
    for stage in cv.stages if cv else stages:
        look_alikes = () if stage else config.look_alikes
        splits = stages.get(stage, {}).items()
        reports[stage] = {"cv": cv.report(stage, seed=config.seed)} if cv else {}
        reports[stage] |= {split: p.report(seed=config.seed, look_alikes=look_alikes) for split, p in splits}
    metrics: dict[str, Any] = {**reports.pop(""), "stages": reports, "objective": None}
    if config.common.objective is not None:
        stage, split, metric = f"/{config.common.objective}".rsplit("/", 2)
        metrics["objective"] = (reports[stage[1:]] if stage else metrics)[split][metric]
    return metrics


def hints(task: Task, metrics: Mapping[str, Any]) -> list[str]:
    """Why a score may lie above test's: a line for ``cv`` and ``val`` if their macro-F1 is above its interval."""
    lines, test = [], metrics["test"]
    for split in ("cv", "val"):
        value, high = metrics.get(split, {}).get("macro_f1"), test["macro_f1_ci_high"]
        if value is not None and high is not None and round(value, 2) > round(high, 2):
            of_test = format_number(test["macro_f1"], test["macro_f1_ci_low"], high)
            lines.append(
                f"macro-F1 of {split}, {format_number(value)}, lies above test's, {of_test}: {_why(task, split)}"
            )
    return lines


def _why(task: Task, split: str) -> str:
    if task.config.is_refit and task.dataset.split_here:
        return "test was drawn at random from the same records: it may be chance, as it has few of some classes"
    if task.config.is_refit:
        return (
            "test may hold other days, stations or speakers than train and val; "
            "validation=leave_one_group_out data.group=REGEX evaluates on new ones"
        )
    train, both = (Counter(task.labels_of(records)) for records in (task.records["train"], task.train_and_val))
    rarest = min(train, key=lambda label: (train[label], label))
    if split == "cv":
        return (
            f"the final model is fitted to {train[rarest]} records of {rarest}, and train and val have {both[rarest]}; "
            "validation.refit=true fits it to all of them"
        )
    return (
        f"val has {len(task.records['val'])} records, and choices are made on it; validation=kfold evaluates "
        f"{both.total()} and fits the model to all of them ({both[rarest]} of {rarest} instead of {train[rarest]})"
    )


def write_records(path: Path, dataset: Dataset) -> None:
    """Writes ``records.csv``: every record used, with its split."""
    rows = ((r.split, dataset.name_of(r), r.source, r.folder, r.label, r.digest) for r in dataset.records)
    write_csv(path, ("split", "path", "source", "folder", "label", "sha256"), rows)


def write_use(path: Path, task: Task, classifier: ImageClassifier) -> None:
    """Writes what is needed beside a model to apply it to new images; before the model, whose list of files has it."""
    path.parent.mkdir(exist_ok=True)
    knobs = task.config.common.data
    content = {
        "crop": asdict(knobs.crop),
        "max_megapixels": knobs.max_megapixels,
        "classes": list(classifier.classes_),
        "data_fingerprint": task.dataset.fingerprint,
        "training_images": _looks(task),
    }
    write_json(path, content)


def _looks(task: Task) -> dict[str, list[float]] | None:
    """The ranges of what training images look like, of some hundred of them; None where no file is there any more."""
    records, knobs = task.records["train"], task.config.common.data
    paths = [records[i].path for i in np.unique(np.linspace(0, len(records) - 1, _LOOKS, dtype=int))]

    def look(index: np.ndarray) -> np.ndarray:
        looks = []
        for path in (paths[i] for i in index):
            with suppress(OSError, BadImageError):
                looks.append(look_of(decode(path.read_bytes(), knobs.crop, knobs.max_megapixels)))
        return np.array(looks).reshape(-1, len(QUANTITIES))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warned of large images and of odd metadata when they were read
        looks = np.concatenate(list(map_chunks(look, np.arange(len(paths)), 16)))
    return ranges_of(looks) if len(looks) else None


def share_weights(model: Path, outputs: Path) -> None:
    """Makes frozen weights that the model of another run holds too the same file: they are most of a model's bytes."""
    for path in model.glob("frozen_*.safetensors"):
        others = (other for run in ("runs/*", "sweeps/*/*") for other in outputs.glob(f"{run}/model/{path.name}"))
        with suppress(OSError):  # another process removes its run
            same = (other for other in others if not other.samefile(path) and filecmp.cmp(other, path, shallow=False))
            if (other := next(same, None)) is not None:
                link(other, path)


def prepare(info: RunInfo) -> None:
    """Loads beside this process what `draw` will need."""
    if info.config.get("figures") != "none":
        beside.start(beside.load, beside.MATPLOTLIB)


def draw(
    info: RunInfo,
    metrics: Mapping[str, Any],
    fitted: tuple[Task, ImageClassifier, Mapping[str, Predictions]] | None = None,
) -> Callable[[], list[str]]:
    """Draws the figures that ``figures`` asks for, beside this process.

    ``fitted`` are the task, the fitted classifier of the whole task, and its predictions by split. Without it nothing
    is drawn that needs images.

    Returns:
        What waits until all is drawn, and returns a line for each figure that could not be.
    """
    which = info.config.get("figures", "basic")
    if which == "none":
        return list
    jobs = _reports(info, metrics, which == "all")
    failed = []
    try:
        if fitted is not None:
            task, classifier, splits = fitted
            for split in [split for split in splits if split == "test" or which == "all"]:
                jobs += _wrong(info, split, splits[split], task.dataset, classifier)
    except Exception as error:  # images that are gone, or an attribution that fails, are not worth a run
        failed.append(f"wrong records were not drawn ({type(error).__name__}: {error})")
    drawn = figures.draw_beside(figures.draw, jobs)
    return lambda: [*failed, *drawn()]


def _reports(info: RunInfo, metrics: Mapping[str, Any], has_stages: bool) -> list[Job]:
    """The figures that need no images."""
    from spectro.figures.curves import curves_figure
    from spectro.figures.evaluation import confusion_figure, recall_figure, reliability_figure, review_figure

    folder, title, jobs = info.folder.absolute() / "figures", _title(info), list[Job]()
    history = info.folder / "history.csv"
    epochs = [row for row in read_csv(history) if not is_fold(row["stage"])] if history.exists() else []
    if epochs:
        content = {"history": epochs, "title": f"{title}: learning curves"}
        jobs.append((curves_figure, content, folder / "learning_curves.png"))
    whole = {split: metrics[split] for split in ("cv", "val", "test") if split in metrics}
    for number, (stage, reports) in enumerate({"": whole, **(metrics["stages"] if has_stages else {})}.items()):
        # A group's label may hold anything; file names have the stage and a number.
        stem = (f"_{stage.split('/')[0]}" if stage else "") + (f"_{number - 1}" if "/" in stage else "")
        of_stage = f"{title}: stage {stage}" if stage else f"{title}: whole task"
        for split, report in reports.items():
            content = {"report": report, "title": f"{of_stage}, {split}"}
            jobs.append((confusion_figure, content, folder / f"confusion_{split}{stem}.png"))
        content = {"reports": reports, "title": f"{of_stage}, recall by class"}
        jobs.append((recall_figure, content, folder / f"recall{stem}.png"))
    jobs.append((reliability_figure, {"reports": whole, "title": f"{title}: reliability"}, folder / "reliability.png"))
    if (table := info.folder / "risk_coverage.csv").exists() and (rows := read_csv(table)):
        chosen = {split: report.get("automatic") for split, report in whole.items()}
        curves: dict[str, Any] = {"rows": rows, "chosen": chosen, "title": f"{title}: how much can be automatic?"}
        jobs.append((review_figure, curves, folder / "risk_coverage.png"))
    return jobs


def _title(info: RunInfo) -> str:
    return f"{info.run_name} on {info.data.name if info.data else ''}"


def _wrong(
    info: RunInfo, split: str, predictions: Predictions, dataset: Dataset, classifier: ImageClassifier
) -> list[Job]:
    """The wrong records of a split, the most confident first, and where they support their predicted label."""
    from spectro.figures.attribution import MAX_PAIRS, attribution_figure
    from spectro.figures.gallery import MAX_IMAGES, wrong_figure

    folder, title = info.folder.absolute() / "figures", _title(info)
    y_true, y_pred, confidence = predictions.y_true, predictions.predicted, predictions.probabilities.max(axis=1)
    wrong = np.flatnonzero(y_pred != y_true)
    order = wrong[np.argsort(-confidence[wrong], kind="stable")][:MAX_IMAGES]
    records = [predictions.records[i] for i in order]
    images = dataset.images(records).thumbnails(SHOW_PX)
    names = [record.path.stem for record in records]
    captions = list(zip(y_true[order], y_pred[order], confidence[order].tolist(), names, strict=True))
    order_text = f"{split}, the most confident first"
    content = {"images": images, "captions": captions, "title": f"{title}: wrong on {order_text}", "total": len(wrong)}
    jobs: list[Job] = [(wrong_figure, content, folder / f"wrong_{split}.png")]
    shown = order[:MAX_PAIRS]
    maps = classifier.attribution(dataset.images(records[:MAX_PAIRS]), y_pred[shown], y_true[shown]) if records else []
    explained = [
        (a, image, caption) for a, image, caption in zip(maps, images, captions, strict=False) if a is not None
    ]
    if explained:
        methods = dict.fromkeys(f"{a.stage}: {a.method}" if a.stage else a.method for a, *_ in explained)
        content = {
            # A map of a part of the record stands beside that part.
            "images": [image if a.is_whole else a.seen for a, image, _ in explained],
            "maps": [a.map for a, *_ in explained],
            "drawings": [a.seen if a.is_drawing else None for a, *_ in explained],
            "captions": [(*caption[:3], caption[3] + f"  ({a.stage})" * bool(a.stage)) for a, _, caption in explained],
            "title": f"{title}: why wrong on {order_text}",
            "subtitle": f"{len(explained)} of {len(wrong)} wrong records, each with the places that support its "
            f"predicted label against the true one ({'; '.join(methods)})",
        }
        jobs.append((attribution_figure, content, folder / f"attribution_{split}.png"))
    return jobs

"""The lines that a model has to beat, on the same splits: the majority class, and a regression on a thumbnail."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spectro.comparison.contenders import MAJORITY, PIXELS, Contender
from spectro.comparison.runs import Run
from spectro.config.check import Config, with_model
from spectro.data import Dataset
from spectro.errors import DataError, SpectroError
from spectro.runs import task


@dataclass(frozen=True)
class Images:
    """The data set of the runs, if it is still what it was.

    Attributes:
        config: ``model=pixels`` on the runs' data and stage; None where there is no data set.
        dataset: The data set; None if it is not there, or another one by now.
        reason: Why not.
    """

    config: Config | None
    dataset: Dataset | None
    reason: str | None


def load_images(run: Run, outputs: Path) -> Images:
    """Reads the data set that a run was fitted to, with that run's own mapping, split and crop.

    Args:
        run: One of the runs; all have the same data.
        outputs: Its ``cache`` keeps decoded images, as for runs.
    """
    root = Path(str(run.info["data"].get("root")))
    if not root.is_dir():
        return Images(None, None, f"the images are no longer in {root}")
    try:
        config = with_model(run.info["config"], PIXELS, root=str(root), cache_dir=str(outputs / "cache"))
        dataset = task.load_data(config)
    except (SpectroError, KeyError, OSError) as error:
        told = str(error) if isinstance(error, SpectroError) else f"{type(error).__name__}: {error}"
        return Images(None, None, f"the images in {root} cannot be read as the runs read them ({_line(told)})")
    if dataset.fingerprint != run.fingerprint:
        changed = f"found fingerprint {dataset.fingerprint}, the runs had {run.fingerprint}"
        return Images(None, None, f"the images in {root} have changed since the runs ({changed})")
    return Images(config, dataset, None)


def majority_line(run: Run) -> Contender:
    """Every record is called what most training records are (of equally frequent classes the first by name).

    Raises:
        DataError: No training record is of the task.
    """
    group_of = {label: group for group, labels in run.mapping["look_alikes"].items() for label in labels}
    counts: Counter[str] = Counter()
    for place in run.places.values():
        label = place.label if place.label in run.classes else group_of.get(place.label)
        if place.split == "train" and label in run.classes:
            counts[str(label)] += 1
    if not counts:
        raise DataError(f"{run.folder / 'records.csv'}: has no training records of {', '.join(run.classes)}")
    most = min(counts, key=lambda label: (-counts[label], label))
    predicted = np.full((1, len(run.rows)), most, dtype=object)
    return Contender(MAJORITY, run.rows, run.classes, predicted, None, settings={"class": most}, is_reference=True)


def pixels_line(run: Run, images: Images, split: str) -> tuple[Contender, dict[str, Any]]:
    """Fits ``model=pixels`` to the training records and asks it once about the split; nothing is chosen.

    Args:
        run: One of the runs.
        images: Their data set, which must be there.
        split: The split that is compared.

    Returns:
        The line, and what it cost, as an entry ``cost`` of ``run.json``.

    Raises:
        DataError: Its records are not those of the runs.
    """
    config, dataset = images.config, images.dataset
    assert config is not None
    assert dataset is not None
    start = time.perf_counter()
    classifier = task.fit(config, dataset, *task.training_rows(config, dataset))
    fit_s = time.perf_counter() - start
    evaluated = task.evaluate(config, dataset, classifier, splits=(split,))[""][split]
    at = {dataset.name_of(record): i for i, record in enumerate(evaluated.records)}
    if set(at) != {row.path for row in run.rows} or set(evaluated.classes) != set(run.classes):
        raise DataError("the records of the images are not those that the runs predicted")
    order = [at[row.path] for row in run.rows]
    columns = [list(evaluated.classes).index(label) for label in run.classes]
    line = Contender(
        f"{PIXELS} line",
        run.rows,
        run.classes,
        evaluated.predicted[order][None, :],
        evaluated.probabilities[order][:, columns][None, :, :],
        settings={
            "model.name": PIXELS,
            "cascade_stage.name": config.stage,
            "augmentation.name": config.common.augmentation.label,
        },
        is_reference=True,
    )
    cost = {
        "fit_s": round(fit_s, 3),
        "predict_records_per_s": task.predict_speed(config, dataset, classifier),
        "trainable_parameters": None,
        # The peak of this process is that of the whole comparison.
        "peak_memory_mb": None,
    }
    return line, cost


def thumbnails(images: Images, paths: Sequence[str]) -> Mapping[str, np.ndarray]:
    """Images of records as they are shown to a person, uint8 (H, W, 3), by path; empty if they are not there."""
    if images.dataset is None or not paths:
        return {}
    by_name = {images.dataset.name_of(record): record for record in images.dataset.records}
    records = [by_name[path] for path in paths if path in by_name]
    pixels = images.dataset.images(records).pixels(task.SHOW)
    return {images.dataset.name_of(record): one for record, one in zip(records, pixels, strict=True)}


def _line(text: str) -> str:
    """A message on one line, of several lines the first two."""
    return " ".join(line.strip() for line in text.strip().splitlines()[:2])

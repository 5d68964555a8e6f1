"""The baselines of a comparison: ordinary runs of other models on the same data, and the majority class."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from spectro.comparison.load import Run, read_run
from spectro.comparison.models import PIXELS, Model, settings_of
from spectro.comparison.names import MAJORITY
from spectro.config.check import Config, with_model
from spectro.config.received import modules_of
from spectro.data import Dataset
from spectro.errors import DataError, SpectroError
from spectro.paths import new_folder, short
from spectro.plugins import loaded
from spectro.progress import say, status
from spectro.runs.runinfo import RunInfo
from spectro.runs.task import load_data
from spectro.tracking import MlflowEntry

EMBED = "embed"


def load_dataset(run: Run, outputs: Path) -> Dataset:
    """Reads the data set of a run.

    Args:
        run: One of the runs; all have the same data.
        outputs: Its ``cache`` keeps decoded images, as for runs.

    Raises:
        DataError: The images do not exist, cannot be read, or have changed.
    """
    root = Path(run.data.root)
    # Demo data would be made in an empty folder.
    if not run.data.root or not root.is_dir() or not any(root.iterdir()):
        raise DataError(f"the images are no longer in {root}")
    try:
        # Reading needs no augmentation, whose functions may not be there.
        dataset = load_data(_config(run, PIXELS, outputs, augmentation={}))
    except (SpectroError, KeyError, OSError) as error:
        reason = " ".join(str(error).strip().splitlines()[:2])
        raise DataError(f"the images in {root} cannot be read as the runs read them ({reason})") from error
    if dataset.fingerprint != run.data.fingerprint:
        changed = f"got fingerprint {dataset.fingerprint}, the runs had {run.data.fingerprint}"
        raise DataError(f"the images in {root} have changed since the runs ({changed})")
    return dataset


def baseline_runs(
    runs: Sequence[Run], outputs: Path, split: str, mlflow: MlflowEntry, problem: str = "", only: str | None = None
) -> tuple[list[Run], list[str]]:
    """A run of each baseline that is not among the runs: one that is finished, or a new one in ``outputs/runs``.

    Each has the data, mapping, augmentation, stage and validation of one of the runs, of one with a refit if there is
    any: a baseline that does without val beside a model that does not would be too easy to beat.

    Args:
        mlflow: The store of new runs.
        problem: Why the images cannot be used: then no new run is made.
        only: The only baseline that is asked for.

    Returns:
        The runs, and a note for each baseline that is left out.
    """
    first = next((run for run in runs if run.is_refit), runs[0])
    infos = _infos(outputs)
    finished = list(_finished(infos, first, split))
    added, notes = [], []
    for model, about in ((PIXELS, "logistic regression on 20x15 grey pixels"), (EMBED, "SVM on frozen features")):
        if any(run.model == model for run in runs) or only not in (None, model):
            continue
        what = f"the baseline {model} ({about}) is left out"
        try:
            config = _config(first, model, outputs)
            if same := [run for run in finished if _same(run.info.config, config.raw)]:
                added.append(max(same, key=lambda run: run.info.started_at))
                continue
            weights = None
            if model == EMBED and (weights := _weights(str(config.raw[EMBED]["backbone"]), infos)) is None:
                hint = "spectro train model=embed downloads them, embed.weights=FILE takes a file"
                notes.extend([] if problem else [f"{what}: its pretrained weights are not on this machine ({hint})"])
            elif problem:
                notes.append(f"{what}: {problem}")
            else:
                config = _config(first, model, outputs, {"weights": str(weights)} if weights else {})
                added.append(_fit(config, first, split, mlflow))
        except (SpectroError, KeyError) as error:
            notes.append(f"{what}: {problem or ' '.join(str(error).split())}")
    return added, notes


def _config(run: Run, model: str, outputs: Path, section: dict[str, Any] | None = None, **others: Any) -> Config:
    """The configuration of a run under another model, with a section of that and other sections in place of the run's.

    Of the plugins that the run names it has those that the user has named too.
    """
    plugins = [module for key, module in modules_of(run.info.config) if key == "plugins" and module in loaded]
    raw = run.info.config | {"plugins": plugins} | others
    data = {"cache_dir": str(outputs / "cache")} | ({"table": run.data.table} if run.data.table else {})
    knobs = {"outputs": str(outputs), "data": data, model: section or {}}
    return with_model(raw, model, origin=run.origin, root=run.data.root, knobs=knobs)


def _infos(outputs: Path) -> list[RunInfo]:
    """All runs of baselines, those of multiruns and trials of searches too."""
    infos = []
    for path in sorted(path for pattern in ("runs/*", "sweeps/*/*") for path in outputs.glob(pattern)):
        with contextlib.suppress(SpectroError):
            infos.append(RunInfo.read(path))
    return [info for info in infos if info.tags.get("model") in (PIXELS, EMBED)]


def _finished(infos: Sequence[RunInfo], first: Run, split: str) -> Iterator[Run]:
    """The finished runs on the same records and classes that have their model."""
    for info in infos:
        with contextlib.suppress(SpectroError):
            run = read_run(info.folder, split)
            if (info.folder / "model").is_dir() and run.task(split) == first.task(split):
                yield run


def _same(config: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two configurations are one, but for the seed and where pretrained weights were read from."""
    a, b = (
        {k: v for k, v in settings_of(raw).items() if k != "name" and not k.endswith(".weights")}
        for raw in (config, other)
    )
    return a == b and config.get("validation") == other.get("validation")


def _weights(backbone: str, infos: Sequence[RunInfo]) -> Path | None:
    """A file on this machine with the pretrained weights of a backbone: that of a run, or of the hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    sections = [info.config[EMBED] for info in infos if EMBED in info.config]
    files = [section.get("weights") for section in sections if section.get("backbone") == backbone]
    files.append(try_to_load_from_cache(f"timm/{backbone}", "model.safetensors"))
    return next((Path(file) for file in files if isinstance(file, str) and Path(file).is_file()), None)


def _fit(config: Config, first: Run, split: str, mlflow: MlflowEntry) -> Run:
    """A new run."""
    from spectro.runs.run import run

    name = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{config.model}_{config.stage}"
    folder = new_folder(config.outputs / "runs" / name)
    say(f"fitting the baseline {config.model}, once: {short(folder)}")
    try:
        with status(f"fitting {config.model}"):
            run(config, folder, quiet=True, experiment=first.info.experiment, mlflow=mlflow)
    except SpectroError:
        if not any(folder.iterdir()):
            folder.rmdir()
        raise
    return read_run(folder, split)


def majority_baseline(run: Run) -> Model:
    """Predicts the most frequent class of the training records (of equally frequent ones the first by name)."""
    classes = list(run.predictions.classes)
    group_of = {label: group for group, labels in run.look_alikes.items() for label in labels}
    splits = ("train", "val") if run.is_refit else ("train",)
    train = [record.label for record in run.records if record.split in splits]
    counts = Counter(label if label in classes else group_of.get(label) for label in train)
    majority = max(sorted(classes), key=lambda label: counts[label])
    p = np.tile(np.array(classes) == majority, (len(run.predictions.records), 1)).astype(float)
    return Model(MAJORITY, [replace(run.predictions, probabilities=p)], is_baseline=True)

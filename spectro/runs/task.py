"""What a configuration asks of a data set: which records, under which labels, fitted and evaluated how."""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from spectro import data
from spectro.classifiers import CascadeClassifier, ImageClassifier
from spectro.classifiers.cascade import merge
from spectro.classifiers.temperature import MIN_RECORDS
from spectro.config.check import Config
from spectro.config.schema import DemoKnobs
from spectro.data import Dataset, Images, ImageSpec, Record
from spectro.errors import ConfigError, DataError
from spectro.progress import progress
from spectro.runs.predictions import Predictions

# Val is for choosing, test is for the last word; train is never scored.
EVAL_SPLITS = ("val", "test")
# How images are shown to a person.
SHOW = ImageSpec(224, "RGB")
# So many records are timed; their images are decoded for it once more.
_TIMED = 32
# Training records, and the augmented training set: images and labels.
TrainingRows = tuple[list[Record], Images, np.ndarray]


def load_data(config: Config) -> Dataset:
    """Makes the demo data if they are asked for, and reads and checks the data set."""
    knobs = config.common.data
    if isinstance(knobs, DemoKnobs):
        root = make_demo_data(knobs, Path(config.common.outputs))
    else:
        root = Path(knobs.root).expanduser().absolute()
    cache_dir = None if knobs.cache_dir is None else Path(knobs.cache_dir).expanduser().absolute()
    store = data.ImageStore(
        data.row_cache(cache_dir, knobs.cache_limit_gb * 1e9),
        knobs.crop,
        knobs.max_megapixels,
    )
    return data.load_folder(
        root,
        config.common.mapping,
        store=store,
        specs=config.estimator().specs,
        split=None if isinstance(knobs, DemoKnobs) else knobs.split,
        source_key=knobs.source_key,
        skip_bad_files=knobs.on_bad_file == "skip",
    )


def make_demo_data(knobs: DemoKnobs, outputs: Path) -> Path:
    """Makes the demo data, with a progress bar, unless they are there; returns their folder."""
    from spectro.demo.generate import VERSION, make_demo

    # The version of the generator is in the name, so that an older one's images are not taken for its own.
    name = f"{knobs.label_set}_seed{knobs.seed}_scale{knobs.scale:g}_v{VERSION}"
    root = Path(knobs.demo_dir).expanduser() if knobs.demo_dir is not None else outputs / "demo" / name
    with ExitStack() as stack:
        bar: list[Any] = []

        def on_progress(done: int, total: int) -> None:
            if not bar:
                bar.append(stack.enter_context(progress("making demo data", total)))
            bar[0](1)

        try:
            return make_demo(
                root.absolute(), knobs.label_set, seed=knobs.seed, scale=knobs.scale, on_progress=on_progress
            )
        except (OSError, ValueError) as error:
            raise DataError(f"data.demo_dir: {error}") from error


def in_task(config: Config, records: Sequence[Record]) -> list[Record]:
    """The records that the configured stage is about: all, or the look-alikes of one group."""
    if config.stage != "hard":
        return list(records)
    members = config.common.mapping.look_alikes[config.group]
    return [record for record in records if record.label in members]


def task_labels(config: Config, records: Sequence[Record]) -> np.ndarray:
    """Their labels as the configured stage sees them."""
    labels = data.labels_of(records)
    return merge(labels, config.common.mapping.look_alikes) if config.stage == "easy" else labels


def training_rows(config: Config, dataset: Dataset) -> TrainingRows:
    """Training records, and their augmented images with the label of each."""
    train = in_task(config, dataset.of("train"))
    X, y = training_set(config, dataset, train)
    if len(set(y)) < len(set(task_labels(config, train))):
        raise ConfigError("augmentation.exclude: leaves a class without any training row; allowed: one or more a class")
    return train, X, y


def training_set(config: Config, dataset: Dataset, train: Sequence[Record]) -> tuple[Images, np.ndarray]:
    """What is fitted to: images of the augmented training records and their labels, ``X`` and ``y``."""
    sources = [record.source for record in train]
    X, rows = config.augmentation().apply(dataset.images(train), sources, per_epoch=config.has_epochs)
    return X, task_labels(config, train)[rows]


def fit(config: Config, dataset: Dataset, train: Sequence[Record], X: Images, y: np.ndarray) -> ImageClassifier:
    """The configured classifier, fitted to the augmented training records; val as it is."""
    val = in_task(config, dataset.of("val"))
    X_val, y_val = dataset.images(val), task_labels(config, val)
    classifier: ImageClassifier = config.estimator().fit(X, y, X_val, y_val)
    return classifier


def temperatures(
    config: Config, classifier: ImageClassifier, tasks: Mapping[str, Mapping[str, Predictions]]
) -> tuple[dict[str, float], list[str]]:
    """The temperature of each stage that has one.

    Returns:
        Stage -> temperature, and a line for each stage whose val had too few records to fit one.
    """
    stages = {k: model for k, model in stages_of(config, classifier).items() if hasattr(model, "temperature_")}
    lines = []
    for stage, model in stages.items():
        if not model.temperature_fitted_:
            n = len(tasks[stage if stage in tasks else ""]["val"].records)
            few = f"{n} val record{' is' if n == 1 else 's are'} too few to fit one ({MIN_RECORDS})"
            lines.append(f"temperature of stage {stage}: {few}, left at 1")
    return {stage: model.temperature_ for stage, model in stages.items()}, lines


def stages_of(config: Config, classifier: ImageClassifier) -> dict[str, ImageClassifier]:
    """The fitted classifiers by stage: ``flat``, ``easy``, ``hard``, or ``hard/<group>`` where there are several."""
    return classifier.stages_ if isinstance(classifier, CascadeClassifier) else {config.stage: classifier}


def evaluate(
    config: Config, dataset: Dataset, classifier: ImageClassifier, splits: Sequence[str] = EVAL_SPLITS
) -> dict[str, dict[str, Predictions]]:
    """What the classifier says of some splits: task -> split -> evaluation; the whole task's name is empty.

    Each stage predicts once; the whole cascade is composed from the stages' probabilities.
    """
    tasks: dict[str, dict[str, Predictions]] = {"": {}}
    for split in splits:
        records = in_task(config, dataset.of(split))
        truth = task_labels(config, records)
        X = dataset.images(records)
        stage_labels = classifier.stage_labels(truth)
        for name, (classes, p) in classifier.stage_probabilities(X).items():
            labels, rows = stage_labels[name]
            tasks.setdefault(name, {})[split] = Predictions([records[i] for i in rows], labels[rows], classes, p[rows])
    return tasks


def predict_speed(config: Config, dataset: Dataset, classifier: ImageClassifier) -> float | None:
    """Records per second from file to probability, as for new images: nothing comes from the cache.

    Measured on the first val records, at most 32; None where val has none.
    """
    records = in_task(config, dataset.of("val"))[:_TIMED]
    if not records:
        return None
    knobs = config.common.data
    store = data.ImageStore(crop=knobs.crop, max_megapixels=knobs.max_megapixels)
    digests = [record.digest for record in records]
    start = time.perf_counter()
    store.add([record.path for record in records], digests, config.estimator().specs)
    classifier.predict_proba(Images(store, digests))
    return float(f"{len(records) / (time.perf_counter() - start):.4g}")

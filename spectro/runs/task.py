"""The task of a run: the records, labels and classes of the configured stage of a data set, by split."""

import os
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from spectro import data
from spectro.classifiers import CascadeClassifier, ImageClassifier
from spectro.classifiers.cascade import merge
from spectro.classifiers.temperature import MIN_RECORDS, ScoringClassifier
from spectro.config.check import Config
from spectro.config.schema import DemoKnobs, FolderKnobs, TableKnobs
from spectro.data import SPLITS, Dataset, Images, Record
from spectro.data.splits import group_numbers
from spectro.errors import ConfigError, DataError
from spectro.evaluation import METRICS
from spectro.runs.predictions import Predictions

# How large images are shown to a person, in pixels of the longer side.
SHOW_PX = 260
# Number of records that predictions are timed on.
_TIMED = 32


class Task:
    """What a valid configuration fits and evaluates on its data set, as `load_data` gives it.

    Attributes:
        records: Split -> the records of the configured stage: all, or the look-alikes of one group.
        labels: Split -> their labels as the stage sees them.
    """

    def __init__(self, config: Config, dataset: Dataset):
        mapping = config.mapping
        self.config = config
        self.dataset = dataset
        self._merged = mapping.look_alikes if config.stage == "easy" else {}
        members = mapping.look_alikes[config.group] if config.stage == "hard" else dataset.classes
        self.records = {split: [r for r in dataset.of(split) if r.label in members] for split in SPLITS}
        self.labels = {split: self.labels_of(records) for split, records in self.records.items()}
        self._augmentation = config.augmentation

    def labels_of(self, records: Sequence[Record]) -> np.ndarray:
        """Labels of records as the configured stage sees them, ``(n,)``."""
        return merge(data.labels_of(records), self._merged)

    def estimator(self) -> ImageClassifier:
        """A new unfitted classifier."""
        classifier: ImageClassifier = self.config.estimator()
        return classifier

    def training_set(self, records: Sequence[Record]) -> tuple[Images, np.ndarray]:
        """The augmented images of training records and the label of each, ``X`` and ``y``."""
        sources = [record.source for record in records]
        images = self.dataset.images(records).replace(groups=group_numbers(records))
        X, rows = images.augmented(self._augmentation, sources, per_epoch=self.config.has_epochs)
        return X, self.labels_of(records)[rows]

    @property
    def train_and_val(self) -> list[Record]:
        """The records of train and val."""
        return [*self.records["train"], *self.records["val"]]

    @cached_property
    def train(self) -> tuple[Images, np.ndarray]:
        """The augmented training set, ``X`` and ``y``."""
        return self.training_set(self.records["train"])

    @property
    def warnings(self) -> list[str]:
        """What is unusual about the data set, and about the configuration beside it."""
        excluded = set(self.config.common.augmentation.exclude or {})
        unknown = sorted(excluded - {record.source for record in self.dataset.records})
        lines = [f"augmentation.exclude: no such source: {', '.join(unknown)}"] if unknown else []
        return [*self.dataset.warnings, *lines]

    def check(self) -> None:
        """Raises what is wrong between configuration and data, before anything is fitted.

        Raises:
            ConfigError: A class has no training rows.
            DataError: Val has no records for the objective.
        """
        if set(self.train[1]) < set(self.labels["train"]):
            raise ConfigError("augmentation.exclude: leaves a class without any view; allowed: one or more a class")
        objective = self.config.common.objective
        stage, is_val, metric = f"/{objective}".rpartition("/val/")
        if objective is None or not is_val:
            return
        labels, rows = self.estimator().stage_labels(self.labels["val"])[stage.lstrip("/")]
        counted = np.isin(labels[rows], self.config.look_alikes) if METRICS[metric].needs_look_alikes else rows >= 0
        if not counted.any():
            raise DataError(f"objective: got {objective!r}, but val has no records for it; allowed: null")

    def fit(self) -> ImageClassifier:
        """The configured classifier, fitted to the augmented training records, with val as it is."""
        X, y = self.train
        return self.estimator().fit(X, y, self.dataset.images(self.records["val"]), self.labels["val"])

    def refit(self, epochs: Mapping[str, int], out_of_fold: Mapping[str, Predictions]) -> ImageClassifier:
        """The configured classifier, fitted to the augmented records of train and val.

        Args:
            epochs: Stage -> number of epochs where its network would choose on val, see `CrossValidated`.
            out_of_fold: Stage -> predictions that its temperature is fitted to; the whole task's name is empty.
        """
        estimator = self.estimator()
        for stage, number in epochs.items():
            # A cascade's groups of look-alikes share the parameters of the hard stage: the last of them counts.
            stage, _, settings = stage.partition(" settings ")
            part = "" if stage == self.config.stage else f"{stage.split('/')[0]}__"
            part += f"estimator_{settings}__" if settings else ""
            params = estimator.get_params()
            if params.get(part.removesuffix("__"), estimator).chooses_on_val:
                name = next(name for name in params if name.startswith(part) and name.endswith("training__epochs"))
                estimator.set_params(**{name: number})
        classifier = estimator.fit(*self.training_set(self.train_and_val))
        for stage, model in self.stages_of(classifier).items():
            if isinstance(model, ScoringClassifier) and hasattr(model, "temperature_"):
                predictions = out_of_fold.get(stage, out_of_fold[""])
                model.calibrate(predictions.probabilities, predictions.y_true)
        return classifier

    def evaluate(
        self, classifier: ImageClassifier, splits: Sequence[str] | None = None
    ) -> dict[str, dict[str, Predictions]]:
        """Predictions of a fitted classifier: stage -> split -> predictions. The whole task's name is empty.

        Without ``splits`` they are those of the configuration.
        """
        stages: dict[str, dict[str, Predictions]] = {}
        for split in self.config.splits if splits is None else splits:
            records = self.records[split]
            stage_labels = classifier.stage_labels(self.labels[split])
            for stage, output in classifier.outputs(self.dataset.images(records))[0].items():
                labels, rows = stage_labels[stage]
                stages.setdefault(stage, {})[split] = Predictions(
                    [records[i] for i in rows], labels[rows], output.classes, output.probabilities[rows]
                )
        return stages

    def stages_of(self, classifier: ImageClassifier) -> dict[str, ImageClassifier]:
        """The fitted classifiers by stage: ``flat``, ``easy``, ``hard``, or ``hard/<group>`` of several."""
        return classifier.stages_ if isinstance(classifier, CascadeClassifier) else {self.config.stage: classifier}

    def temperatures(self, classifier: ImageClassifier) -> tuple[dict[str, float], list[str]]:
        """The temperature of each stage that has one, and a warning for each whose records are too few."""
        stages = {k: model for k, model in self.stages_of(classifier).items() if hasattr(model, "temperature_")}
        is_refit = self.config.is_refit
        stage_labels = classifier.stage_labels(self.labels_of(self.train_and_val) if is_refit else self.labels["val"])
        lines = []
        for stage, model in stages.items():
            if not model.temperature_fitted_:
                n, kind = len(stage_labels.get(stage, stage_labels[""])[1]), "" if is_refit else "val "
                lines.append(
                    f"temperature of stage {stage}: left at 1, as {n} {kind}records are fewer than {MIN_RECORDS}"
                )
        return {stage: model.temperature_ for stage, model in stages.items()}, lines

    def predict_speed(self, classifier: ImageClassifier) -> float:
        """Records per second from file to probability, without a cache; of val, or of train where val is empty."""
        records = (self.records["val"] or self.records["train"])[:_TIMED]
        knobs = self.config.common.data
        store = data.ImageStore(crop=knobs.crop, max_megapixels=knobs.max_megapixels)
        digests = [record.digest for record in records]
        start = time.perf_counter()
        store.add([record.path for record in records], digests, classifier.specs)
        classifier.predict_proba(Images(store, digests))
        return float(f"{len(records) / (time.perf_counter() - start):.4g}")


def data_name(config: Config) -> str:
    """The name of the data set: the set of the demo data, or that of the folder or of the table."""
    knobs = config.common.data
    return knobs.label_set if isinstance(knobs, DemoKnobs) else _place(knobs).name


def experiment_of(config: Config) -> str:
    """The MLflow experiment of a run, one for each data set and mapping, such as ``surveys/lake, mapping reduced``.

    A folder has the name of the one above it as well: many are called ``records``.
    """
    knobs, mapping = config.common.data, config.mapping.name
    data = knobs.label_set if isinstance(knobs, DemoKnobs) else "/".join(_place(knobs).parts[-2:]).lstrip("/")
    return data if mapping in ("identity", data) else f"{data}, mapping {mapping}"


def load_data(config: Config) -> Dataset:
    """Reads and checks the data set; makes the demo data first if they are configured.

    Raises:
        DataError: Lists every problem.
    """
    knobs, table = config.common.data, None
    if isinstance(knobs, DemoKnobs):
        root = _make_demo_data(knobs, config.outputs)
    elif isinstance(knobs, TableKnobs):
        table = _place(knobs)
        root = table.parent if knobs.root is None else _absolute(knobs.root)
    else:
        root = _place(knobs)
    cache_dir = None if knobs.cache_dir is None else Path(knobs.cache_dir).expanduser().absolute()
    return data.load_dataset(
        root,
        config.mapping,
        table=table,
        store=data.ImageStore(data.row_cache(cache_dir, knobs.cache_limit_gb * 1e9), knobs.crop, knobs.max_megapixels),
        specs=config.estimator().specs,
        split=None if isinstance(knobs, DemoKnobs) else knobs.split,
        source_key=knobs.source_key,
        group=knobs.group,
        skip_bad_files=knobs.on_bad_file == "skip",
    )


def _place(knobs: FolderKnobs | TableKnobs) -> Path:
    """The folder of a user's images, or the table that lists them."""
    return _absolute(knobs.table if isinstance(knobs, TableKnobs) else knobs.root)


def _absolute(path: str) -> Path:
    """The absolute path of what a user typed, without dots in it."""
    return Path(os.path.abspath(Path(path).expanduser()))


def _make_demo_data(knobs: DemoKnobs, outputs: Path) -> Path:
    """Makes the demo data unless they exist; returns their folder."""
    from spectro.demo.generate import VERSION, make_demo

    # The generator's version is in the name: images of another version are other data.
    name = f"{knobs.label_set}_seed{knobs.seed}_scale{knobs.scale:g}_v{VERSION}"
    root = Path(knobs.demo_dir).expanduser() if knobs.demo_dir is not None else outputs / "demo" / name
    try:
        return make_demo(root.absolute(), knobs.label_set, seed=knobs.seed, scale=knobs.scale)
    except (OSError, ValueError) as error:
        raise DataError(f"data.demo_dir: {error}") from error

"""The models of a comparison: runs that differ only in the seed are one model, and two baselines stand beside them."""

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from spectro.comparison.load import Run
from spectro.config.check import with_model
from spectro.errors import DataError, SpectroError
from spectro.paths import flatten
from spectro.runs.predictions import Predictions
from spectro.runs.runinfo import Cost
from spectro.runs.task import Task, load_data

PIXELS = "pixels"
MAJORITY = "majority class"
# Settings that do not make another model: where and how a run was started, stored and followed. Which data it used is
# checked by fingerprint; crops are not in the fingerprint and stay.
_NOT_COMPARED = (
    *("seed", "outputs", "objective", "tracking", "validation", "device", "plugins"),
    *("n_trials", "study", "storage", "n_jobs", "sweep"),
    *(f"data.{key}" for key in ("kind", "root", "demo_dir", "label_set", "seed", "scale", "split", "on_bad_file")),
    *("data.source_key", "data.max_megapixels", "data.cache_dir", "data.cache_limit_gb", "mapping", "model.family"),
)
_MAX_KEYS = 3


@dataclass(frozen=True)
class Model:
    """The runs of one configuration, or a baseline.

    Attributes:
        name: Unique in a comparison.
        predictions: Predictions of each seed, all of the same records and classes.
        costs: What the fit of each seed cost.
        runs: Its runs, ordered by seed; empty for a baseline that the comparison fits itself.
        settings: Its configuration by dotted keys, without what makes no difference.
        is_baseline: Whether it is a baseline.
    """

    name: str
    predictions: Sequence[Predictions]
    costs: Sequence[Cost] = ()
    runs: Sequence[Run] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    is_baseline: bool = False

    @property
    def predicted(self) -> np.ndarray:
        """Predicted labels, ``(seeds, n)``."""
        return np.stack([predictions.predicted for predictions in self.predictions])

    @property
    def votes(self) -> np.ndarray:
        """The label that most seeds predict, ``(n,)``; of equally frequent ones that of the earliest seed.

        The alphabet would favour the same class each time.
        """
        rows = self.predicted
        frequency = (rows[:, None, :] == rows[None, :, :]).sum(axis=1)
        return rows[frequency.argmax(axis=0), np.arange(rows.shape[1])]

    @property
    def probabilities(self) -> np.ndarray:
        """Probabilities, mean over seeds, ``(n, k)``."""
        return np.mean([predictions.probabilities for predictions in self.predictions], axis=0)

    @property
    def seeds(self) -> list[int]:
        """The seeds of its runs."""
        return [run.seed for run in self.runs]

    @property
    def cost(self) -> Cost:
        """Mean over seeds of each cost that is known; of memory the maximum."""
        known = {f.name: [v for cost in self.costs if (v := getattr(cost, f.name)) is not None] for f in fields(Cost)}
        means = {key: float(max(v) if key == "peak_memory_mb" else np.mean(v)) for key, v in known.items() if v}
        return Cost(**means)  # type: ignore[arg-type]


def models_of(runs: Sequence[Run]) -> tuple[list[Model], list[str]]:
    """Groups runs that differ only in the seed.

    Args:
        runs: Comparable runs.

    Returns:
        The models, in the order of their first runs, and notes: which of several runs of one seed is used, and
        whether a model's runs come from different code. Runs of ``model=pixels`` are a baseline beside others.
    """
    prefixes = tuple(f"{key}." for key in _NOT_COMPARED)
    groups: dict[str, tuple[dict[str, Any], list[Run]]] = {}
    for run in runs:
        settings = {k: v for k, v in flatten(run.info.config).items() if not f"{k}.".startswith(prefixes)}
        settings["validation.refit"] = run.is_refit
        groups.setdefault(json.dumps(settings, sort_keys=True), (settings, []))[1].append(run)
    names = _names([settings for settings, _ in groups.values()])
    has_others = any(run.model != PIXELS for run in runs)
    notes: list[str] = []
    models = []
    for name, (settings, group) in zip(names, groups.values(), strict=True):
        # Of each seed the newest run; a cross-validated run goes before one that was not.
        newest: dict[int, Run] = {}
        for run in sorted(group, key=lambda run: (bool(run.out_of_fold), run.info.started_at)):
            if (older := newest.get(run.seed)) is not None:
                notes.append(f"{older.origin} and {run.origin} have one configuration and seed: {run.origin} counts")
            newest[run.seed] = run
        chosen = [newest[seed] for seed in sorted(newest)]
        commits = sorted({str(run.info.git_commit)[:9] for run in chosen})
        if len(commits) > 1:
            notes.append(f"the runs of {name} come from different commits: {', '.join(commits)}")
        predictions, costs = [run.predictions for run in chosen], [run.info.cost for run in chosen]
        models.append(Model(name, predictions, costs, chosen, settings, has_others and chosen[0].model == PIXELS))
    return models, notes


def differing(settings: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The keys in which some of the settings differ or that some lack, each with its values as they are typed."""
    table = {key: [_typed(values.get(key, "–")) for values in settings] for values in settings for key in values}
    return {key: values for key, values in table.items() if len(set(values)) > 1}


def _typed(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _names(all_settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Model and, where they differ, stage; and the keys that differ between those that share them."""
    stages = {settings["cascade_stage.name"] for settings in all_settings}
    plain = [s["model.name"] + (f" {s['cascade_stage.name']}" if len(stages) > 1 else "") for s in all_settings]
    names = []
    for i, name in enumerate(plain):
        alike = [j for j, other in enumerate(plain) if other == name]
        table = differing([all_settings[j] for j in alike])
        shown = [f"{key}={values[alike.index(i)]}" for key, values in [*table.items()][:_MAX_KEYS]]
        shown += ["…"] * (len(table) > _MAX_KEYS)
        names.append(f"{name} ({', '.join(shown)})" if shown else name)
    return [f"{name} #{names[:i].count(name) + 1}" if names.count(name) > 1 else name for i, name in enumerate(names)]


def load_task(run: Run, outputs: Path) -> Task:
    """Reads the data set of a run, for ``model=pixels`` under the run's mapping, stage, split and crop.

    Args:
        run: One of the runs; all have the same data.
        outputs: Its ``cache`` keeps decoded images, as for runs.

    Raises:
        DataError: The images do not exist, cannot be read, or have changed.
    """
    root = Path(run.data.root)
    if not run.data.root or not root.is_dir():
        raise DataError(f"the images are no longer in {root}")
    try:
        config = with_model(run.info.config, PIXELS, root=str(root), cache_dir=str(outputs / "cache"))
        dataset = load_data(config)
    except (SpectroError, KeyError, OSError) as error:
        reason = " ".join(str(error).strip().splitlines()[:2])
        raise DataError(f"the images in {root} cannot be read as the runs read them ({reason})") from error
    if dataset.fingerprint != run.data.fingerprint:
        changed = f"got fingerprint {dataset.fingerprint}, the runs had {run.data.fingerprint}"
        raise DataError(f"the images in {root} have changed since the runs ({changed})")
    return Task(config, dataset)


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


def pixels_baseline(run: Run, task: Task, split: str) -> Model:
    """Fits ``model=pixels`` with its defaults to the records that the run was fitted to, and predicts the split once.

    Args:
        run: One of the runs.
        task: Its data set, see `load_task`.
        split: The split that is compared.
    """
    start = time.perf_counter()
    # A refit without a temperature, which a cross-validation would have to give.
    classifier = task.refit() if run.is_refit else task.fit()
    fit_s = round(time.perf_counter() - start, 3)
    predictions = task.evaluate(classifier, splits=(split,))[""][split]
    row_of = {task.dataset.name_of(record): i for i, record in enumerate(predictions.records)}
    p = predictions.probabilities[[row_of[record.path.as_posix()] for record in run.predictions.records]]
    cost = Cost(fit_s=fit_s, predict_records_per_s=task.predict_speed(classifier))
    return Model(f"{PIXELS} baseline", [replace(run.predictions, probabilities=p)], [cost], is_baseline=True)

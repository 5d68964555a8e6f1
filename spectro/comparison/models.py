"""The models of a comparison: runs that differ only in the seed are one model."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from spectro.comparison.load import Run
from spectro.comparison.names import check_names, short_names
from spectro.paths import flatten
from spectro.runs.predictions import Predictions
from spectro.runs.runinfo import Cost

PIXELS = "pixels"
# Settings that do not make another model: where and how a run was started, stored and followed. Which data it used is
# checked by fingerprint; crops are not in the fingerprint and stay.
_NOT_COMPARED = (
    *("seed", "outputs", "objective", "tracking", "review", "validation", "device", "plugins", "figures"),
    *("n_trials", "study", "storage", "n_jobs", "sweep"),
    *(f"data.{key}" for key in ("kind", "root", "table", "demo_dir", "label_set", "seed", "scale", "split")),
    *(f"data.{key}" for key in ("on_bad_file", "source_key", "max_megapixels", "cache_dir", "cache_limit_gb")),
    *("mapping", "model.family"),
)


@dataclass(frozen=True)
class Model:
    """The runs of one configuration, or the majority class.

    Attributes:
        name: Unique in a comparison.
        predictions: Predictions of each seed, all of the same records and classes.
        costs: What the fit of each seed cost.
        runs: Its runs, ordered by seed; empty for the majority class.
        settings: Its configuration by dotted keys, without what makes no difference.
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


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration by dotted keys, without what makes no other model; ``validation.refit`` is true or false."""
    prefixes = tuple(f"{key}." for key in _NOT_COMPARED)
    settings = {k: v for k, v in flatten(config).items() if v != {} and not f"{k}.".startswith(prefixes)}
    if config["cascade_stage"]["name"] != "flat":  # they make the stages
        settings["mapping.look_alikes"] = config["mapping"].get("look_alikes") or {}
    if settings.get("name") is None:
        settings.pop("name", None)
    return {**settings, "validation.refit": bool(config.get("validation", {}).get("refit"))}


def models_of(
    runs: Sequence[Run], added: Sequence[Run] = (), names: Sequence[str] | None = None
) -> tuple[list[Model], list[str]]:
    """Groups runs that differ only in the seed.

    Args:
        runs: Comparable runs.
        added: Runs of baselines.
        names: Of the models of ``runs``; None: what differs and matters, see `spectro.comparison.names`.

    Returns:
        The models, in the order of their first runs, and notes: which of several runs of one seed is used, and
        whether a model's runs come from different code. Runs of ``model=pixels`` are a baseline beside others.

    Raises:
        ConfigError: Another number of names than models, or two that are equal.
    """
    groups: dict[str, list[Run]] = {}
    for run in [*runs, *added]:
        groups.setdefault(json.dumps(settings_of(run.info.config), sort_keys=True), []).append(run)
    has_others, is_added = any(run.model != PIXELS for run in runs), {id(run) for run in added}
    notes: list[str] = []
    chosen_runs = []
    for group in groups.values():
        # Of each seed the newest run; a cross-validated run goes before one that was not.
        newest: dict[int, Run] = {}
        for run in sorted(group, key=lambda run: (bool(run.out_of_fold), run.info.started_at)):
            if (older := newest.get(run.seed)) is not None:
                notes.append(f"{older.origin} and {run.origin} have one configuration and seed: {run.origin} counts")
            newest[run.seed] = run
        chosen_runs.append([newest[seed] for seed in sorted(newest)])
    contenders = [(settings_of(group[0].info.config), group) for group in chosen_runs]
    for settings, group in contenders:
        if id(group[0]) in is_added:
            settings.pop("name", None)  # a baseline is found by what it is
    named = [contender for contender in contenders if id(contender[1][0]) not in is_added]
    models = []
    for name, (settings, group) in zip(short_names(contenders, check_names(names, named)), contenders, strict=True):
        commits = sorted({str(run.info.git_commit)[:9] for run in group})
        if len(commits) > 1:
            notes.append(f"the runs of {name} come from different commits: {', '.join(commits)}")
        predictions, costs = [run.predictions for run in group], [run.info.cost for run in group]
        is_baseline = (has_others and group[0].model == PIXELS) or id(group[0]) in is_added
        models.append(Model(name, predictions, costs, group, settings, is_baseline))
    return models, notes

"""Runs of one configuration, but for the seed, are one contender."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spectro.comparison.runs import Row, Run
from spectro.evaluation.paired import vote

# What does not make a run another one: where and how it was started, kept and followed. Which data it saw is
# checked by fingerprint; crops are not in it and stay.
_NOT_COMPARED = (
    *("seed", "outputs", "objective", "tracking", "validation", "device"),
    *("n_trials", "study", "storage", "n_jobs", "sweep"),
    *(f"data.{key}" for key in ("kind", "root", "label_set", "seed", "scale", "split", "on_bad_file", "source_key")),
    *("data.max_megapixels", "data.cache_dir", "data.cache_limit_gb", "mapping", "model.family"),
)
_MOST_KEYS = 3
PIXELS = "pixels"
MAJORITY = "majority class"


@dataclass(frozen=True)
class Contender:
    """One configuration with the runs of its seeds, or a reference line.

    Attributes:
        name: How it is called: no two share a name.
        rows: The records, ``n``.
        classes: The classes, ``k``.
        predicted: Predicted labels, ``(seeds, n)``.
        probabilities: ``(seeds, n, k)``; None for the majority class.
        runs: Its runs, ordered by seed; empty for a line that was computed here.
        settings: The configuration, flat.
        is_reference: A line to beat, not one of the models that are compared.
    """

    name: str
    rows: tuple[Row, ...]
    classes: tuple[str, ...]
    predicted: np.ndarray
    probabilities: np.ndarray | None
    runs: tuple[Run, ...] = ()
    settings: Mapping[str, Any] | None = None
    is_reference: bool = False

    @property
    def votes(self) -> np.ndarray:
        """The label that most seeds give, ``(n,)``."""
        return np.asarray(vote(self.predicted))

    @property
    def seeds(self) -> list[int]:
        """The seeds of its runs."""
        return [run.seed for run in self.runs]


def contenders_of(runs: Sequence[Run]) -> tuple[list[Contender], list[str]]:
    """Puts runs together that differ in nothing but the seed.

    Args:
        runs: Comparable runs.

    Returns:
        The contenders, in the order of their first runs, and notes: which of several runs of one seed counts, and
        whether a contender's runs come from different code. Runs of ``model=pixels`` are a reference line beside
        others.
    """
    notes: list[str] = []
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(json.dumps(settings_of(run), sort_keys=True), []).append(run)
    chosen = [_one_for_each_seed(group, notes) for group in groups.values()]
    names = _names([settings_of(group[0]) for group in chosen])
    others = any(group[0].model != PIXELS for group in chosen)
    for name, group in zip(names, chosen, strict=True):
        commits = {str(run.info.get("git_commit"))[:9] for run in group}
        if len(commits) > 1:
            notes.append(f"the runs of {name} come from different commits: {', '.join(sorted(commits))}")
    classes = chosen[0][0].classes
    return [
        Contender(
            name=name,
            rows=group[0].rows,
            classes=classes,
            predicted=np.stack([run.predicted for run in group]),
            probabilities=np.stack([run.probabilities[:, [run.classes.index(c) for c in classes]] for run in group]),
            runs=tuple(group),
            settings=settings_of(group[0]),
            is_reference=others and group[0].model == PIXELS,
        )
        for name, group in zip(names, chosen, strict=True)
    ], notes


def settings_of(run: Run) -> dict[str, Any]:
    """The configuration of a run, flat, without what does not make it another one."""
    flat = dict(_flat("", run.info["config"]))
    left_out = tuple(f"{key}." for key in _NOT_COMPARED)
    return {key: value for key, value in flat.items() if not f"{key}.".startswith(left_out)}


def differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys in which some of the settings differ, or that some of them lack."""
    keys = dict.fromkeys(key for own in settings for key in own)
    return [key for key in keys if len({json.dumps(own.get(key, "–")) for own in settings}) > 1]


def as_text(value: Any) -> str:
    """A value as it is typed."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _flat(prefix: str, node: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(node, dict):
        yield prefix, node
        return
    for key, value in node.items():
        yield from _flat(f"{prefix}.{key}" if prefix else str(key), value)


def _one_for_each_seed(group: Sequence[Run], notes: list[str]) -> list[Run]:
    """Of each seed the newest run; one that was cross-validated as well says more than one that was not."""
    newest: dict[int, Run] = {}
    for run in sorted(group, key=lambda run: (run.out_of_fold is not None, run.info["started_at"])):
        if run.seed in newest:
            notes.append(
                f"{newest[run.seed].shown} and {run.shown} are of one configuration and seed: {run.shown} counts"
            )
        newest[run.seed] = run
    return [newest[seed] for seed in sorted(newest)]


def _names(all_settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Model and, where they differ, stage; and the keys that differ between those that share them."""
    stages = {own["cascade_stage.name"] for own in all_settings}
    plain = [own["model.name"] + (f" {own['cascade_stage.name']}" if len(stages) > 1 else "") for own in all_settings]
    names = []
    for name, own in zip(plain, all_settings, strict=True):
        alike = [other for called, other in zip(plain, all_settings, strict=True) if called == name]
        keys = differing(alike)
        shown = [f"{key}={as_text(own.get(key, '–'))}" for key in keys[:_MOST_KEYS]]
        shown += ["…"] * (len(keys) > _MOST_KEYS)
        names.append(f"{name} ({', '.join(shown)})" if keys else name)
    return [f"{name} #{names[:i].count(name) + 1}" if names.count(name) > 1 else name for i, name in enumerate(names)]

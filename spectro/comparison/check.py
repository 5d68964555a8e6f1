"""Whether runs can be compared: the same images, labels, splits and task, or a refusal that says what differs."""

from collections.abc import Callable, Sequence
from typing import Any

from spectro.comparison.gather import listed
from spectro.comparison.runs import Run
from spectro.errors import DataError


def check_comparable(runs: Sequence[Run], split: str) -> None:
    """Refuses runs that did not answer the same question.

    Args:
        runs: The runs.
        split: The split that is compared.

    Raises:
        DataError: Names what differs, both values, and the runs that have them.
    """
    for key in ("classes", "left_out", "look_alikes"):
        _one(runs, f"mapping.{key}", lambda run, key=key: _shown(run.mapping[key]))  # type: ignore[misc]
    _one(runs, "the files of the data (by SHA-256)", _files)
    _one(runs, "the splits", lambda run: _each(run, "split"), _other_split)
    _one(runs, "the classes of records", lambda run: _each(run, "label"))
    _one(runs, "data fingerprints", lambda run: run.fingerprint)
    _one(runs, "the classes that they tell apart", lambda run: sorted(run.classes))
    _one(runs, f"the predicted records of {split}", lambda run: [(r.path, r.label) for r in run.rows])


def _one(
    runs: Sequence[Run],
    what: str,
    value_of: Callable[[Run], Any],
    example: Callable[[Run, Run], str] | None = None,
) -> None:
    """Refuses runs that differ in one thing."""
    groups: list[tuple[Any, list[Run]]] = []
    for run in runs:
        value = value_of(run)
        for known, members in groups:
            if known == value:
                members.append(run)
                break
        else:
            groups.append((value, [run]))
    if len(groups) < 2:
        return
    lines = [f"runs that cannot be compared: {what} differ"]
    for value, members in groups:
        lines.append(f"  got {_summary(value, members[0])} in {listed([run.shown for run in members])}")
    if example is not None:
        lines.append(f"  {example(groups[0][1][0], groups[1][1][0])}")
    lines.append("  allowed: runs with one and the same; name those of one of them")
    raise DataError("\n".join(lines))


def _each(run: Run, key: str) -> list[tuple[str, str]]:
    """Every file with its split or class; not by its path, which may hold the name of a split."""
    return sorted((place.sha256, getattr(place, key)) for place in run.places.values())


def _files(run: Run) -> list[str]:
    return sorted(place.sha256 for place in run.places.values())


def _summary(value: Any, run: Run) -> str:
    """A value that is short enough to be read, or what stands for it."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(one, str) for one in value) and len(value) == len(run.classes):
        return ", ".join(value)
    name = run.info["data"].get("name", "no name")
    return f"{len(value)} records (data {name}, stage {run.stage}, fingerprint {run.fingerprint})"


def _shown(value: Any) -> str:
    if not value:
        return "null"
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return "{" + ", ".join(f"{key}: {_shown(inner)}" for key, inner in value.items()) + "}"


def _other_split(one: Run, other: Run) -> str:
    """A record that the two have in different splits."""
    there = {place.sha256: place.split for place in other.places.values()}
    for path, place in one.places.items():
        if there[place.sha256] != place.split:
            return f"e.g. {path} is in {place.split} of the first and in {there[place.sha256]} of the second"
    return ""

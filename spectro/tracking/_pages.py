"""What a person meets on MLflow's web pages: descriptions and saved views. Imports no mlflow.

Descriptions are markdown in the tag `mlflow.note.content`; a saved view is a tag of the experiment that holds the
page's state as JSON, and opens by its name in the menu "Views" or by an address.
"""

import hashlib
import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from spectro.evaluation import METRICS
from spectro.evaluation.format import format_number
from spectro.tracking._values import MAX_TAG

NOTE = "mlflow.note.content"
# Of the description as it was written here: one that a person has changed since is left alone. The page hides it.
_DIGEST = "mlflow.note.spectro"
# Of an experiment that has been given its views: one that a person has thrown away does not come back.
INTRODUCED = "mlflow.note.spectro"
VIEWS = "mlflow.sharedViewState."
_SPLITS = ("test", "cv", "val")
# A description is one tag, and the table of a run with very many classes is in its figures and files as well.
_MAX_TABLE = 5000
# Those that are not: wide ones, such as the wrong records, push the page's other column off the screen.
_IMAGES = ("confusion_test.png", "recall.png", "learning_curves.png", "optimization_history.png")


def experiment_tags(now_ms: int) -> dict[str, str]:
    """Returns the tags that a new experiment gets: its kind, and views of its runs.

    Args:
        now_ms: Unix time in milliseconds, by which the page sorts views.
    """
    # The kind decides which side of the UI opens: training runs, not language models.
    tags = {"mlflow.experimentKind": "custom_model_development", INTRODUCED: "1"}
    for order, (key, (name, state)) in enumerate(_views().items()):
        # The page's menu shows the youngest first.
        made = now_ms - order
        envelope = {"name": name, "createdAt": made, "updatedAt": made, "state": json.dumps(state)}
        tags[VIEWS + key] = json.dumps(envelope)
    return tags


def experiment_note(experiment: str) -> str:
    """Returns an experiment's description: links to its views.

    All in one line: the page folds the others away.

    Args:
        experiment: The experiment's id.
    """
    links = ", ".join(f"[{name}]({view_address(experiment, key)})" for key, (name, _) in _views().items())
    return f"Training runs that know the same classes. Views of them: {links}."


def view_address(experiment: str, key: str) -> str:
    """Returns where a view is, from the server's root: ``results``, ``families`` or ``searches``."""
    # Without the kind of work in the address, MLflow opens the side that is about language models.
    return f"#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={key}"


def note_tags(
    run: Mapping[str, Any], metrics: Mapping[str, Any], figures: Iterable[str], run_id: str, tags: Mapping[str, str]
) -> dict[str, str]:
    """Returns the tags that make a run's description: its result as a table, its notes and its figures.

    Args:
        run: Content of run.json.
        metrics: Content of metrics.json; empty where there are none.
        figures: Paths of images among the run's artifacts.
        run_id: The run's id in MLflow.
        tags: The run's tags in MLflow so far.

    Returns:
        Empty where there is nothing to say, or a person has written a description.
    """
    found = tags.get(NOTE)
    if found is not None and _digest(found) != tags.get(_DIGEST):
        return {}
    parts = _sweep(run, metrics, run_id) if _is_sweep(run) else _result(metrics)
    parts += [f"- {_plain(warning)}" for warning in run.get("warnings") or []][:10]
    if not parts:
        return {}
    there = set(figures)
    images = [path for name in _IMAGES if (path := f"figures/{name}") in there]
    address = "get-artifact?path={}&run_uuid=" + run_id
    parts += ["", *(f"![{_plain(path)}]({address.format(quote(path))})" for path in images)]
    note = "\n".join(parts)[:MAX_TAG]
    return {NOTE: note, _DIGEST: _digest(note)}


def _views() -> dict[str, tuple[str, dict[str, Any]]]:
    """Views by key: name and what differs from the page's own state."""

    def with_interval(name: str) -> list[str]:
        return [_column("metrics", f"{name}{end}") for end in ("", "_ci_low", "_ci_high")]

    scores = [
        *with_interval("test/macro_f1"),
        _column("metrics", "test/n_records"),
        *with_interval("test/hard_pair_f1"),
        *with_interval("val/macro_f1"),
    ]
    # A mean of interval ends is no interval, so means stand alone; `spectro compare` gives intervals over seeds.
    means = [_column("metrics", f"test/{name}") for name in ("macro_f1", "n_records", "hard_pair_f1")]
    by_model = {
        "aggregateFunction": "average",
        "groupByKeys": [{"mode": "tag", "groupByData": name} for name in ("model", "stage")],
    }
    # Not by time: the page then lists a multirun's jobs at once, not folded away below their parent.
    by_name = {"orderByKey": "tags.`mlflow.runName`", "orderByAsc": True}
    ends = [f"trials/{state}" for state in ("complete", "pruned", "fail")]
    trials = [_column("metrics", name) for name in ("objective", "best", *ends)]
    evaluated = "metrics.`test/n_records` > 0"
    return {
        "results": ("Results", {**_state(scores, evaluated), **by_name}),
        "families": (
            "Families",
            {**_state([*means, _column("metrics", "val/macro_f1")], evaluated), **by_name, "groupBy": by_model},
        ),
        "searches": ("Searches", _state(trials, "tags.study LIKE '%'")),
    }


def _state(columns: Sequence[str], searched: str) -> dict[str, Any]:
    """The page's state with these runs and columns, in this order and wide enough for their names."""
    name = _column("attributes", "Run Name")
    return {
        "searchFilter": searched,
        "selectedColumns": list(columns),
        "columnOrder": [name, _column("attributes", "Created"), *columns],
        "columnWidths": {name: 320, **{column: max(110, 8 * len(column) - 40) for column in columns}},
    }


def _column(kind: str, name: str) -> str:
    return f"{kind}.`{name}`"


def _is_sweep(run: Mapping[str, Any]) -> bool:
    return (run.get("tags") or {}).get("sweep") == "true"


def _result(metrics: Mapping[str, Any]) -> list[str]:
    """The table of a run's result: rows are scores, columns the splits; every score with interval and records."""
    whole = {split: metrics[split] for split in _SPLITS if "n_records" in (metrics.get(split) or {})}
    if not whole:
        return []
    rows: list[Sequence[str]] = []
    for key, metric in METRICS.items():
        if any(table.get(key) is not None for table in whole.values()):
            rows.append([_plain(metric.label), *(_score(table, key, table["n_records"]) for table in whole.values())])
    for stage, splits in (metrics.get("stages") or {}).items():
        tables = [splits.get(split) or {} for split in whole]
        rows.append(
            [f"stage {_plain(stage)}: macro-F1", *(_score(t, "macro_f1", t.get("n_records", 0)) for t in tables)]
        )
    for label in dict.fromkeys(label for table in whole.values() for label in table.get("per_class") or {}):
        own = [(table.get("per_class") or {}).get(label) or {} for table in whole.values()]
        rows.append([f"recall of {_plain(label)}", *(_score(row, "recall", row.get("support", 0)) for row in own)])
    return [*_table(["", *whole], rows), "", "In brackets: 95 % intervals; n: records.", ""]


def _sweep(run: Mapping[str, Any], metrics: Mapping[str, Any], run_id: str) -> list[str]:
    """What a search is about, and how far it has come."""
    config = run.get("config") or {}
    told = [f"A search for the best `{config.get('objective')}`. Below this run: its trials, and the best once more."]
    trials = metrics.get("trials") or {}
    if trials:
        ends = ", ".join(f"{trials[state]} {state}" for state in ("complete", "pruned", "fail") if trials.get(state))
        told += ["", f"{trials['all']} trials: {ends}; the best reached {format_number(metrics.get('best'))}."]
    searched = [[f"`{key}`", _plain(text)] for key, text in _leaves(config.get("search") or {})]
    return [*told, "", *_table(["searched", "in"], searched)] if searched else told


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [_row(head), _row(["---"] * len(head))]
    size = 0
    for row in rows:
        size += len(line := _row(row)) + 1
        if size > _MAX_TABLE:
            return [*lines, _row(["more in metrics.json", *[""] * (len(head) - 1)])]
        lines.append(line)
    return lines


def _row(cells: Sequence[str]) -> str:
    # The page sets tables without any room between columns.
    return f"| {' | '.join(cell + '&emsp;' * (set(cell) != {'-'}) for cell in cells)} |"


def _score(table: Mapping[str, Any], key: str, records: int) -> str:
    return f"{format_number(table.get(key), table.get(f'{key}_ci_low'), table.get(f'{key}_ci_high'))} n={records}"


def _plain(text: str) -> str:
    """Text that markdown leaves as it is."""
    return re.sub(r"([\\`*_{}\[\]()#+!|~])", r"\\\1", html.escape(text.replace("\n", " "), quote=False))


def _digest(note: str) -> str:
    return hashlib.sha256(note.encode()).hexdigest()[:16]

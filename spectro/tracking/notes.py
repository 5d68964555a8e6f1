"""Descriptions of runs on MLflow's pages, as markdown. Imports no mlflow."""

import hashlib
import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from spectro.evaluation import METRICS
from spectro.evaluation.format import format_number
from spectro.paths import flatten
from spectro.tracking.values import MAX_TAG

NOTE = "mlflow.note.content"
# A digest of the description as it was written: one that a person has changed since is left alone.
_DIGEST = "mlflow.note.spectro"
_SPLITS = ("test", "cv", "val")
# A description is one tag; the table of a run with very many classes is in its figures and files as well.
_MAX_TABLE = 5000
# Wide figures, such as the wrong records, would push the page's other column off the screen.
_IMAGES = ("confusion_test.png", "recall.png", "learning_curves.png", "optimization_history.png")


def note_tags(
    run: Mapping[str, Any], metrics: Mapping[str, Any], figures: Iterable[str], run_id: str, tags: Mapping[str, str]
) -> dict[str, str]:
    """The tags that make a run's description: its result as a table, its warnings and its figures.

    Args:
        run: Content of run.json.
        metrics: Content of metrics.json; empty where there are none.
        figures: Paths of images among the run's artifacts.
        run_id: The run's id in MLflow.
        tags: The run's tags in MLflow so far.

    Returns:
        Empty where there is no result, or a person has written a description.
    """
    present = tags.get(NOTE)
    if present is not None and _digest(present) != tags.get(_DIGEST):
        return {}
    parts = _sweep(run, metrics) if (run.get("tags") or {}).get("sweep") == "true" else _result(metrics)
    parts += [f"- {_plain(warning)}" for warning in run.get("warnings") or []][:10]
    if not parts:
        return {}
    there = set(figures)
    images = [path for name in _IMAGES if (path := f"figures/{name}") in there]
    address = "get-artifact?path={}&run_uuid=" + run_id
    parts += ["", *(f"![{_plain(path)}]({address.format(quote(path))})" for path in images)]
    note = "\n".join(parts)[:MAX_TAG]
    return {NOTE: note, _DIGEST: _digest(note)}


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
        columns = [(table.get("per_class") or {}).get(label) or {} for table in whole.values()]
        rows.append([f"recall of {_plain(label)}", *(_score(row, "recall", row.get("support", 0)) for row in columns)])
    return [*_table(["", *whole], rows), "", "In brackets: 95 % intervals; n: records.", ""]


def _sweep(run: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[str]:
    """The objective, the trials and the space of a search."""
    config, trials = run.get("config") or {}, metrics.get("trials") or {}
    lines = [f"A search for the best `{config.get('objective')}`; below this run are its trials and its final run."]
    if trials:
        ends = ", ".join(f"{trials[state]} {state}" for state in ("complete", "pruned", "fail") if trials.get(state))
        lines += ["", f"{trials['all']} trials: {ends}; the best reached {format_number(metrics.get('best'))}."]
    rows = [[f"`{key}`", _plain(str(text))] for key, text in flatten(config.get("search") or {}).items()]
    return [*lines, "", *_table(["searched", "in"], rows)] if rows else lines


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

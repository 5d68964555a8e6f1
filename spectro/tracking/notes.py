"""Descriptions of runs on MLflow's pages, as markdown. Imports no mlflow."""

import hashlib
import html
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any
from urllib.parse import quote

from spectro.evaluation import METRICS
from spectro.evaluation.format import format_number, markdown_table
from spectro.paths import flatten
from spectro.tracking.values import MAX_TAG

NOTE = "mlflow.note.content"
# A digest of the description as it was written: one that a person has changed since is left alone.
_DIGEST = "mlflow.note.spectro"
_SPLITS = ("test", "cv", "val")
# A description is one tag; the table of a run with very many classes is in its figures and files as well.
_MAX_TABLE = 5000
# Wide figures, such as the wrong records, would push the page's other column off the screen.
_IMAGES = ("confusion_test.png", "recall.png", "learning_curves.png", "optimization_history.png", "scores.png")


def note_tags(
    run: Mapping[str, Any],
    metrics: Mapping[str, Any],
    figures: Iterable[str],
    run_id: str,
    tags: Mapping[str, str],
    summary: str = "",
) -> dict[str, str]:
    """The tags that make a run's description: its result as a table, its warnings and its figures.

    ``figures`` are paths of images among the run's artifacts, ``tags`` those that it has in MLflow so far. ``summary``
    is Markdown of a comparison: its verdict and its first table.

    Returns:
        Empty where there is no result, or a person has written a description.
    """
    present = tags.get(NOTE)
    if present is not None and _digest(present) != tags.get(_DIGEST):
        return {}
    if run["tags"].get("kind") == "comparison":
        parts = [summary]
    else:
        parts = _sweep(run["config"], metrics) if run["tags"].get("sweep") == "true" else result_table(metrics)
    parts += [f"- {_plain(warning)}" for warning in run["warnings"][:10]]
    if not any(parts):
        return {}
    images = [path for name in _IMAGES if (path := f"figures/{name}") in set(figures)]
    parts += ["", *(f"![{_plain(path)}](get-artifact?path={quote(path)}&run_uuid={run_id})" for path in images)]
    note = "\n".join(parts)[:MAX_TAG]
    return {NOTE: note, _DIGEST: _digest(note)}


def result_table(metrics: Mapping[str, Any]) -> list[str]:
    """Lines of a table of a run's result: rows are scores, columns splits; every score with interval and records."""
    whole = {split: metrics[split] for split in _SPLITS if split in metrics}
    if not whole:
        return []
    rows = [
        [_plain(metric.label), *(_score(report, key) for report in whole.values())]
        for key, metric in METRICS.items()
        if any(report.get(key) is not None for report in whole.values())
    ]
    for stage, reports in metrics["stages"].items():
        of_splits = (reports.get(split, {}) for split in whole)
        rows.append([f"stage {_plain(stage)}: macro-F1", *(_score(report, "macro_f1") for report in of_splits)])
    for label in next(iter(whole.values()))["per_class"]:
        of_class = (report["per_class"][label] for report in whole.values())
        rows.append([f"recall of {_plain(label)}", *(_score(scores, "recall", "support") for scores in of_class)])
    return [_table(["", *whole], rows), "", "In brackets: 95 % intervals; n: records.", ""]


def _sweep(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[str]:
    """The objective, the trials and the space of a search."""
    lines = [f"A search for the best `{config['objective']}`; below this run are its trials and its final run.", ""]
    if metrics:
        trials = metrics["trials"]
        ends = ", ".join(f"{trials[state]} {state}" for state in ("complete", "pruned", "fail") if trials[state])
        lines += [f"{trials['all']} trials: {ends}."]
        if metrics["best"] is not None:
            lines += [f"The best is trial {metrics['best_trial']}: {format_number(metrics['best'])}."]
        if final := metrics["final"]:
            lines += [f"Fitted again it reaches macro-F1 {_score(final, 'macro_f1')} on test.", ""]
    best = metrics.get("best_settings", {})
    searched = {key: [f"`{key}`", _plain(str(text))] for key, text in flatten(config["search"]).items()}
    rows = [[*row, _plain(best.get(key, ""))] for key, row in searched.items()]
    rows += [[f"`{key}`", "", _plain(value)] for key, value in best.items() if key not in searched]
    return [*lines, "", _table(["searched", "in", "best"], rows)]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    # The page sets tables without any room between columns.
    spaced = [[f"{cell}&emsp;" for cell in row] for row in rows]
    sizes = accumulate(len(" | ".join(row)) for row in spaced)
    shown = [row for row, size in zip(spaced, sizes, strict=True) if size <= _MAX_TABLE]
    if len(shown) < len(rows):
        shown.append(["more in metrics.json", *[""] * (len(head) - 1)])
    return markdown_table([f"{cell}&emsp;" for cell in head], shown)


def _score(report: Mapping[str, Any], key: str, records: str = "n_records") -> str:
    score = format_number(report.get(key), report.get(f"{key}_ci_low"), report.get(f"{key}_ci_high"))
    return f"{score} n={report.get(records, 0)}"


def _plain(text: str) -> str:
    """Text that markdown leaves as it is."""
    return re.sub(r"([\\`*_{}\[\]()#+!|~])", r"\\\1", html.escape(text.replace("\n", " "), quote=False))


def _digest(note: str) -> str:
    return hashlib.sha256(note.encode()).hexdigest()[:16]

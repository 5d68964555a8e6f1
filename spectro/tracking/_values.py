"""What a run directory has to say, in the names and values that MLflow takes. Imports no mlflow."""

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

MAX_NAME, MAX_LABEL, MAX_PARAM, MAX_TAG = 250, 100, 6000, 8000  # characters; a metric's name holds up to two labels
_CUT = " ... [cut]"


def safe_name(label: str, *, limit: int = MAX_LABEL, digits: int = 8) -> str:
    """Returns `label` if MLflow takes it as one part of a name, else a readable form of it plus a hash.

    MLflow takes letters and digits of any script, `_ - . : space`, and no part that a path would resolve away.

    Args:
        label: Any text.
        limit: Most characters of the result.
        digits: Length of the hash in hexadecimal digits.
    """
    if len(label) <= limit and re.fullmatch(r"[\w.\- :]+", label) and label != "." and label[:2] != "..":
        return label
    digest = hashlib.sha256(label.encode("utf-8", "surrogatepass")).hexdigest()[:digits]
    readable = re.sub(r"^\.\.|[^\w.\- :]", "_", label)[: limit - digits - 1]
    return f"{readable}-{digest}"


def safe_names(labels: Iterable[str], *, limit: int = MAX_LABEL) -> dict[str, str]:
    """Maps every label to a name that MLflow takes; no two labels share a name, valid labels keep theirs.

    The result depends on the set of labels only, so that a resend finds the names of the first sending.
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    # Valid labels first: one of them may look like the mangled form of another label, and must not move.
    for label in sorted(set(labels), key=lambda text: (safe_name(text, limit=limit) != text, text)):
        digits = 8
        while (name := safe_name(label, limit=limit, digits=digits)) in taken:
            digits += 8
        names[label] = name
        taken.add(name)
    return names


def flatten_metrics(metrics: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, float]:
    """Turns metrics.json and run.json into MLflow metrics: `<split>/<metric>`, `<split>/<metric>/<class>`.

    Stages stand in front (`hard/test/macro_f1`). What is null or not finite is left out, and so is the support of
    single classes.

    Args:
        metrics: Content of metrics.json.
        run: Content of run.json, for `wall_s/<phase>` (seconds), `peak_memory_mb`, and for networks
            `<stage>/parameters/trainable` and `total`, `<stage>/epochs` and `best_epoch`.
    """
    found: dict[tuple[str, ...], float] = {}

    def add(parts: tuple[str, ...], value: Any) -> None:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            found[parts] = float(value)

    def add_splits(prefix: tuple[str, ...], splits: Mapping[str, Any]) -> None:
        for split, table in splits.items():
            if not isinstance(table, dict):
                add((*prefix, split), table)
            elif split != "stages":
                for key, value in table.items():
                    add((*prefix, split, key), value)
                for label, row in (table.get("per_class") or {}).items():
                    for key in row.keys() - {"support"}:
                        add((*prefix, split, key, label), row[key])

    add_splits((), metrics)
    for stage, splits in (metrics.get("stages") or {}).items():
        add_splits(tuple(stage.split("/", 1)), splits)
    for phase, seconds in (run.get("wall_s") or {}).items():
        add(("wall_s", phase), seconds)
    add(("peak_memory_mb",), run.get("peak_memory_mb"))
    for stage, network in (run.get("networks") or {}).items():
        for key in ("trainable", "total"):
            add((*stage.split("/", 1), "parameters", key), network["parameters"][key])
        for key in ("epochs", "best_epoch"):
            add((*stage.split("/", 1), key), network.get(key))
    names = safe_names(part for parts in found for part in parts)
    return {"/".join(names[part] for part in parts): value for parts, value in sorted(found.items())}


def flatten_params(config: Mapping[str, Any]) -> dict[str, str]:
    """Turns a nested config into MLflow parameters: `{"svm": {"C": 1}}` gives `{"svm.C": "1"}`.

    Text stays as it is, everything else is compact JSON (None is `null`); long values are cut with a visible mark.
    """

    def walk(prefix: str, node: Any) -> Iterator[tuple[str, str]]:
        if isinstance(node, dict) and (node or not prefix):
            for key, value in node.items():
                # A key with a dot is quoted, or {"a.b": 1} and {"a": {"b": 1}} would meet.
                part = json.dumps(key, ensure_ascii=False) if not key or re.search(r'[."]', key) else key
                yield from walk(f"{prefix}.{part}" if prefix else part, value)
        else:
            text = node if isinstance(node, str) else json.dumps(node, ensure_ascii=False, separators=(",", ":"))
            yield prefix, cut(text, MAX_PARAM)

    values = dict(walk("", config))
    names = safe_names(values, limit=MAX_NAME)
    return {names[key]: value for key, value in values.items()}


def read_history(path: Path) -> list[tuple[str, float, int]]:
    """Reads the learning curves of history.csv as (`[<stage>/]history/<column>`, value, epoch).

    Args:
        path: The file; one that is not there has no curves.
    """
    points: dict[tuple[tuple[str, ...], int], float] = {}
    with path.open(encoding="utf-8", newline="") if path.exists() else io.StringIO() as file:
        for row in csv.DictReader(file):
            place = tuple(text for text in (row.pop("stage", None), row.pop("fold", None)) if text)
            epoch = _number(row.pop("epoch", None))
            for column, text in row.items():
                if epoch is not None and column is not None and (value := _number(text)) is not None:
                    points[(*place, "history", column), int(epoch)] = value
    names = safe_names(part for parts, _ in points for part in parts)
    return [("/".join(names[part] for part in parts), value, epoch) for (parts, epoch), value in points.items()]


def tags_of(run: Mapping[str, Any]) -> dict[str, str]:
    """Returns the tags of a run as MLflow takes them, with those that its UI reads."""
    tags = {"mlflow.source.name": "train.py", "mlflow.source.type": "LOCAL", **(run.get("tags") or {})}
    tags.setdefault("mlflow.source.git.commit", tags.get("git_commit"))
    return {key: cut(str(value), MAX_TAG) for key, value in tags.items() if value is not None}


def cut(text: str, limit: int) -> str:
    """Shortens `text` to `limit` characters, visibly."""
    return text if len(text) <= limit else text[: limit - len(_CUT)] + _CUT


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None

"""Run directories in the names and values that MLflow takes. Imports no mlflow."""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from spectro.files import read_csv
from spectro.paths import flatten

MAX_NAME, MAX_LABEL, MAX_PARAM, MAX_TAG = 250, 100, 6000, 8000  # characters; a metric's name holds up to two labels
_CUT = " ... [cut]"
# Decimals of metrics: MLflow's tables show every digit there is, and metrics.json has all of them.
_DIGITS = 4
# The sections of run.json whose numbers are metrics, such as ``wall_s/fit``.
_SECTIONS = ("wall_s", "peak_memory_mb", "cost", "temperature")


def flatten_metrics(metrics: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, float]:
    """Every number of metrics.json and of some sections of run.json as an MLflow metric.

    Names are ``<split>/<metric>`` and ``<split>/<metric>/<class>``, with a stage before the split:
    ``hard/test/macro_f1``. Facts of networks are named by their stages: ``easy/parameters/trainable``. Null and
    infinite values and the support of single classes are left out. Values have four decimals.
    """
    values = dict(_numbers({**metrics, "stages": None, **{key: run[key] for key in _SECTIONS}}))
    for stages in (metrics.get("stages", {}), run["networks"]):
        for stage, content in stages.items():
            values |= dict(_numbers(content, *stage.split("/", 1)))
    return {"/".join(map(safe_name, path)): value for path, value in sorted(values.items())}


def _numbers(node: Any, *path: str) -> Iterator[tuple[tuple[str, ...], float]]:
    """The finite numbers below a node with their paths; those of a class have the class last."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key != "per_class":
                yield from _numbers(value, *path, key)
        for label, row in node.get("per_class", {}).items():
            for key in row.keys() - {"support"}:
                yield from _numbers(row[key], *path, key, label)
    elif isinstance(node, int | float) and not isinstance(node, bool) and math.isfinite(node):
        yield path, round(float(node), _DIGITS)


def flatten_params(config: Mapping[str, Any]) -> dict[str, str]:
    """A nested configuration as MLflow parameters: ``{"svm": {"C": 1}}`` gives ``{"svm.C": "1"}``.

    Text stays as it is, everything else is compact JSON (None is ``null``); long values are cut with a visible mark.
    """

    def text(value: Any) -> str:
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))

    return {safe_name(key, limit=MAX_NAME): cut(text(value), MAX_PARAM) for key, value in flatten(config).items()}


def read_history(path: Path) -> list[tuple[str, float, int]]:
    """The learning curves of history.csv: ``<stage>/history/<column>``, value, epoch. Empty without the file."""
    return [
        (f"{safe_name(row['stage'])}/history/{safe_name(column)}", float(text), int(row["epoch"]))
        for row in (read_csv(path) if path.exists() else [])
        for column, text in row.items()
        if column not in ("stage", "epoch", "best") and text and math.isfinite(float(text))
    ]


def tags_of(tags: Mapping[str, str | None]) -> dict[str, str]:
    """The tags of a run as MLflow takes them, with those that its pages read; None is left out."""
    shown = {"mlflow.source.name": "train.py", "mlflow.source.type": "LOCAL", **tags}
    shown.setdefault("mlflow.source.git.commit", tags.get("git_commit"))
    return {key: cut(value, MAX_TAG) for key, value in shown.items() if value is not None}


def safe_name(label: str, *, limit: int = MAX_LABEL) -> str:
    """The label if MLflow takes it as one part of a name of ``limit`` characters, else a readable form plus a hash.

    MLflow takes letters and digits of any script, `_ - . : space`, and no part that a path would resolve away. The hash
    holds names apart that read the same.
    """
    if len(label) <= limit and re.fullmatch(r"[\w.\- :]+", label) and label != "." and label[:2] != "..":
        return label
    digest = hashlib.sha256(label.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    readable = re.sub(r"^\.\.|[^\w.\- :]", "_", label)[: limit - len(digest) - 1]
    return f"{readable}-{digest}"


def cut(text: str, limit: int) -> str:
    """Text of at most ``limit`` characters, cut visibly."""
    return text if len(text) <= limit else text[: limit - len(_CUT)] + _CUT

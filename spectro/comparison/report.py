"""``report.html``: one page that needs nothing besides itself, for a desk and for a phone."""

import base64
import io
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from spectro.comparison import tables
from spectro.comparison.gather import ATTRIBUTION
from spectro.comparison.look_alikes import OTHER, LookAlikes
from spectro.comparison.result import Result, Wrong

# So many records that all get wrong are shown.
MAX_SHOWN = 48
_TEMPLATE = "report.html.jinja"


def shown_wrong(result: Result) -> list[Wrong]:
    """The records that every model gets wrong, as far as they are shown: the likeliest label errors first."""
    return list(result.wrong[:MAX_SHOWN])


def page(
    result: Result,
    figures: Mapping[str, Path],
    thumbnails: Mapping[str, np.ndarray],
    no_images: str | None,
    info: Mapping[str, Any],
) -> str:
    """The page.

    Args:
        result: What was found.
        figures: Name -> PNG file.
        thumbnails: Path of a record -> image, uint8 (H, W, 3).
        no_images: Why there are none.
        info: The comparison's ``run.json``.

    Returns:
        HTML; every text in it is escaped.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    first = result.runs[0]
    data = first.info["data"]
    folds = any(pair.folds for pair in (*result.between, *result.against))
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(_TEMPLATE).render(
        result=result,
        verdict=result.verdict,
        info=info,
        title=f"Comparison of {', '.join(one.name for one in result.models)}",
        data_name=data["name"],
        data_root=data.get("root") or "place unknown",
        fingerprint=first.fingerprint,
        mapping=info["tags"]["mapping"],
        stages=", ".join(dict.fromkeys(run.stage for run in result.runs)),
        n=len(result.contenders[0].rows),
        support={label: own["support"] for label, own in result.scores[result.contenders[0].name].recall.items()},
        training=(data.get("records") or {}).get("train", {}),
        made_at=f"{datetime.fromtimestamp(info['started_at']):%Y-%m-%d %H:%M}",
        line_names=[one.name for one in result.lines],
        figures={name: _png(path) for name, path in figures.items()},
        thumbnails={path: _jpeg(image) for path, image in thumbnails.items()},
        no_images=f"Their images cannot be shown: {no_images}.",
        wrong_shown=shown_wrong(result),
        attribution=_attribution(result),
        scores=tables.scores_table(result),
        recall=tables.recall_table(result),
        between=tables.pairs_table(result.between) if result.between else None,
        against=tables.pairs_table(result.against) if result.against else None,
        folds=folds,
        confusions=[_confusion(own) for own in result.look_alikes],
        cost=tables.cost_table(result),
        runs=_runs(result),
        settings=_settings(result),
        versions=_versions(result),
    )


def _png(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _jpeg(image: np.ndarray) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _attribution(result: Result) -> dict[str, str]:
    """The attribution images of the first seed of each contender that has them."""
    found = {}
    for one in result.contenders:
        for run in one.runs:
            path = run.folder / ATTRIBUTION.format(split=result.split)
            if path.is_file():
                found[f"{one.name}, seed {run.seed}"] = _png(path)
                break
    return found


def _confusion(own: LookAlikes) -> tables.Table:
    """One row for each contender and true class."""
    rows = []
    for name, counts in own.confusion.items():
        rows += [[name, label, *map(str, row)] for label, row in zip(own.members, counts, strict=True)]
    return ["", "true", *(f"called {label}" for label in own.members), f"called {OTHER}"], rows


def _runs(result: Result) -> tables.Table:
    rows: list[list[str]] = []
    for one in result.contenders:
        for run in one.runs:
            macro_f1 = result.scores[one.name].averages["macro_f1"].values[list(one.runs).index(run)]
            commit = str(run.info.get("git_commit") or "unknown")
            short_commit = commit[:9] + ("-dirty" if commit.endswith("-dirty") else "")
            rows.append([one.name, str(run.seed), f"{macro_f1:.2f}", run.origin, short_commit])
    return ["", "seed", "macro-F1", "run", "commit"], rows


def _settings(result: Result) -> tables.Table:
    names = [one.name for one in result.contenders if one.runs]
    rows = [[key, *(own.get(name, "–") for name in names)] for key, own in result.settings.items()]
    return ["", *names], rows


def _versions(result: Result) -> tables.Table:
    """Versions that were used, each with the contenders that used it."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for one in result.contenders:
        for run in one.runs:
            for name, version in (run.info.get("versions") or {}).items():
                found.setdefault((name, str(version)), {})[one.name] = None
    everyone = {one.name for one in result.contenders if one.runs}
    rows = [
        [name, version, "all" if set(users) == everyone else ", ".join(users)]
        for (name, version), users in sorted(found.items())
    ]
    return ["", "version", "in"], rows

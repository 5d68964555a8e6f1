"""The page of a comparison, ``report.html``, and its figures."""

import base64
import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from spectro.comparison.report import scores_table, sections
from spectro.comparison.statistics import Result
from spectro.comparison.verdict import verdict
from spectro.data import Dataset
from spectro.figures.comparison import estimates_figure, pair_figure
from spectro.runs.runinfo import RunInfo
from spectro.runs.task import SHOW

# So many records that all get wrong are shown with their images.
MAX_SHOWN = 48


def draw(result: Result, folder: Path) -> dict[str, Path]:
    """Draws the figures into a folder: ``scores``, ``recall``, and ``pair_<number>`` for each pair of look-alikes."""
    on = f"{result.split} of {result.runs[0].data.name}"
    baselines = [model.name for model in result.models if model.is_baseline]
    recalls = {f"recall/{label}": f"{label}  (n={n})" for label, n in result.support.items()}
    figures = {name: folder / f"{name}.png" for name in ("scores", "recall")}
    for (name, path), labels, interval in zip(figures.items(), (result.metrics, recalls), ("", "Wilson "), strict=True):
        axis = f"{name.rstrip('s')}, 95 % {interval}interval; |: a seed"
        blocks = {
            label: {model: scores.get(key) for model, scores in result.scores.items()} for key, label in labels.items()
        }
        estimates_figure(blocks, path, f"{name.capitalize()} on {on}", baselines=baselines, axis=axis)
    for number, group in enumerate(result.look_alikes):
        if group.curves:
            path = figures[f"pair_{number}"] = folder / f"pair_{number}.png"
            pair_figure(group.curves, path, f"{' or '.join(group.members)} on {on}", positive=group.members[1])
    return figures


def page(result: Result, info: RunInfo, figures: Mapping[str, Path], dataset: Dataset | None) -> str:
    """``report.html``: one page that needs no other file.

    Args:
        result: The comparison.
        info: The content of its ``run.json``.
        figures: Name -> PNG file.
        dataset: The data set, for images of records; None if there is none.

    Returns:
        HTML; every text in it is escaped.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("report.html.jinja").render(
        result=result,
        verdict=verdict(result),
        info=info,
        title=f"Comparison of {', '.join(model.name for model in result.candidates)}",
        data=result.runs[0].data,
        stages=", ".join(dict.fromkeys(run.info.config["cascade_stage"]["name"] for run in result.runs)),
        made_at=f"{datetime.fromtimestamp(info.started_at):%Y-%m-%d %H:%M}",
        baselines=[model.name for model in result.models if model.is_baseline],
        scores=scores_table(result),
        sections=sections(result),
        figures={name: _source("png", path.read_bytes()) for name, path in figures.items()},
        wrong=result.wrong[:MAX_SHOWN],
        thumbnails=_thumbnails(dataset, [record.path for record in result.wrong[:MAX_SHOWN]]),
    )


def _source(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _thumbnails(dataset: Dataset | None, paths: Sequence[str]) -> dict[str, str]:
    """Images of records by path; empty without the data set."""
    from PIL import Image

    if dataset is None or not paths:
        return {}
    record_of = {dataset.name_of(record): record for record in dataset.records}
    thumbnails = {}
    for path, pixels in zip(paths, dataset.images([record_of[path] for path in paths]).pixels(SHOW), strict=True):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
        thumbnails[path] = _source("jpeg", buffer.getvalue())
    return thumbnails

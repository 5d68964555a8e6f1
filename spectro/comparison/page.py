"""The page of a comparison, ``report.html``, and its figures."""

import base64
import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from spectro.comparison.report import scores_table, sections
from spectro.comparison.statistics import Result, WrongRecord
from spectro.comparison.verdict import verdict
from spectro.data import Dataset
from spectro.evaluation.curves import PairCurves
from spectro.evaluation.format import format_number
from spectro.evaluation.metrics import METRICS
from spectro.evaluation.paired import axis_start
from spectro.figures.evaluation import scores_figure
from spectro.figures.style import COLOURS
from spectro.paths import cut, typed
from spectro.runs.runinfo import RunInfo

# So many records that all get wrong are shown with their images, whose longer side has at most so many pixels.
MAX_SHOWN = 48
_SIDE_PX = 320
# Dashes of the lines that have the same colour, in pixels.
_DASHES = ("", "6 4", "2 3")


def draw(result: Result, path: Path) -> None:
    """Draws the scores into a PNG file."""
    label = METRICS["macro_f1"].label
    baselines = [model.name for model in result.models if model.is_baseline]
    scores = {model.name: result.scores[model.name]["macro_f1"] for model in result.ranked}
    title = f"{label} on {result.split} of {result.runs[0].data.name}, {result.n_records} records"
    scores_figure(scores, path, title, axis=f"{label}, 95 % interval; |: a seed", baselines=baselines)


def page(result: Result, info: RunInfo, dataset: Dataset | None) -> str:
    """``report.html``: one page that needs no other file, with images of records where there is a data set.

    Every text in it is escaped.
    """
    usable = [model for model in result.ranked if model.runs]
    n = len(COLOURS)
    styles = {model.name: (COLOURS[i % n], _DASHES[i // n % 3]) for i, model in enumerate(usable)}
    wrong = result.wrong[:MAX_SHOWN]
    return render(
        Path(__file__).with_name("report.html.jinja"),
        result=result,
        verdict=verdict(result),
        info=info,
        title=f"Which model for {result.runs[0].data.name}?",
        data=result.runs[0].data,
        mappings=", ".join(dict.fromkeys(str(run.info.config["mapping"]["name"]) for run in result.runs)),
        stages=", ".join(dict.fromkeys(run.info.config["cascade_stage"]["name"] for run in result.runs)),
        made_at=f"{datetime.fromtimestamp(info.started_at):%Y-%m-%d %H:%M}",
        baselines=[model.name for model in result.models if model.is_baseline],
        usable=usable,
        styles=styles,
        low=axis_start(scores["macro_f1"] for scores in result.scores.values()),
        scores=scores_table(result),
        sections=sections(result),
        curves=[[_lines(name, c) for name, c in group.curves.items()] for group in result.look_alikes],
        wrong=[(record, _by_label(record)) for record in wrong],
        thumbnails=_thumbnails(dataset, [record.path for record in wrong]),
    )


def _lines(name: str, curves: PairCurves) -> dict[str, Any]:
    """The curves of a model as the points of SVG lines on a square of 240 pixels, and their areas."""
    recall, precision = curves.precision_recall
    # Steps, as the average precision is the area below steps: straight lines would promise more.
    steps = np.repeat(recall, 2)[1:], np.repeat(precision, 2)[:-1]
    lines = {
        key: " ".join(f"{240 * x:.1f},{240 * (1 - y):.1f}" for x, y in zip(*points, strict=True))
        for key, points in (("roc", curves.roc), ("precision_recall", steps))
    }
    areas = (curves.auc, *curves.auc_ci), (curves.average_precision, *curves.average_precision_ci)
    return {"name": name, **lines, "areas": [format_number(*area) for area in areas]}


def _by_label(record: WrongRecord) -> dict[str, list[str]]:
    """Predicted label -> the models that predict it, with their probabilities."""
    models: dict[str, list[str]] = {}
    for name, (label, p) in record.predicted.items():
        models.setdefault(label, []).append(f"{name} {p:.2f}")
    return models


def _thumbnails(dataset: Dataset | None, paths: Sequence[str]) -> Mapping[str, str]:
    """Cropped images of records by path, in their shape; empty without the data set."""
    if dataset is None or not paths:
        return {}
    record_of = {dataset.name_of(record): record for record in dataset.records}
    return {path: data_uri(dataset.store.thumbnail(record_of[path].digest, _SIDE_PX)) for path in paths}


def data_uri(pixels: np.ndarray) -> str:
    """An image, uint8 (h, w, 3), as a ``data:`` address."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def render(template: Path, **content: Any) -> str:
    """A page of one file in which every text is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(template.parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters |= {"number": format_number, "cut": cut, "typed": typed}
    return environment.get_template(template.name).render(**content)

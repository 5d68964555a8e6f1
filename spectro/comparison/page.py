"""The page of a comparison, ``report.html``, and its figures."""

import base64
import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from spectro.comparison.load import ATTRIBUTION
from spectro.comparison.report import sections
from spectro.comparison.statistics import Result
from spectro.comparison.verdict import verdict
from spectro.evaluation import METRICS
from spectro.evaluation.paired import Estimate
from spectro.figures.comparison import estimates_figure, pair_figure
from spectro.runs.runinfo import RunInfo
from spectro.runs.task import SHOW, Task

# So many records that all get wrong are shown with their images.
MAX_SHOWN = 48


def draw(result: Result, folder: Path) -> dict[str, Path]:
    """Draws the figures into a folder: ``scores``, ``recall``, and ``pair_<number>`` for each pair of look-alikes."""
    on = f"{result.split} of {result.runs[0].data.name}"
    baselines = [model.name for model in result.models if model.is_baseline]
    of_models = {model.name: result.scores[model.name] for model in result.models}
    blocks: dict[str, dict[str, Estimate | None]] = {}
    for name, metric in METRICS.items():
        if any(name in scores.metrics for scores in of_models.values()):
            blocks[metric.label] = {model: scores.metrics.get(name) for model, scores in of_models.items()}
    for merged, estimates in result.scores[result.models[0].name].look_alikes.items():
        for name in estimates:
            of = {model: scores.look_alikes[merged].get(name) for model, scores in of_models.items()}
            blocks[f"{METRICS[name].label} of {merged}"] = of
    recalls = {
        f"{label}  (n={n})": {model: scores.recall.get(label) for model, scores in of_models.items()}
        for label, n in result.support.items()
    }
    axes = {"scores": "score, 95 % interval; |: a seed", "recall": "recall, 95 % Wilson interval; |: a seed"}
    figures = {
        name: estimates_figure(
            of_blocks, folder / f"{name}.png", f"{name.capitalize()} on {on}", baselines=baselines, axis=axes[name]
        )
        for name, of_blocks in (("scores", blocks), ("recall", recalls))
    }
    for number, group in enumerate(result.look_alikes):
        if group.curves:
            title = f"{group.members[0]} or {group.members[1]} on {on}"
            path = folder / f"pair_{number}.png"
            figures[f"pair_{number}"] = pair_figure(group.curves, path, title, positive=group.members[1])
    return figures


def page(result: Result, info: RunInfo, figures: Mapping[str, Path], task: Task | None) -> str:
    """``report.html``: one page that needs no other file.

    Args:
        result: The comparison.
        info: The content of its ``run.json``.
        figures: Name -> PNG file.
        task: The data set, for images of records; None if there is none.

    Returns:
        HTML; every text in it is escaped.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    attribution: dict[str, str] = {}
    for model in result.models:
        for run in model.runs[:1]:
            path = run.info.folder / ATTRIBUTION.format(split=result.split)
            attribution |= {model.name: _png(path)} if path.is_file() else {}
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("report.html.jinja").render(
        result=result,
        verdict=verdict(result),
        info=info,
        title=f"Comparison of {', '.join(model.name for model in result.candidates)}",
        data=result.runs[0].data,
        stages=", ".join(dict.fromkeys(run.stage for run in result.runs)),
        made_at=f"{datetime.fromtimestamp(info.started_at):%Y-%m-%d %H:%M}",
        baselines=[model.name for model in result.models if model.is_baseline],
        sections=sections(result),
        figures={name: _png(path) for name, path in figures.items()},
        attribution=attribution,
        wrong=result.wrong[:MAX_SHOWN],
        thumbnails=_thumbnails(task, [record.path for record in result.wrong[:MAX_SHOWN]]),
    )


def _png(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _thumbnails(task: Task | None, paths: Sequence[str]) -> dict[str, str]:
    """Images of records by path; empty without the data set."""
    from PIL import Image

    if task is None or not paths:
        return {}
    record_of = {task.dataset.name_of(record): record for record in task.dataset.records}
    thumbnails = {}
    for path, pixels in zip(paths, task.dataset.images([record_of[path] for path in paths]).pixels(SHOW), strict=True):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
        thumbnails[path] = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return thumbnails

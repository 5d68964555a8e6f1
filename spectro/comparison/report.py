"""The tables of a comparison: as sections of the report, as Markdown and CSV, and on the terminal."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from spectro.comparison.models import Model, as_text, differing
from spectro.comparison.statistics import OTHER, LookAlikes, Result
from spectro.comparison.verdict import verdict
from spectro.evaluation import METRICS
from spectro.evaluation.format import DASH, format_amount, format_number, format_p, markdown_table, markdown_text
from spectro.evaluation.paired import Difference, Estimate
from spectro.paths import short

Table = tuple[list[str], list[list[str]]]


@dataclass(frozen=True)
class Section:
    """A section of the report: its tables and, by name, its figures. The template has a note for some keys."""

    key: str
    title: str
    tables: Sequence[Table]
    figures: Sequence[str] = ()


def sections(result: Result) -> list[Section]:
    """The sections of the report, but the records that all models predict wrong."""
    tests = [_pairs_table(result), _differences_table(result)] if result.between or result.against else []
    return [
        Section("scores", "Scores", [scores_table(result)], ["scores"]),
        Section("recall", "Recall of each class", [_recall_table(result)], ["recall"]),
        *([Section("tests", "Paired tests", tests)] if tests else []),
        *(
            Section("pair", f"Look-alikes {' and '.join(group.members)}", [_confusion_table(group)], [f"pair_{i}"])
            for i, group in enumerate(result.look_alikes)
        ),
        Section("cost", "Cost", [_cost_table(result)]),
        Section(
            "runs", "Runs, and settings and versions that differ", [_runs_table(result), *_settings_tables(result)]
        ),
    ]


def scores_table(result: Result) -> Table:
    """Every metric of every model with its interval."""
    metrics = _metrics(result)
    look_alikes = result.scores[result.models[0].name].look_alikes
    groups = [(group, name) for group, metrics_of_group in look_alikes.items() for name in metrics_of_group]
    labels = [f"{METRICS[name].label}{f' of {group}' * (len(look_alikes) > 1)}" for group, name in groups]
    header = ["", "seeds", *(METRICS[name].label for name in metrics), *labels, "± seeds"]
    rows = []
    for model in result.models:
        scores = result.scores[model.name]
        cells = [_cell(scores.metrics.get(name)) for name in metrics]
        cells += [_cell(scores.look_alikes[group].get(name)) for group, name in groups]
        rows.append([model.name, _seeds(model), *cells, format_number(scores.metrics["macro_f1"].std_seeds)])
    return _without_empty_columns(header, rows)


def csv_table(result: Result) -> tuple[list[str], list[list[Any]]]:
    """Header and a row for each model, with all digits; what is not known is empty."""
    rows = []
    for model in result.models:
        scores = result.scores[model.name]
        row: dict[str, Any] = {
            "model": model.name,
            "role": "baseline" if model.is_baseline else "model",
            "split": result.split,
            "n_records": result.n_records,
            "seeds": " ".join(map(str, model.seeds)),
        }
        named = {**scores.metrics, **{f"recall/{label}": estimate for label, estimate in scores.recall.items()}}
        for group, estimates in scores.look_alikes.items():
            named |= {f"{name}/{group}": estimate for name, estimate in estimates.items()}
        for name, estimate in named.items():
            metric, _, of = name.partition("/")
            end = f"/{of}" if of else ""
            row |= {name: estimate.value, f"{metric}_ci_low{end}": estimate.ci_low}
            row |= {f"{metric}_ci_high{end}": estimate.ci_high, f"{metric}_std_seeds{end}": estimate.std_seeds}
        row |= {f"support/{label}": n for label, n in result.support.items()} | vars(model.cost)
        rows.append(row)
    header = list(dict.fromkeys(key for row in rows for key in row))
    return header, [["" if row.get(key) is None else row[key] for key in header] for row in rows]


def markdown(result: Result) -> str:
    """The sentences and every table."""
    summary = verdict(result)
    parts = [summary.headline]
    for lines in (summary.pairs, [*summary.cautions, *result.notes]):
        parts += ["\n".join(f"- {markdown_text(line)}" for line in lines)] if lines else []
    for section in sections(result):
        parts.append(f"## {markdown_text(section.title)}")
        for header, rows in section.tables:
            parts.append(markdown_table([*map(markdown_text, header)], [[*map(markdown_text, row)] for row in rows]))
    return "\n\n".join(parts) + "\n"


def show(result: Result, folder: Path) -> None:
    """Prints scores, verdict and where the report is.

    Args:
        result: The comparison.
        folder: The folder of the report.
    """
    console = Console(highlight=False)
    header, rows = scores_table(result)
    title = f"{result.split} of {result.runs[0].data.name}, {result.n_records} records"
    table = RichTable(title=escape(title), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    baselines = {model.name for model in result.models if model.is_baseline}
    # A terminal has room for these; the report has all metrics.
    columns = [0, 1, header.index(METRICS["macro_f1"].label), *range(2 + len(_metrics(result)), len(header))]
    for i in columns:
        table.add_column(escape(header[i]), justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(escape(row[i]) for i in columns), style="dim" if row[0] in baselines else None)
    console.print(table)
    summary = verdict(result)
    console.print(f"[bold]{escape(summary.headline)}[/bold]", soft_wrap=True)
    for line in summary.pairs:
        console.print(f"- {escape(line)}", soft_wrap=True)
    if result.wrong:
        records = f"{len(result.wrong)} record{'s' * (len(result.wrong) > 1)}"
        console.print(f"- Every model is wrong on {records}: label errors or hard ones, see the report", soft_wrap=True)
    for line in (*summary.cautions, *result.notes):
        console.print(f"[yellow]note:[/yellow] {escape(line)}", soft_wrap=True)
    console.print("[dim]95 % intervals over records and seeds; dim rows: baselines[/dim]", soft_wrap=True)
    console.print(f"report: {escape(shlex.quote(short(folder / 'report.html')))}", soft_wrap=True)


def _recall_table(result: Result) -> Table:
    rows = [
        [label, str(n), *(_cell(result.scores[model.name].recall.get(label)) for model in result.models)]
        for label, n in result.support.items()
    ]
    return ["class", "n", *(model.name for model in result.models)], rows


def _pairs_table(result: Result) -> Table:
    pairs = [*result.between, *result.against]
    header = ["", METRICS["macro_f1"].label, "p", "smallest detectable", "only first right", "only second right"]
    header += ["McNemar p", "over folds", "t-test p"]
    rows = []
    for pair in pairs:
        test = pair.folds.test if pair.folds else None
        rows.append(
            [
                f"{pair.a} − {pair.b}",
                str(pair.difference),
                format_p(pair.holm["difference"]),
                format_number(pair.smallest),
                str(pair.mcnemar.n_only_a),
                str(pair.mcnemar.n_only_b),
                format_p(pair.holm["mcnemar"]),
                format_number(test.mean, test.ci_low, test.ci_high, signed=True) if test else DASH,
                format_p(pair.holm["folds"]),
            ]
        )
    return _without_empty_columns(header, rows)


def _differences_table(result: Result) -> Table:
    names = [name for name in _metrics(result) if name != "macro_f1"]
    rows = [
        [f"{pair.a} − {pair.b}", *(_cell(pair.differences.get(name)) for name in names)]
        for pair in (*result.between, *result.against)
    ]
    return ["", *(METRICS[name].label for name in names)], rows


def _confusion_table(group: LookAlikes) -> Table:
    rows = [
        [name, label, *map(str, counts)]
        for name, matrix in group.confusion.items()
        for label, counts in zip(group.members, matrix, strict=True)
    ]
    return ["", "true", *(f"predicted {label}" for label in group.members), f"predicted {OTHER}"], rows


def _cost_table(result: Result) -> Table:
    names = ("fit_s", "trainable_parameters", "predict_records_per_s", "peak_memory_mb")
    rows = [[model.name, *(format_amount(getattr(model.cost, name)) for name in names)] for model in result.models]
    header = ["", "fit, s", "trained parameters", "records per s", "peak memory, MB"]
    return header, [row for row in rows if set(row[1:]) != {DASH}]


def _runs_table(result: Result) -> Table:
    rows = []
    for model in result.models:
        for run, macro_f1 in zip(model.runs, result.scores[model.name].metrics["macro_f1"].values, strict=False):
            commit = run.info.git_commit or "unknown"
            shown = commit[:9] + ("-dirty" if commit.endswith("-dirty") else "")
            rows.append([model.name, str(run.seed), format_number(macro_f1), run.origin, shown])
    return ["", "seed", METRICS["macro_f1"].label, "run", "commit"], rows


def _settings_tables(result: Result) -> list[Table]:
    """Settings and versions in which models differ, where they do."""
    models = [model for model in result.models if model.runs]
    settings = [dict(model.settings) for model in models]
    tables = []
    for values in (settings, [dict(model.runs[0].info.versions) for model in models]):
        keys = [key for key in differing(values) if key != "model.name"]
        if keys:
            rows = [[key, *(as_text(of_model.get(key, DASH)) for of_model in values)] for key in keys]
            tables.append((["", *(model.name for model in models)], rows))
    return tables


def _without_empty_columns(header: list[str], rows: list[list[str]]) -> Table:
    used = [i for i in range(len(header)) if any(row[i] != DASH for row in rows)]
    return [header[i] for i in used], [[row[i] for i in used] for row in rows]


def _cell(value: Estimate | Difference | None) -> str:
    return DASH if value is None else str(value)


def _metrics(result: Result) -> list[str]:
    """The metrics that some model has."""
    return list(dict.fromkeys(name for scores in result.scores.values() for name in scores.metrics))


def _seeds(model: Model) -> str:
    """The seeds of a model, consecutive ones shortened."""
    seeds = model.seeds
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}–{seeds[-1]}"
    return ", ".join(map(str, seeds)) or DASH

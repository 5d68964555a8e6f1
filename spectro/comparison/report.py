"""The tables of a comparison: as sections of the report, as Markdown and CSV, and on the terminal."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from spectro.comparison.names import differing
from spectro.comparison.statistics import COVERAGES, OTHER, LookAlikes, Result
from spectro.comparison.verdict import verdict
from spectro.config.check import model_defaults
from spectro.evaluation import METRICS
from spectro.evaluation.format import DASH, format_amount, format_number, format_p, markdown_table, markdown_text
from spectro.evaluation.paired import Estimate, axis_start
from spectro.paths import cut, flatten, short, typed

Table = tuple[list[str], list[list[str]]]
# Characters of the axis of scores, at least and at most.
_AXIS = (12, 40)


@dataclass(frozen=True)
class Section:
    """A section of the report with its tables; the template draws some of them, and has a note for some keys.

    Attributes:
        number: Of the group of look-alikes.
    """

    key: str
    title: str
    tables: Sequence[Table]
    number: int = 0


def sections(result: Result) -> list[Section]:
    """The sections of the report, but the scores and the records that all models predict wrong."""
    return [
        *([Section("settings", "Settings that differ", tables)] if (tables := _settings_tables(result)) else []),
        Section("recall", "Recall of each class", [_recall_table(result)]),
        Section("confusion", "Confusion and reliability", []),
        Section("metrics", "Other metrics", [metrics_table(result)]),
        Section("automatic", "Accuracy of the automatic part", [_automatic_table(result)]),
        Section("tests", "Paired tests", [_tests_table(result), _differences_table(result)]),
        *(
            Section("pair", f"Look-alikes {' and '.join(group.members)}", [_confusion_table(group)], i)
            for i, group in enumerate(result.look_alikes)
        ),
        Section("cost", "Cost", [_cost_table(result)]),
        Section("runs", "Runs", [_runs_table(result), *_versions_table(result)]),
    ]


def scores_table(result: Result) -> Table:
    """The models, the best first: score with interval, and what it rests on and costs."""
    rows = []
    for model in result.ranked:
        n_seeds, cost = len(model.seeds) or None, model.cost
        amounts = format_amount(cost.fit_s), format_amount(cost.predict_records_per_s)
        rows.append([model.name, result.scores[model.name]["macro_f1"], result.n_records, n_seeds, *amounts])
    return _table(["model", METRICS["macro_f1"].label, "n", "seeds", "fit, s", "records per s"], rows)


def metrics_table(result: Result) -> Table:
    """Every metric of every model with its interval, and the spread of macro-F1 over seeds."""
    keys = [key for key in result.metrics if key != "macro_f1"]
    rows = [
        [model.name, *(scores.get(key) for key in keys), format_number(scores["macro_f1"].std_seeds)]
        for model, scores in ((model, result.scores[model.name]) for model in result.ranked)
    ]
    return _table(["model", *(result.metrics[key] for key in keys), "± seeds"], rows)


def csv_table(result: Result) -> tuple[list[str], list[list[Any]]]:
    """Header and a row for each model, with all digits; what is not known is empty."""
    rows = []
    for model in result.models:
        row: dict[str, Any] = {
            "model": model.name,
            "role": "baseline" if model.is_baseline else "model",
            "split": result.split,
            "n_records": result.n_records,
            "seeds": " ".join(map(str, model.seeds)),
        }
        for key, estimate in result.scores[model.name].items():
            metric, of = key.partition("/")[::2]
            ends = {"": estimate.value, "_ci_low": estimate.ci_low, "_ci_high": estimate.ci_high}
            ends["_std_seeds"] = estimate.std_seeds
            row |= {f"{metric}{end}{of and '/'}{of}": value for end, value in ends.items()}
        rows.append(row | {f"support/{label}": n for label, n in result.support.items()} | vars(model.cost))
    header = list(dict.fromkeys(key for row in rows for key in row))
    return header, [["" if row.get(key) is None else row[key] for key in header] for row in rows]


def markdown(result: Result) -> str:
    """The sentences and every table."""
    summary = verdict(result)
    parts = [f"**{markdown_text(summary.headline)}**", _markdown(scores_table(result)), "![](figures/scores.png)"]
    parts += [f"```sh\n{summary.command}\n```"] if summary.command else []
    for lines in ([*summary.cautions, *result.notes], summary.pairs):
        parts += ["\n".join(f"- {markdown_text(line)}" for line in lines)] if lines else []
    for section in sections(result):
        parts += [f"## {markdown_text(section.title)}", *map(_markdown, section.tables)] if section.tables else []
    return "\n\n".join(parts) + "\n"


def _markdown(table: Table) -> str:
    header, rows = table
    return markdown_table([*map(markdown_text, header)], [[*map(markdown_text, row)] for row in rows])


def show(result: Result, folder: Path) -> None:
    """Prints verdict, scores, the next command and where the report is."""
    console, summary = Console(highlight=False), verdict(result)
    header, rows = scores_table(result)
    title = f"{result.split} of {result.runs[0].data.name}, {result.n_records} records"
    table = RichTable(title=escape(title), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    estimates = [result.scores[model.name]["macro_f1"] for model in result.ranked]
    low = axis_start(estimates)
    header = [header[0], header[1], *(name.replace("records ", "records\n") for name in header[2:])]
    wide = [
        max(len(part) for cell in column for part in cell.split("\n")) + 1 for column in zip(header, *rows, strict=True)
    ]
    n_columns = min(max(console.width - sum(wide) - len(header) - 3, _AXIS[0]), _AXIS[1])
    for i, name in enumerate([*header, f"{low:.1f}{'1.0':>{n_columns - 3}}"]):
        wraps: Any = {"overflow": "fold", "min_width": 12} if i == 0 else {"no_wrap": True}
        table.add_column(escape(name), justify="left" if i in (0, len(header)) else "right", **wraps)
    for row, model, estimate in zip(rows, result.ranked, estimates, strict=True):
        style = "bold" if model is summary.model else "dim" if model.is_baseline else None
        table.add_row(*map(escape, row), _axis(estimate, low, n_columns), style=style)
    show = partial(console.print, soft_wrap=True)
    show(f"[bold]{escape(summary.headline)}[/bold]\n")
    console.print(table)
    if n := len(result.wrong):
        show(f"Every model is wrong on {n} record{'s' * (n > 1)}: label errors or hard ones, see the report.")
    for line in (*summary.cautions, *result.notes):
        show(f"[yellow]note:[/yellow] {escape(line)}")
    show("[dim]95 % intervals over records and seeds; dim rows: baselines[/dim]")
    show(f"report: {escape(shlex.quote(short(folder / 'report.html')))}")
    if summary.command:
        show(f"next:   {escape(summary.command)}")


def _axis(estimate: Estimate, low: float, n_columns: int) -> str:
    """A value with its interval on an axis from ``low`` to 1, in characters."""

    def column(value: float) -> int:
        return round((min(max(value, low), 1) - low) / (1 - low) * (n_columns - 1))

    cells = [" "] * n_columns
    if estimate.ci_low is not None and estimate.ci_high is not None:
        left, right = column(estimate.ci_low), column(estimate.ci_high)
        cells[left : right + 1] = "─" * (right + 1 - left)
    cells[column(estimate.value)] = "●"
    return "".join(cells)


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """Cells as text, a dash for what is not known; without columns of dashes."""
    texts = [[DASH if cell is None else str(cell) for cell in row] for row in rows]
    used = [i for i in range(len(header)) if any(row[i] != DASH for row in texts)]
    return [header[i] for i in used], [[row[i] for i in used] for row in texts]


def _recall_table(result: Result) -> Table:
    rows = [
        [label, n, *(result.scores[model.name].get(f"recall/{label}") for model in result.models)]
        for label, n in result.support.items()
    ]
    return _table(["class", "n", *(model.name for model in result.models)], rows)


def _automatic_table(result: Result) -> Table:
    header = ["model", *(f"{percent} % automatic" for percent in COVERAGES)]
    models = [model for model in result.ranked if model.runs]
    rows = [[m.name, *(result.scores[m.name].get(f"accuracy_at/{percent}") for percent in COVERAGES)] for m in models]
    return _table(header, rows)


def _tests_table(result: Result) -> Table:
    header = ["", METRICS["macro_f1"].label, "p", "smallest detectable", "only first right", "only second right"]
    rows = []
    for pair in (*result.between, *result.against):
        folds = pair.folds
        rows.append(
            [
                f"{pair.a} − {pair.b}",
                pair.difference,
                format_p(pair.holm["difference"]),
                format_number(pair.smallest),
                pair.mcnemar.n_only_a,
                pair.mcnemar.n_only_b,
                format_p(pair.holm["mcnemar"]),
                folds and format_number(folds.mean, folds.ci_low, folds.ci_high, signed=True),
                format_p(pair.holm["folds"]),
            ]
        )
    return _table([*header, "McNemar p", "over folds", "t-test p"], rows)


def _differences_table(result: Result) -> Table:
    keys = [key for key in result.metrics if key in METRICS and key != "macro_f1"]
    pairs = (*result.between, *result.against)
    rows = [[f"{pair.a} − {pair.b}", *(pair.differences.get(key) for key in keys)] for pair in pairs]
    return _table(["", *(result.metrics[key] for key in keys)], rows)


def _confusion_table(group: LookAlikes) -> Table:
    rows = [
        [name, label, *counts]
        for name, matrix in group.confusion.items()
        for label, counts in zip(group.members, matrix, strict=True)
    ]
    return _table(["", "true", *(f"predicted {label}" for label in (*group.members, OTHER))], rows)


def _cost_table(result: Result) -> Table:
    names = ("fit_s", "trainable_parameters", "predict_records_per_s", "peak_memory_mb")
    rows = [[model.name, *(format_amount(getattr(model.cost, name)) for name in names)] for model in result.ranked]
    header = ["", "fit, s", "trained parameters", "records per s", "peak memory, MB"]
    return _table(header, [row for row in rows if set(row[1:]) != {DASH}])


def _runs_table(result: Result) -> Table:
    rows = []
    for model in result.ranked:
        for run, macro_f1 in zip(model.runs, result.scores[model.name]["macro_f1"].values, strict=False):
            commit = run.info.git_commit or "unknown"
            shown = commit[:9] + ("-dirty" if commit.endswith("-dirty") else "")
            rows.append([model.name, run.seed, format_number(macro_f1), run.origin, shown])
    return _table(["", "seed", METRICS["macro_f1"].label, "run", "commit"], rows)


def _settings_tables(result: Result) -> list[Table]:
    """A row for each model and a column for each setting that matters, where there are any.

    That is one that all models have and that differs, one that models of one option do not agree in, and one that
    differs from its option's default.
    """
    models = [model for model in result.ranked if model.runs]
    defaults = {name: flatten(model_defaults(name)) for name in {m.settings["model.name"] for m in models}}
    in_names = {"name", *(["model.name"] if all(m.settings["model.name"] in m.name for m in models) else [])}
    columns = []
    for key in dict.fromkeys(key for model in models for key in model.settings if key not in in_names):
        having = [(m.settings["model.name"], m.settings[key]) for m in models if key in m.settings]
        values = {option: {typed(value) for o, value in having if o == option} for option, _ in having}
        is_common = len(having) == len(models) and len(set.union(*values.values())) > 1
        is_changed = any(value != defaults[option].get(key, value) for option, value in having)
        if is_common or any(len(found) > 1 for found in values.values()) or (is_changed and "weights" not in key):
            columns.append(key)
    rows = [[model.name, *(cut(typed(model.settings.get(key, DASH)), 40) for key in columns)] for model in models]
    return [(["", *(key.removesuffix(".name") for key in columns)], rows)] if columns else []


def _versions_table(result: Result) -> list[Table]:
    models = [model for model in result.ranked if model.runs]
    table = differing([model.runs[0].info.versions for model in models])
    rows = [[model.name, *(values[i] for values in table.values())] for i, model in enumerate(models)]
    return [(["", *table], rows)] if table else []

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

from spectro.comparison.models import differing
from spectro.comparison.statistics import OTHER, LookAlikes, Result
from spectro.comparison.verdict import verdict
from spectro.evaluation import METRICS
from spectro.evaluation.format import DASH, format_amount, format_number, format_p, markdown_table, markdown_text
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
    tests = [_tests_table(result), _differences_table(result)] if result.between or result.against else []
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
    rows = []
    for model in result.models:
        scores, seeds = result.scores[model.name], model.seeds
        is_range = len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1))
        shown = f"{seeds[0]}–{seeds[-1]}" if is_range else ", ".join(map(str, seeds)) or None
        spread = format_number(scores["macro_f1"].std_seeds)
        rows.append([model.name, shown, *(scores.get(key) for key in result.metrics), spread])
    return _table(["", "seeds", *result.metrics.values(), "± seeds"], rows)


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
    left_out = {label for key, label in result.metrics.items() if key in METRICS and key != "macro_f1"}
    columns = [i for i, name in enumerate(header) if name not in left_out]
    for i in columns:
        table.add_column(escape(header[i]), justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(escape(row[i]) for i in columns), style="dim" if row[0] in baselines else None)
    console.print(table)
    summary = verdict(result)
    lines = [f"[bold]{escape(summary.headline)}[/bold]", *(f"- {escape(line)}" for line in summary.pairs)]
    if n := len(result.wrong):
        lines.append(f"- Every model is wrong on {n} record{'s' * (n > 1)}: label errors or hard ones, see the report")
    lines += [f"[yellow]note:[/yellow] {escape(line)}" for line in (*summary.cautions, *result.notes)]
    lines.append("[dim]95 % intervals over records and seeds; dim rows: baselines[/dim]")
    lines.append(f"report: {escape(shlex.quote(short(folder / 'report.html')))}")
    console.print("\n".join(lines), soft_wrap=True)


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
    rows = [[model.name, *(format_amount(getattr(model.cost, name)) for name in names)] for model in result.models]
    header = ["", "fit, s", "trained parameters", "records per s", "peak memory, MB"]
    return _table(header, [row for row in rows if set(row[1:]) != {DASH}])


def _runs_table(result: Result) -> Table:
    rows = []
    for model in result.models:
        for run, macro_f1 in zip(model.runs, result.scores[model.name]["macro_f1"].values, strict=False):
            commit = run.info.git_commit or "unknown"
            shown = commit[:9] + ("-dirty" if commit.endswith("-dirty") else "")
            rows.append([model.name, run.seed, format_number(macro_f1), run.origin, shown])
    return _table(["", "seed", METRICS["macro_f1"].label, "run", "commit"], rows)


def _settings_tables(result: Result) -> list[Table]:
    """Settings and versions in which models differ, where they do."""
    models = [model for model in result.models if model.runs]
    header = ["", *(model.name for model in models)]
    differ = [
        differing([{**model.settings, "model.name": None} for model in models]),
        differing([model.runs[0].info.versions for model in models]),
    ]
    return [(header, [[key, *values] for key, values in table.items()]) for table in differ if table]

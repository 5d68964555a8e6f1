"""What a person sees on the terminal at the end of a comparison."""

import shlex
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from spectro.comparison.result import Result
from spectro.comparison.tables import scores_table
from spectro.evaluation import METRICS
from spectro.paths import short


def show(result: Result, folder: Path) -> None:
    """The scores, the sentences, and where the report is.

    Args:
        result: What was found.
        folder: The folder of the report.
    """
    console = Console(highlight=False)
    header, rows = scores_table(result)
    n = len(result.contenders[0].rows)
    title = f"{result.split} of {result.runs[0].info['data']['name']}, {n} records"
    table = Table(title=escape(title), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    # Accuracy and the rest stand in the report.
    others = {metric.label for metric in METRICS.values() if metric.name != "macro_f1"}
    kept = [i for i, name in enumerate(header) if name not in others]
    for i in kept:
        table.add_column(escape(header[i]), justify="left" if i == 0 else "right", overflow="fold")
    lines = {one.name for one in result.lines}
    for row in rows:
        table.add_row(*(escape(row[i]) for i in kept), style="dim" if row[0] in lines else None)
    console.print(table)
    said = result.verdict
    console.print(f"[bold]{escape(said.headline)}[/bold]", soft_wrap=True)
    for line in (*said.against, *said.between):
        console.print(f"- {escape(line)}", soft_wrap=True)
    if result.wrong:
        some = f"{len(result.wrong)} records are" if len(result.wrong) > 1 else "1 record is"
        told = f"{some} wrong for all, the pixels too: label errors, or hard ones; the report shows them"
        console.print(f"- {escape(told)}", soft_wrap=True)
    for line in (*said.cautions, *result.notes):
        console.print(f"[yellow]note:[/yellow] {escape(line)}", soft_wrap=True)
    console.print("[dim]95 % intervals over records and seeds; dim rows: reference lines[/dim]", soft_wrap=True)
    console.print(f"report: {escape(shlex.quote(short(folder / 'report.html')))}", soft_wrap=True)

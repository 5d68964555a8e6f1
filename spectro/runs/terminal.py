"""The tables on the terminal at the end of a run."""

import io
import logging
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from spectro.evaluation import METRICS
from spectro.evaluation.format import format_interval, format_number
from spectro.paths import redact, short, sqlite_path
from spectro.progress import say
from spectro.runs.runinfo import RunInfo
from spectro.runs.task import EVAL_SPLITS
from spectro.tracking import page_of


def set_up() -> None:
    """Progress bars and warnings of the package go to stderr from now on."""
    from spectro import progress

    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks a label's alphabet must not end a run whose results are written.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    console = Console(stderr=True)
    progress.enable(console)
    log = logging.getLogger("spectro")
    if not any(isinstance(handler, _ConsoleHandler) for handler in log.handlers):
        log.addHandler(_ConsoleHandler(console))


# Classes with fewer records are named: they make the intervals of the averages wide.
_FEW = 5


class _ConsoleHandler(logging.Handler):
    def __init__(self, console: Console):
        super().__init__(logging.WARNING)
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        self.console.print(f"[yellow]note:[/yellow] {escape(record.getMessage())}", highlight=False, soft_wrap=True)


def show_result(info: RunInfo, metrics: Mapping[str, Any]) -> None:
    """One table of val and test, where the run is, and how to open MLflow.

    Args:
        info: The content of ``run.json``.
        metrics: The content of ``metrics.json``.
    """
    console = Console(highlight=False)
    title = f"{info.run_name}, mapping {info.experiment}"
    table = Table(title=escape(title), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    averages = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    _add_columns(table, ["class"], [("recall", "95 %", "F1", "n")] * 2, EVAL_SPLITS)
    _add_columns(averages, ["", ""], [("mean", "95 %", "n")] * 2, EVAL_SPLITS)
    for label in metrics["test"]["classes"]:
        scores = [metrics[split]["per_class"][label] for split in EVAL_SPLITS]
        cells = [
            (format_number(s["recall"]), _interval(s, "recall"), format_number(s["f1"]), str(s["support"]))
            for s in scores
        ]
        table.add_row(escape(label), *cells[0], *cells[1])
    for stage, key, reports in _averages(metrics, "test"):
        scores = [reports[split] for split in EVAL_SPLITS]
        means = [(format_number(s[key]), _interval(s, key), str(_support(s, key))) for s in scores]
        averages.add_row(escape(stage), METRICS[key].label, *means[0], *means[1])
    console.print(table)
    console.print(averages)
    if "cv" in metrics:
        _show_cv(console, metrics)
    for split in EVAL_SPLITS:
        absent = set(metrics[split]["classes"]) - set(metrics[split]["macro_f1_classes"])
        if absent:
            console.print(f"macro-F1 on {split} is without {', '.join(map(escape, sorted(absent)))}: no records")
    console.print("[dim]95 %: intervals, of recall by Wilson, of means by bootstrap over sources[/dim]")
    few = [label for label, s in metrics["test"]["per_class"].items() if 0 < s["support"] < _FEW]
    if few:
        line = f"few records make intervals wide: fewer than {_FEW} test records of {', '.join(few)}"
        console.print(f"[dim]{escape(line)}[/dim]", soft_wrap=True)
    if metrics["test"].get("ece") is not None:
        console.print(f"[dim]{escape(_calibrated(metrics['test']))}[/dim]", soft_wrap=True)
    for stage, network in info.networks.items():
        console.print(escape(_about(stage, network)), soft_wrap=True)
    for warning in info.warnings:
        console.print(f"[yellow]note:[/yellow] {escape(warning)}", soft_wrap=True)
    console.print(f"run:    {escape(shlex.quote(short(info.folder)))}", soft_wrap=True)
    uri = info.mlflow.tracking_uri
    if uri is not None and info.mlflow.sent:
        # A relative address of a local file is what one can type; a server's password is not for the screen.
        database = sqlite_path(uri)
        shown = redact(uri) if database is None else f"sqlite:///{short(database)}"
        command = shown if database is None else f"mlflow ui --backend-store-uri {shlex.quote(shown)}"
        console.print(f"mlflow: {escape(command)}", soft_wrap=True)
        console.print(f"        {escape(str(page_of(info.mlflow)))}", soft_wrap=True)


def _show_cv(console: Console, metrics: Mapping[str, Any]) -> None:
    """The whole task and each stage: out-of-fold averages, and how much macro-F1 varies."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    _add_columns(table, [f"{metrics['cv']['k']} folds", ""], [("cv", "95 %", "± folds", "± repeats", "n")])
    for stage, key, reports in _averages(metrics, "cv"):
        cv = reports["cv"]
        spread = [format_number(cv[f"{key}_std_{over}"]) if key == "macro_f1" else "" for over in ("folds", "repeats")]
        numbers = (format_number(cv[key]), _interval(cv, key), *spread, str(_support(cv, key)))
        table.add_row(escape(stage), METRICS[key].label, *numbers)
    console.print(table)
    note = "cv: train and val records, each evaluated by models that were not fitted to it; ±: standard deviation"
    console.print(f"[dim]{note}[/dim]", soft_wrap=True)


def _add_columns(
    table: Table, names: Sequence[str], groups: Sequence[Sequence[str]], above: Sequence[str] = ()
) -> None:
    """Adds columns of text, then groups of columns of numbers with a heading ``above`` the first of each group."""
    for name in names:
        table.add_column(name, overflow="fold", min_width=10)
    for number, group in enumerate(groups):
        for i, name in enumerate(group):
            heading = f"{above[number] if i == 0 else ''}\n{name}" if above else name
            table.add_column(heading, justify="center" if name == "95 %" else "right", no_wrap=True)


def show_network(stage: str, facts: Mapping[str, Any]) -> None:
    """Prints the number of parameters; ``facts`` as a network's entry of ``run.json``."""
    counts = facts["parameters"]
    say(escape(f"{stage}: {counts['trainable']:,} of {counts['total']:,} parameters are trained"))


def _about(stage: str, network: Mapping[str, Any]) -> str:
    weights = network["weights"]
    came_from = weights["source"] if weights["sha256"] is None else f"{weights['source']} ({weights['sha256'][:12]})"
    return (
        f"{stage}: epoch {network['best_epoch']} of {network['epochs']} is the best; "
        f"{network['precision']} on {network['device']}, weights {came_from}"
    )


def _averages(metrics: Mapping[str, Any], split: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """The rows of a table of averages: first cell, the metric's key, and the reports of its stage."""
    for number, key in enumerate(key for key in METRICS if key in metrics[split]):
        yield "" if number else "whole task", key, metrics
    for stage, reports in metrics["stages"].items():
        yield f"stage {stage}", "macro_f1", reports


def _support(scores: Mapping[str, Any], key: str) -> int:
    """The number of records of a metric."""
    if not METRICS[key].needs_look_alikes:
        return int(scores["n_records"])
    return sum(int(scores["per_class"][label]["support"]) for label in scores["hard_pair_classes"])


def _calibrated(test: Mapping[str, Any]) -> str:
    """The calibration error beside what as many records show by chance."""
    by_chance = test["ece_by_chance_high"]
    verdict = "more than" if test["ece"] > by_chance else "within"
    return (
        f"calibration on test: error {test['ece']:.2f}, {verdict} what {test['n_records']} records show by chance "
        f"(up to {by_chance:.2f}); NLL {test['nll']:.2f}"
    )


def _interval(scores: Mapping[str, Any], name: str) -> str:
    return format_interval(scores[f"{name}_ci_low"], scores[f"{name}_ci_high"])

"""The tables on the terminal at the end of a run."""

import io
import itertools
import logging
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from spectro import progress
from spectro.config.groups import job_groups
from spectro.evaluation import METRICS
from spectro.evaluation.format import format_interval, format_number
from spectro.evaluation.selective import n_enough
from spectro.files import read_json
from spectro.paths import in_shell, redact, short, sqlite_path
from spectro.runs.review import FILE as REVIEW
from spectro.runs.runinfo import RunInfo
from spectro.tracking import page_of

# Classes with fewer records are named: they make the intervals of the averages wide.
_FEW = 5
BASELINES = "better than the baselines?"


_shown_notes: set[str] = set()


class _ConsoleHandler(logging.Handler):
    def __init__(self, console: Console):
        super().__init__(logging.WARNING)
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        self.console.print(f"[yellow]note:[/yellow] {escape(record.getMessage())}", highlight=False, soft_wrap=True)


def set_up() -> None:
    """Progress bars and warnings of the package go to stderr from now on."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks a label's alphabet must not end a run whose results are written.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    console = Console(stderr=True)
    progress.enable(console)
    log = logging.getLogger("spectro")
    if not any(isinstance(handler, _ConsoleHandler) for handler in log.handlers):
        log.addHandler(_ConsoleHandler(console))


def show_network(stage: str, facts: Mapping[str, Any]) -> None:
    """Prints the number of parameters; ``facts`` as a network's entry of ``run.json``."""
    counts = facts["parameters"]
    progress.say(escape(f"{stage}: {counts['trainable']:,} of {counts['total']:,} parameters are trained"))


def show_result(info: RunInfo, metrics: Mapping[str, Any]) -> None:
    """Prints tables of val and test (of cv and test after a refit), where the run is, and how to open MLflow."""
    console = Console(highlight=False)
    show = partial(console.print, soft_wrap=True)
    test, splits = metrics["test"], [*[split for split in ("val", "cv") if split in metrics][:1], "test"]
    classes = _table(["class"], ("recall", "95 %", "F1", "n"), splits)
    classes.title, classes.title_justify = escape(f"{info.run_name} on {info.experiment}"), "left"
    for label in test["classes"]:
        scores = [metrics[split]["per_class"][label] for split in splits]
        cells = [(*_score(s, "recall"), format_number(s["f1"]), str(s["support"])) for s in scores]
        classes.add_row(escape(label), *itertools.chain(*cells))
    console.print(classes)
    averages = _table(["", ""], ("mean", "95 %", "n"), splits)
    for stage, key, reports in _averages(metrics, "test"):
        means = [(*_score(reports[split], key), _support(reports[split], key)) for split in splits]
        averages.add_row(escape(stage), METRICS[key].label, *itertools.chain(*means))
    console.print(averages)
    if "cv" in metrics:
        console.print(_cv_table(metrics))
        note = "cv: train and val records, each evaluated by models that were not fitted to it; ±: standard deviation"
        show(f"[dim]{note}[/dim]")
    for split in splits:
        if absent := sorted(set(metrics[split]["classes"]) - set(metrics[split]["macro_f1_classes"])):
            show(escape(f"macro-F1 on {split} is without {', '.join(absent)}: no records"))
    notes = ["95 %: intervals, of recall by Wilson, of means by bootstrap over sources"]
    if few := [label for label, scores in test["per_class"].items() if 0 < scores["support"] < _FEW]:
        notes.append(f"few records make intervals wide: fewer than {_FEW} test records of {', '.join(few)}")
    if test["ece"] is not None:
        # The calibration error beside what as many records show by chance.
        by_chance = test["ece_by_chance_high"]
        verdict = "more than" if test["ece"] > by_chance else "within"
        notes.append(
            f"calibration on test: error {test['ece']:.3f}, {verdict} what {test['n_records']} records show by chance "
            f"(up to {by_chance:.3f}); NLL {test['nll']:.2f}"
        )
    notes += _review(metrics, read_json(info.folder / "model" / REVIEW) or {})
    for note in notes:
        show(f"[dim]{escape(note)}[/dim]")
    for stage, network in info.networks.items():
        weights = network["weights"]
        digest = f" ({weights['sha256'][:12]})" if weights["sha256"] else ""
        best = f"epoch {network['best_epoch']} of {network['epochs']} is the best; " if "best_epoch" in network else ""
        if best and "val" not in metrics:
            best = f"epochs on train and val: {network['epochs']}; "
        on = f"{network['precision']} on {network['device']}"
        show(escape(f"{stage}: {best}{on}, weights {weights['source']}{digest}"))
    # The jobs of a multirun have the same data, and so most notes in common.
    for warning in (w for w in info.warnings if info.parent is None or w not in _shown_notes):
        _shown_notes.add(warning)
        show(f"[yellow]note:[/yellow] {escape(warning)}")
    show(f"run:    {escape(shlex.quote(short(info.folder)))}")
    if info.mlflow.sent:
        # A relative address of a local file is what one can type; a server's password is not for the screen.
        uri, database = str(info.mlflow.tracking_uri), sqlite_path(info.mlflow.tracking_uri)
        ui = f"mlflow ui --backend-store-uri {shlex.quote(f'sqlite:///{short(database)}')}" if database else redact(uri)
        show(f"mlflow: {escape(ui)}")
        show(f"        {escape(str(page_of(info.mlflow)))}")
    if info.parent is None:
        show_next({BASELINES: f"spectro compare {shlex.quote(short(info.folder))}", **_search(info)})


def _review(metrics: Mapping[str, Any], review: Mapping[str, Any]) -> list[str]:
    """How much is automatic under the thresholds on confidence, and which classes have none of their own."""
    parts = []
    for split in [split for split in ("cv", "val", "test") if "automatic" in metrics.get(split, {})]:
        key, scores = "automatic_accuracy", metrics[split]
        accuracy = format_number(scores[key], scores[f"{key}_ci_low"], scores[f"{key}_ci_high"])
        parts.append(f"{100 * scores['automatic']:.0f} % of {scores['n_records']} {split} records, accuracy {accuracy}")
    if not parts:
        return []
    if review["coverage"] is not None:
        chosen_for = f"review.coverage={review['coverage']:g}"
    else:
        chosen_for = f"review.target_accuracy={review['target_accuracy']:g}"
    of, few = f"{review['n']} {review['split']} records", review["few"]
    if review["overall"] is None and not any(review["by_class"].values()):
        more = "" if review["split"] == "cv" else "; validation=kfold has more"
        return [f"automatic, {chosen_for}: nothing, as no confidence is shown to be enough on {of}{more}"]
    lines = [f"automatic by confidence, {chosen_for}: {'; '.join(parts)}"]
    if few:
        counts, enough = ", ".join(f"{label} {n}" for label, n in few.items()), n_enough(review["target_accuracy"])
        lines.append(f"threshold of all classes for those predicted for fewer than {enough} of {of}: {counts}")
    return lines


def show_next(commands: Mapping[str, str]) -> None:
    """Prints what a user can do with the results: what for -> command."""
    wide = max(map(len, commands))
    for number, (purpose, command) in enumerate(commands.items()):
        progress.say(f"{'' if number else 'next:':8}[dim]{purpose:{wide}}[/dim]  {escape(command)}")


def show_jobs(folder: Path, varied: Sequence[str]) -> None:
    """Prints a table of the jobs of a multirun: the ``varied`` keys in which they differ, and their macro-F1."""
    runs = sorted((path.parent for path in folder.glob("*/metrics.json")), key=lambda path: path.name.zfill(9))
    reports = [read_json(path / "metrics.json") for path in runs]
    splits = [split for split in ("cv", "val", "test") if any(split in report for report in reports)]
    table = _table(["job", *varied], ("macro-F1", "95 %"), splits)
    for path, report in zip(runs, reports, strict=True):
        words = dict(word.split("=", 1) for word in _words(path))
        scores = [_score(report[split], "macro_f1") if split in report else ("", "") for split in splits]
        table.add_row(path.name, *(escape(words.get(key, "")) for key in varied), *itertools.chain(*scores))
    Console(highlight=False).print(table)
    show_next({"which is the best?": f"spectro compare {shlex.quote(short(folder))}"})


def _words(run_dir: Path) -> list[str]:
    """The overrides of a run that Hydra has started."""
    path = run_dir / ".hydra" / "overrides.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else []


def _search(info: RunInfo) -> dict[str, str]:
    """The command that searches for better settings of a run's model, if there is a search space of its name."""
    model = str(info.config["model"]["name"])
    if model not in job_groups().options("sweeper"):
        return {}
    # As it was typed, with --config-dir; a primary configuration of one's own may fix what is searched.
    of_run = ("validation", "model=", "name=", "objective=", "hydra.")
    typed = [word for word in info.command[1:] if not word.startswith(of_run)]
    fixed = ("--config-name", "-cn", "--multirun", "-m")
    if not (info.folder / ".hydra").is_dir() or any(w in fixed or w.startswith("resume=") for w in typed):
        return {}
    words = in_shell(["spectro", "train", "--multirun", *typed, f"model={model}", f"sweeper={model}"])
    return {"search for better settings": words}


def _cv_table(metrics: Mapping[str, Any]) -> Table:
    """The whole task and each stage: out-of-fold averages, and how much macro-F1 varies."""
    table = _table([f"{metrics['cv']['k']} folds", ""], ("cv", "95 %", "± folds", "± repeats", "n"))
    for stage, key, reports in _averages(metrics, "cv"):
        if key != "macro_f1" and "val" not in metrics:
            continue  # it stands beside test already
        cv = reports["cv"]
        spread = [format_number(cv[f"{key}_std_{over}"]) if key == "macro_f1" else "" for over in ("folds", "repeats")]
        table.add_row(escape(stage), METRICS[key].label, *_score(cv, key), *spread, _support(cv, key))
    return table


def _table(names: Sequence[str], numbers: Sequence[str], splits: Sequence[str] = ("",)) -> Table:
    """Columns of text, then for each split the same columns of numbers, with its name above the first."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in names:
        table.add_column(name, overflow="fold", min_width=10)
    for split in splits:
        for i, name in enumerate(numbers):
            heading = f"{'' if i else split}\n{name}" if split else name
            table.add_column(heading, justify="center" if name == "95 %" else "right", no_wrap=True)
    return table


def _averages(metrics: Mapping[str, Any], split: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """The rows of a table of averages: first cell, the metric's key, and the reports of its stage."""
    for number, key in enumerate(key for key in METRICS if key in metrics[split]):
        yield "" if number else "whole task", key, metrics
    for stage, reports in metrics["stages"].items():
        yield f"stage {stage}", "macro_f1", reports


def _score(scores: Mapping[str, Any], key: str) -> tuple[str, str]:
    """A value and its interval."""
    return format_number(scores[key]), format_interval(scores[f"{key}_ci_low"], scores[f"{key}_ci_high"])


def _support(scores: Mapping[str, Any], key: str) -> str:
    """The number of records of a metric."""
    if not METRICS[key].needs_look_alikes:
        return str(scores["n_records"])
    return str(sum(scores["per_class"][label]["support"] for label in scores["hard_pair_classes"]))

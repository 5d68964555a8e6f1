"""A search for people and MLflow: a line for each trial, ``run.json``, tables and figures."""

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial
from rich.markup import escape

from spectro.config.schema import Common
from spectro.evaluation import METRICS
from spectro.figures import draw_beside
from spectro.figures.search import Parameter, Trial, search_figures
from spectro.files import read_json, write_csv, write_json, write_text
from spectro.progress import say
from spectro.runs.runinfo import RunInfo
from spectro.sweeps.space import Space
from spectro.sweeps.study import REASON, SAME_AS, UNCOUNTED, complete, counting, running

# The columns of the trials' lines: number, value of the objective, best so far, time, how many are done, settings.
_LINE = "{:>5}  {:>{width}}  {:>6}  {:>7}  {:<17}  {}"


def say_begin(study: optuna.Study, space: Space, objective: str, n_trials: int) -> None:
    """Prints what is searched, how many of ``n_trials`` are there already, and the heading of the trials' lines."""
    say(f"sweep {escape(study.study_name)}: {', '.join(map(escape, space.distributions))}")
    if trials := counting(study):
        n_finished = sum(trial.state.is_finished() for trial in trials)
        say(f"goes on after {n_finished} of {n_trials} trials, best {_best(study)}")
    say(escape(_LINE.format("trial", objective, "best", "time", "done", "settings", width=len(objective))))


def say_trial(study: optuna.Study, space: Space, objective: str, n_trials: int, number: int) -> None:
    """Prints the line of a finished trial."""
    trial = study.get_trials(deepcopy=False)[number]
    finished = [t for t in counting(study) if t.state.is_finished()]
    seconds = [_seconds_of(t) for t in finished] or [0.0]
    left_s = max(0, n_trials - len(finished)) * sum(seconds) / len(seconds) / (1 + len(running(study)))
    minutes, seconds_left = divmod(round(left_s), 60)
    value = f"{trial.value:.4f}" if trial.state.name == "COMPLETE" else trial.state.name.lower()
    took = f"as {trial.user_attrs[SAME_AS]}" if SAME_AS in trial.user_attrs else f"{_seconds_of(trial):.1f} s"
    params = [(key.split(".")[-1], value) for key, value in space.shown(trial.params).items()]
    shown = " ".join(f"{name}={_text(value)}" for name, value in params)
    done, settings = f"{len(finished)}/{n_trials}, {minutes}:{seconds_left:02d} left", f"[dim]{escape(shown)}[/dim]"
    say(_LINE.format(number, value, _best(study), took, done, settings, width=len(objective)))
    if trial.state.name == "FAIL":
        again = "; it is drawn again" if UNCOUNTED in trial.user_attrs else ""
        say(f"  [yellow]{escape(trial.user_attrs.get(REASON, 'failed'))}{again}[/yellow]")


def end_info(
    info: RunInfo, study: optuna.Study, space: Space, status: str, reason: str | None = None, final: Path | None = None
) -> None:
    """Closes a sweep's ``run.json``, writes its ``metrics.json`` and sends both to MLflow.

    Its score on test is that of the run in ``final``, if there is one.
    """
    trials, test = complete(study), (read_json(final / "metrics.json") or {}).get("test", {}) if final else {}
    best = max(trials, key=lambda trial: trial.values[0], default=None)
    states = Counter(trial.state.name.lower() for trial in counting(study))
    metrics = {
        "best": best and best.values[0],
        "best_trial": best and best.number,
        "best_settings": {key: _text(value) for key, value in space.shown(best.params).items()} if best else {},
        "final": {key: test[key] for key in ("macro_f1", "macro_f1_ci_low", "macro_f1_ci_high", "n_records") if test},
        "trials": {**{state: states[state] for state in ("complete", "pruned", "fail")}, "all": states.total()},
        "trial_seconds": sum(map(_seconds_of, study.get_trials(deepcopy=False))),
    }
    write_json(info.folder / "metrics.json", metrics)
    info.end(status, reason)
    info.send_to_mlflow_beside()


def write_tables(folder: Path, study: optuna.Study, space: Space) -> None:
    """``trials.csv``, a row for each trial, and ``optimization_results.yaml`` as the official sweeper writes it."""
    rows = []
    for trial in study.get_trials(deepcopy=False):
        # Optuna gives a pruned trial the last value that it reported, which is not the objective's.
        value = trial.value if trial.state.name == "COMPLETE" else ""
        params = [trial.params.get(key, "") for key in space.distributions]
        ending = [round(_seconds_of(trial), 3), trial.user_attrs.get(REASON, "")]
        rows.append([trial.number, trial.state.name, value, *params, *ending])
    names = space.shown(dict.fromkeys(space.distributions))
    write_csv(folder / "trials.csv", ["trial", "state", "value", *names, "seconds", "reason"], rows)
    if complete(study):
        best = study.best_trial
        results = {"name": "optuna", "best_params": best.params, "best_value": best.value}
        write_text(folder / "optimization_results.yaml", yaml.safe_dump(results, sort_keys=False))


def draw(folder: Path, study: optuna.Study, space: Space, common: Common) -> Callable[[], list[str]]:
    """Draws the figures of a search beside this process, unless ``figures=none``.

    Returns:
        What waits until all is drawn, and returns a line for each figure that could not be.
    """
    if common.figures == "none":
        return list
    parameters = [
        Parameter(name, tuple(map(str, d.choices)))
        if hasattr(d, "choices")
        else Parameter(name, (), float(d.low), float(d.high), bool(d.log))
        for name, d in space.shown(space.distributions).items()
    ]
    searched = space.distributions.items()
    trials = [
        Trial(
            t.number,
            t.state.name,
            t.values[0] if t.state.name == "COMPLETE" else None,
            [d.to_internal_repr(t.params[key]) if key in t.params else math.nan for key, d in searched],
        )
        for t in counting(study)
        if t.state.is_finished()
    ]
    *stage, split, metric = str(common.objective).split("/")
    label = METRICS[metric].label if metric in METRICS else metric
    objective = f"{label} on {split}{''.join(f', stage {part}' for part in stage[:1])}"
    return draw_beside(search_figures, folder.absolute() / "figures", trials, parameters, objective, study.study_name)


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _best(study: optuna.Study) -> str:
    values = [trial.values[0] for trial in complete(study)]
    return f"{max(values):.4f}" if values else "none"


def _seconds_of(trial: FrozenTrial) -> float:
    """How long a finished trial took; 0 where that is unknown."""
    return 0.0 if trial.duration is None else trial.duration.total_seconds()

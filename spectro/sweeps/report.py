"""A search for people and MLflow: a line for each trial, ``run.json``, tables and figures."""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from spectro.config.check import Config
from spectro.data import Dataset
from spectro.files import write_csv, write_json, write_text
from spectro.runs.runinfo import DataInfo, RunInfo
from spectro.runs.task import data_name
from spectro.sweeps.space import SWEEP_KEYS, Space, in_words, nested
from spectro.sweeps.study import ID, REASON, SAME_AS, UNCOUNTED, counting, seconds_of

if TYPE_CHECKING:
    import optuna


def print_line(text: str) -> None:
    """Prints a line, which is cut at the edge of a terminal and complete in a file."""
    console = Console(highlight=False)
    if console.is_terminal:
        console.print(text, no_wrap=True, overflow="ellipsis", crop=True)
    else:
        console.print(text, soft_wrap=True)


class Progress:
    """Prints a line for each trial.

    Args:
        study: The study.
        total: How many trials the study is to have.
        space: The search space.
    """

    def __init__(self, study: "optuna.Study", total: int, space: Space):
        self._study = study
        self._total = total
        self._space = space
        self._started = time.perf_counter()
        self._n_ended = 0

    def begin(self) -> None:
        """Prints what is searched and which trials are there already."""
        print_line(f"sweep {escape(self._study.study_name)}: {', '.join(map(escape, self._space.distributions))}")
        if trials := counting(self._study.get_trials(deepcopy=False)):
            finished = sum(trial.state.is_finished() for trial in trials)
            print_line(f"goes on after {finished} of {self._total} trials, best {_best(trials)}")

    def ended(self, number: int) -> None:
        """Prints a trial's line."""
        trials = self._study.get_trials(deepcopy=False)
        trial, counted = trials[number], counting(trials)
        n_finished = sum(t.state.is_finished() for t in counted)
        self._n_ended += 1
        pace_s = (time.perf_counter() - self._started) / self._n_ended
        left_s = round(pace_s * max(0, self._total - n_finished))
        value = f"{trial.value:.4f}" if trial.state.name == "COMPLETE" else trial.state.name.lower()
        shown = self._space.shown(trial.params).items()
        params = " ".join(f"{k.split('.')[-1]}={f'{v:.3g}' if isinstance(v, float) else v}" for k, v in shown)
        copied = trial.user_attrs.get(SAME_AS)
        took = f"{seconds_of(trial):.1f} s" if copied is None else f"as trial {copied}"
        print_line(
            f"trial {number:>{len(str(self._total))}}  {value:>8}  best {_best(trials)}  {took:>8}  "
            f"{n_finished}/{self._total}, {left_s // 60}:{left_s % 60:02d} left  [dim]{escape(params)}[/dim]"
        )
        if trial.state.name == "FAIL":
            again = "; it is drawn again" if UNCOUNTED in trial.user_attrs else ""
            print_line(f"  [yellow]{escape(str(trial.user_attrs.get(REASON, 'failed')))}{again}[/yellow]")


def _best(trials: Sequence["optuna.trial.FrozenTrial"]) -> str:
    values = [trial.value for trial in trials if trial.state.name == "COMPLETE" and trial.value is not None]
    return f"{max(values):.4f}" if values else "none"


def name_of(config: Config, settings: dict[str, Any]) -> str:
    """The default name of a study: other settings or another search space give another name."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:6]
    return f"{config.common.model.name}_{config.stage}_{data_name(config)}_{digest}"


def read_info(folder: Path) -> RunInfo | None:
    """``run.json`` of a folder; None where there is none."""
    return RunInfo.read(folder) if (folder / "run.json").exists() else None


def open_info(
    folder: Path, config: Config, study: "optuna.Study", space: Space, sampler: dict[str, Any], dataset: Dataset
) -> RunInfo:
    """``run.json`` of a sweep's folder; a resumed search keeps its MLflow run."""
    before = read_info(folder)
    tags = {"study": study.study_name, "sweep": "true", "data_fingerprint": dataset.fingerprint}
    info = RunInfo.of(config, folder, before=before, run_name=f"sweep {study.study_name}", tags=tags)
    info.study_id, info.data = study.user_attrs[ID], DataInfo.of(config, dataset)
    info.config = {
        "search": nested({key: in_words(distribution) for key, distribution in space.distributions.items()}),
        "sampler": {key: value for key, value in sampler.items() if value is not None},
        "objective": config.common.objective,
        # Not the number of trials: it may grow, and MLflow does not change parameters.
        **{key: value for key, value in info.config.items() if key not in (*SWEEP_KEYS, "objective")},
    }
    info.write()
    return info


def end_info(info: RunInfo, study: "optuna.Study", status: str, reason: str | None = None) -> None:
    """Closes a sweep's ``run.json``, writes its ``metrics.json`` and sends both to MLflow."""
    trials = study.get_trials(deepcopy=False)
    states = Counter(trial.state.name.lower() for trial in counting(trials))
    metrics = {
        "best": max((trial.values[0] for trial in trials if trial.state.name == "COMPLETE"), default=None),
        "trials": {**{state: states[state] for state in ("complete", "pruned", "fail")}, "all": sum(states.values())},
        "trial_seconds": sum(seconds_of(trial) for trial in trials),
    }
    write_json(info.folder / "metrics.json", metrics)
    info.end(status, reason)
    info.send_to_mlflow()


def write_tables(folder: Path, study: "optuna.Study", space: Space) -> None:
    """``trials.csv``, a row for each trial, and ``optimization_results.yaml`` as the official sweeper writes it."""
    import yaml

    rows, trials = [], study.get_trials(deepcopy=False)
    for trial in trials:
        params = [trial.params.get(key, "") for key in space.distributions]
        # Optuna gives a pruned trial the last value that it reported, which is not the objective's.
        value = trial.value if trial.state.name == "COMPLETE" else ""
        reason = trial.user_attrs.get(REASON, "")
        rows.append([trial.number, trial.state.name, value, *params, round(seconds_of(trial), 3), reason])
    names = space.shown(dict.fromkeys(space.distributions))
    write_csv(folder / "trials.csv", ["trial", "state", "value", *names, "seconds", "reason"], rows)
    if any(trial.state.name == "COMPLETE" for trial in trials):
        best = study.best_trial
        results = {"name": "optuna", "best_params": best.params, "best_value": best.value}
        write_text(folder / "optimization_results.yaml", yaml.safe_dump(results, sort_keys=False))


def why_all_failed(study: "optuna.Study", folder: Path) -> str:
    """The message for a search without a value, with the most frequent reasons."""
    trials = counting(study.get_trials(deepcopy=False))
    reasons = Counter(trial.user_attrs.get(REASON, "unknown") for trial in trials).most_common(3)
    shown = "; ".join(f"{count} times: {reason}" for reason, count in reasons)
    return f"{folder}: none of {len(trials)} trials gave a value ({shown})"


def draw(folder: Path, study: "optuna.Study", objective: str) -> None:
    """Optuna's own plots: history, importance of the parameters, parallel coordinates, slices."""
    import warnings

    import matplotlib

    matplotlib.use("Agg")
    import optuna.visualization.matplotlib as plots
    from matplotlib import pyplot
    from optuna.exceptions import ExperimentalWarning

    folder.mkdir(exist_ok=True)
    figures: dict[str, Any] = {
        "optimization_history": plots.plot_optimization_history,
        "parameter_importance": plots.plot_param_importances,
        "parallel_coordinates": plots.plot_parallel_coordinate,
        "slices": plots.plot_slice,
    }
    for name, plot in figures.items():
        try:
            with warnings.catch_warnings(), matplotlib.rc_context({"figure.figsize": (9, 5)}):
                warnings.simplefilter("ignore", ExperimentalWarning)
                plot(study, target_name=objective)
                pyplot.gcf().savefig(folder / f"{name}.png", dpi=100, bbox_inches="tight")
        except (ValueError, RuntimeError, ZeroDivisionError):
            continue  # a single trial, or equal trials, have no importance to draw
        finally:
            pyplot.close("all")

"""What is left of a search: its info, its tables, its figures."""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectro.config.check import Config
from spectro.data import Dataset
from spectro.files import write_csv, write_json, write_text
from spectro.runs import run as experiment
from spectro.runs.runinfo import RunInfo
from spectro.sweeps.space import SWEEP_KEYS, nested
from spectro.sweeps.study import ID, REASON, counting
from spectro.sweeps.trial import seconds_of

if TYPE_CHECKING:
    import optuna

    from spectro.sweeps.space import Space


def name_of(config: Config, settings: dict[str, Any]) -> str:
    """The name of a search that was given none: another for whatever else is searched or set."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:6]
    return f"{config.common.model.name}_{config.stage}_{experiment.data_name(config)}_{digest}"


def open_card(
    folder: Path, config: Config, study: "optuna.Study", space: "Space", sampler: dict[str, Any], dataset: Dataset
) -> RunInfo:
    """``run.json`` of a sweep's folder, the one that is there if there is one: MLflow keeps one parent."""
    before = RunInfo.read(folder) if (folder / "run.json").exists() else None
    content = experiment.identity_of(config)
    content["tags"] |= {"study": study.study_name, "sweep": "true", "data_fingerprint": dataset.fingerprint}
    content["config"] = {
        "search": nested({key: in_words(distribution) for key, distribution in space.distributions.items()}),
        "sampler": {key: value for key, value in sampler.items() if value is not None},
        "objective": config.common.objective,
        # Not the number of trials: it may grow, and MLflow never changes a parameter.
        **{key: value for key, value in content["config"].items() if key not in (*SWEEP_KEYS, "objective")},
    }
    content |= {"run_name": f"sweep {study.study_name}", "study_id": study.user_attrs[ID]}
    content["data"] = experiment.data_info(config, dataset)
    info = RunInfo.start(folder, before=before, **content)
    if info.mlflow.tracking_uri != content["mlflow"].tracking_uri:
        # Another store than before, where nothing is yet.
        info.mlflow = content["mlflow"]
    info.write()
    return info


def in_words(distribution: "optuna.distributions.BaseDistribution") -> str:
    """What a knob is searched in, as a person would say it."""
    its: Any = distribution
    if hasattr(its, "choices"):
        return ", ".join(map(str, its.choices))
    step = "" if its.step in (None, 1) else f", step {its.step:g}"
    return f"{its.low:g} to {its.high:g}{', log' if its.log else ''}{step}"


def end_card(folder: Path, info: RunInfo, study: "optuna.Study", status: str, reason: str | None = None) -> None:
    """Closes a sweep's ``run.json``, writes its ``metrics.json`` and sends both."""
    trials = study.get_trials(deepcopy=False)
    states = Counter(trial.state.name.lower() for trial in counting(trials))
    best = [trial.values[0] for trial in trials if trial.state.name == "COMPLETE"]
    metrics = {
        "best": max(best) if best else None,
        "trials": {**{state: states[state] for state in ("complete", "pruned", "fail")}, "all": sum(states.values())},
        "trial_seconds": sum(seconds_of(trial) for trial in trials),
    }
    write_json(folder / "metrics.json", metrics)
    info.end(status, reason)
    info.send_to_mlflow()


def write_tables(folder: Path, study: "optuna.Study", space: "Space") -> None:
    """``trials.csv``, a row for each trial, and ``optimization_results.yaml`` as the official sweeper writes it."""
    keys = list(space.distributions)
    names = list(space.shown(dict.fromkeys(keys)))
    rows, trials = [], study.get_trials(deepcopy=False)
    for trial in trials:
        params = [trial.params.get(key, "") for key in keys]
        # Optuna gives a pruned trial the last value that it reported, which is not the objective's.
        value = trial.value if trial.state.name == "COMPLETE" else ""
        reason = trial.user_attrs.get(REASON, "")
        rows.append([trial.number, trial.state.name, value, *params, round(seconds_of(trial), 3), reason])
    write_csv(folder / "trials.csv", ["trial", "state", "value", *names, "seconds", "reason"], rows)
    if all(trial.state.name != "COMPLETE" for trial in trials):
        return
    import yaml

    best = study.best_trial
    results = {"name": "optuna", "best_params": best.params, "best_value": best.value}
    write_text(folder / "optimization_results.yaml", yaml.safe_dump(results, sort_keys=False))


def why_all_failed(study: "optuna.Study", folder: Path) -> str:
    """The message for a search without a single value: its reasons, the commonest first."""
    trials = counting(study.get_trials(deepcopy=False))
    reasons = Counter(trial.user_attrs.get(REASON, "unknown") for trial in trials)
    told = "; ".join(f"{count} times: {reason}" for reason, count in reasons.most_common(3))
    return f"{folder}: none of {len(trials)} trials gave a value ({told})"


def draw(folder: Path, study: "optuna.Study", objective: str) -> None:
    """Optuna's own plots: history, importance of the parameters, parallel coordinates, slices."""
    import warnings

    import matplotlib

    matplotlib.use("Agg")
    import optuna.visualization.matplotlib as plots
    from matplotlib import pyplot
    from optuna.exceptions import ExperimentalWarning

    folder.mkdir(exist_ok=True)
    wanted: dict[str, Any] = {
        "optimization_history": plots.plot_optimization_history,
        "parameter_importance": plots.plot_param_importances,
        "parallel_coordinates": plots.plot_parallel_coordinate,
        "slices": plots.plot_slice,
    }
    for name, plot in wanted.items():
        try:
            with warnings.catch_warnings(), matplotlib.rc_context({"figure.figsize": (9, 5)}):
                warnings.simplefilter("ignore", ExperimentalWarning)
                plot(study, target_name=objective)
                pyplot.gcf().savefig(folder / f"{name}.png", dpi=100, bbox_inches="tight")
        except (ValueError, RuntimeError, ZeroDivisionError):
            # A single trial, or trials that all came out the same, have no importance to draw.
            continue
        finally:
            pyplot.close("all")

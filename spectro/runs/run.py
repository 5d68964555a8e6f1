"""One run, top to bottom: data, cross-validation, fit, evaluation, files, MLflow."""

import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from spectro import interrupt
from spectro.classifiers import ImageClassifier
from spectro.classifiers.fit_context import FitContext, OnEpoch, fit_context
from spectro.config.check import Config
from spectro.config.schema import DemoKnobs, KFoldKnobs
from spectro.data import Dataset
from spectro.errors import DataError
from spectro.evaluation import METRICS
from spectro.files import write_json
from spectro.paths import redact
from spectro.runs import crossval, fold_plan, results, task
from spectro.runs.predictions import Predictions, write_predictions
from spectro.runs.runinfo import DataInfo, RunInfo, git_commit
from spectro.runs.terminal import show_network, show_result
from spectro.tracking import MlflowEntry


def run(
    config: Config,
    run_dir: Path,
    before: RunInfo | None = None,
    belonging: Mapping[str, Any] | None = None,
) -> float | None:
    """Fits and evaluates one configuration, and writes its run directory.

    Args:
        config: A valid configuration.
        run_dir: The run's own folder.
        before: Where the run goes on after it was killed: its ``run.json``.
        belonging: What its ``run.json`` says besides as a part of something: ``run_name``, ``parent``, ``tags``.

    Returns:
        The objective, a val or cv metric; None if none is asked for.

    Raises:
        SpectroError: The data do not fit the configuration; nothing was started.
    """
    identity, belonging = identity_of(config), belonging or {}
    identity |= {**belonging, "tags": identity["tags"] | belonging.get("tags", {})}
    info = RunInfo.start(run_dir, before=before, **identity)
    with info.phase("data"):
        config.estimator().prepare()
        dataset = task.load_data(config)
        (train, rows, variants), folds = check_data(config, dataset)
        _check_same_data(dataset, before)
    info.data = data_info(config, dataset)
    info.tags["data_fingerprint"] = dataset.fingerprint
    info.warnings += [*dataset.warnings, *_unknown_exclusions(config, dataset)]
    info.warnings += folds.warnings if folds else []
    results.write_records(run_dir / "records.csv", dataset)
    info.write()
    try:
        with info.phase("mlflow_open"):
            info.open_in_mlflow()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            history = results.History(run_dir / "history.csv")
            place = FitContext(run_dir / "checkpoints", config.stage, history, show_network)
            with fit_context(place):
                with info.phase("cross_validation") if folds else nullcontext():
                    cv = crossval.cross_validate(config, dataset, folds) if folds else None
                with info.phase("fit"):
                    classifier = task.fit(config, dataset, train, rows, variants)
        _add_facts(info, task.stages_of(config, classifier))
        info.warnings += _texts(caught)
        with info.phase("evaluate"):
            tasks = task.evaluate(config, dataset, classifier)
            metrics = results.metrics_of(config, tasks, cv)
            predict_records_per_s = task.predict_speed(config, dataset, classifier)
        if cv is not None:
            info.warnings += [line for line in cv.warnings if line not in info.warnings]
        info.warnings += _never_predicted(tasks)
        info.temperature, lines = task.temperatures(config, classifier, tasks)
        info.warnings += lines
        with info.phase("write"):
            classifier.save(run_dir / "model")
            results.write_model_card(config, dataset, classifier, run_dir / "model")
            write_json(run_dir / "metrics.json", metrics)
            write_predictions(run_dir / "predictions.csv", tasks[""], dataset.name_of)
            if cv is not None:
                results.write_out_of_fold(run_dir / "oof_predictions.csv", dataset, cv.tasks[""])
        with info.phase("figures"):
            named = f"{info.run_name} on {info.data.name}"
            results.draw(run_dir / "figures", metrics, tasks[""], dataset, named, classifier)
    except BaseException as error:
        if interrupt.caused(error):
            info.end("KILLED", "interrupted")
        else:
            info.end("FAILED", f"{type(error).__name__}: {error}")
        info.send_to_mlflow()
        raise
    info.add_cost(predict_records_per_s)
    info.end("FINISHED")
    # They are large, and there is nothing left to go on with.
    shutil.rmtree(run_dir / "checkpoints", ignore_errors=True)
    with info.phase("mlflow_send"):
        info.send_to_mlflow()
    info.write()
    show_result(info, metrics)
    return metrics["objective"]


def attempt(
    config: Config,
    dataset: Dataset,
    run_dir: Path,
    info: RunInfo,
    on_epoch: OnEpoch,
    before_work: Callable[[], None] = lambda: None,
) -> float:
    """One trial of a search: fits and evaluates by what the objective is made of, and never reads test.

    Args:
        config: A valid configuration.
        dataset: Its data.
        run_dir: The trial's own folder: it gets metrics, predictions and history.
        info: Its ``run.json``.
        on_epoch: Called after every epoch with the stage and its history so far; may end the trial with an error.
        before_work: Called before every epoch of a network.

    Returns:
        The objective.
    """
    history = results.History(run_dir / "history.csv")

    def after_epoch(stage: str, rows: Sequence[Mapping[str, Any]]) -> None:
        history(stage, rows)
        on_epoch(stage, rows)
        before_work()

    place = FitContext(None, config.stage, after_epoch, lambda stage, facts: before_work())

    objective = str(config.common.objective)
    with warnings.catch_warnings(record=True) as caught, fit_context(place):
        warnings.simplefilter("always")
        if "cv" in objective.split("/"):
            with info.phase("cross_validation"):
                cv = crossval.cross_validate(config, dataset)
            with info.phase("evaluate"):
                metrics = results.metrics_of(config, {name: {} for name in cv.tasks}, cv)
            results.write_out_of_fold(run_dir / "oof_predictions.csv", dataset, cv.tasks[""])
            info.warnings += cv.warnings
        else:
            with info.phase("fit"):
                train, rows, variants = task.training_rows(config, dataset)
                classifier = task.fit(config, dataset, train, rows, variants)
            with info.phase("evaluate"):
                tasks = task.evaluate(config, dataset, classifier, splits=("val",))
                metrics = results.metrics_of(config, tasks)
            write_predictions(run_dir / "predictions.csv", tasks[""], dataset.name_of)
            _add_facts(info, task.stages_of(config, classifier))
    info.warnings += _texts(caught)
    write_json(run_dir / "metrics.json", metrics)
    info.end("FINISHED")
    return float(metrics["objective"])


def new_trial_card(config: Config, run_dir: Path, number: int, study: str, shown: Mapping[str, Any]) -> RunInfo:
    """The ``run.json`` of a trial: of the configuration only what is searched, the rest stands in the sweep's."""
    content = identity_of(config)
    content["tags"] |= {"study": study, "trial": str(number)}
    content |= {"run_name": f"trial {number}", "config": dict(shown), "parent": ".."}
    info = RunInfo.start(run_dir, **content)
    info.write()
    return info


def check_data(config: Config, dataset: Dataset) -> tuple[task.TrainingRows, fold_plan.Plan | None]:
    """What can be known to be wrong between a configuration and its data before anything is fitted.

    Returns:
        What is fitted to, as `spectro.runs.task.training_rows` gives it, and the folds, if there are to be any.

    Raises:
        SpectroError: A class would be left without training rows, there are fewer sources than folds, or val has
            nothing to say.
    """
    training = task.training_rows(config, dataset)
    _check_objective(config, dataset)
    return training, fold_plan.plan(config, dataset) if isinstance(config.common.validation, KFoldKnobs) else None


def _check_objective(config: Config, dataset: Dataset) -> None:
    """A run whose val has nothing to say must not start, or a sweep would end with nothing."""
    objective = config.common.objective
    if objective is None or "cv" in objective.split("/"):
        return
    records = task.in_task(config, dataset.of("val"))
    stage, _, group = objective.rpartition("/val/")[0].partition("/")
    if METRICS[objective.rpartition("/")[2]].needs_look_alikes:
        records = [record for record in records if record.label in config.look_alikes]
    elif stage == "hard":
        look_alikes = config.common.mapping.look_alikes
        members = look_alikes[group or next(iter(look_alikes))]
        records = [record for record in records if record.label in members]
    if not records:
        raise DataError(f"objective: got {objective!r}, but val has no records for it; allowed: null")


def _check_same_data(dataset: Dataset, before: RunInfo | None) -> None:
    if before is not None and before.data is not None and before.data.fingerprint != dataset.fingerprint:
        raise DataError(f"resume: the data in {dataset.root} are not those that the run began with; start a new run")


def _add_facts(info: RunInfo, stages: Mapping[str, ImageClassifier]) -> None:
    """What is known of the fitted stages: parameters, weights, epochs."""
    info.networks = {stage: facts for stage, own in stages.items() if (facts := own.facts)}
    weights = {facts["weights"]["sha256"] or "random" for facts in info.networks.values()}
    if weights:
        info.tags["weights"] = " ".join(sorted(weights))


def identity_of(config: Config) -> dict[str, Any]:
    """What is known of a run before it has seen its data: the first entries of its ``run.json``."""
    common = config.common
    commit = git_commit(Path(__file__).parent)
    return {
        "run_name": f"{common.model.name} {config.stage} seed {common.seed}",
        "experiment": common.mapping.name,
        "tags": {
            "model": common.model.name,
            "stage": config.stage,
            "mapping": common.mapping.name,
            "augmentation": common.augmentation.label,
            "seed": str(common.seed),
            "git_commit": commit or "unknown",
        },
        "config": _without_password(config.raw),
        "seed": common.seed,
        "git_commit": commit,
        "mlflow": MlflowEntry.new(common.tracking.uri, Path(common.outputs)),
    }


def _without_password(raw: dict[str, Any]) -> dict[str, Any]:
    """The configuration as it goes to MLflow's parameters."""
    uri = raw["tracking"]["uri"]
    return raw if uri is None else {**raw, "tracking": {**raw["tracking"], "uri": redact(uri)}}


def data_name(config: Config) -> str:
    """The name of the data set: of the demo data their set, else the folder's."""
    knobs = config.common.data
    return knobs.label_set if isinstance(knobs, DemoKnobs) else Path(knobs.root).name


def data_info(config: Config, dataset: Dataset) -> DataInfo:
    """The data set for ``run.json``."""
    return DataInfo(
        name=data_name(config),
        root=str(dataset.root),
        fingerprint=dataset.fingerprint,
        records=dataset.counts(),
        split_here=dataset.split_here,
        ignored=dataset.ignored,
        copies=dataset.copies,
        left_out=dict(dataset.left_out),
    )


def _unknown_exclusions(config: Config, dataset: Dataset) -> list[str]:
    known = {record.source for record in dataset.records}
    unknown = sorted(set(config.common.augmentation.exclude or {}) - known)
    return [f"augmentation.exclude names sources that are not there: {', '.join(unknown)}"] if unknown else []


def _never_predicted(tasks: Mapping[str, Mapping[str, Predictions]]) -> list[str]:
    """Classes that val has and that no val record is called, in the whole task and in its stages."""
    lines = []
    for name, splits in tasks.items():
        val = splits["val"]
        never = sorted(set(val.y_true) - set(val.predicted))
        if never:
            stage = f"stage {name}" if name else "the model"
            n = int(np.isin(val.y_true, never).sum())
            lines.append(f"{stage} calls no val record {' or '.join(never)}, though {n} of {len(val.y_true)} are")
    return lines


def _texts(caught: Sequence[warnings.WarningMessage]) -> list[str]:
    """What a person should know of the warnings of a fit, each once."""
    about_code = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ImportWarning)
    return list(dict.fromkeys(str(w.message) for w in caught if not issubclass(w.category, about_code)))

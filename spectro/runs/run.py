"""One run, top to bottom: data, cross-validation, fit, evaluation, files, MLflow."""

import logging
import shlex
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from spectro import interrupt
from spectro.classifiers import ImageClassifier
from spectro.classifiers.fit_context import FitContext, OnEpoch, fit_context
from spectro.config.check import Config
from spectro.errors import DataError, SpectroError
from spectro.files import is_disk_full, write_json
from spectro.runs import results
from spectro.runs.crossval import Folds, cross_validate
from spectro.runs.predictions import never_predicted, write_predictions
from spectro.runs.review import review_run
from spectro.runs.runinfo import Cost, DataInfo, RunInfo, peak_memory_mb
from spectro.runs.task import Task, load_data
from spectro.runs.terminal import show_network, show_result

_log = logging.getLogger("spectro")


def run(
    config: Config,
    run_dir: Path,
    before: RunInfo | None = None,
    *,
    on_epoch: OnEpoch = lambda stage, history: None,
    quiet: bool = False,
    **part_of: Any,
) -> float | None:
    """Fits and evaluates one configuration, and writes its run directory.

    Args:
        config: A valid configuration.
        run_dir: The run directory.
        before: The ``run.json`` of the same run, where a killed one is resumed.
        on_epoch: Called after every epoch of a network with the stage and its history so far; its errors end the run.
        quiet: Print no result on the terminal.
        part_of: Attributes of `RunInfo` of a run that is a part of another one: ``run_name``, ``parent``, ``tags``.

    Returns:
        The objective, a val or cv metric; None where there is none.

    Raises:
        SpectroError: The data do not fit the configuration; nothing was started.
    """
    info = RunInfo.of(config, run_dir, before=before, **part_of)
    with info.phase("data"):
        config.prepare()
        task = Task(config, load_data(config))
        task.check()
        folds = Folds.of(task)
        if before is not None and before.data is not None and before.data.fingerprint != task.dataset.fingerprint:
            raise DataError(f"resume: {task.dataset.root} no longer holds the data that the run began with")
    info.data = DataInfo.of(config, task.dataset)
    info.tags["data_fingerprint"] = task.dataset.fingerprint
    info.warn(task.warnings)
    results.write_records(run_dir / "records.csv", task.dataset)
    info.write()

    with _ending(info):
        # Its import takes longer than a short fit: beside it.
        opened = info.open_in_mlflow_beside()
        results.prepare(info)
        history = results.history_writer(run_dir / "history.csv", on_epoch)
        with _fitting(info, FitContext(run_dir / "checkpoints", config.stage, history, show_network)):
            with info.phase("cross_validation") if folds else nullcontext():
                cv = cross_validate(task, folds) if folds else None
            with info.phase("fit"):
                if cv is not None and config.is_refit:
                    classifier = task.refit(cv.epochs, {stage: repeats[0] for stage, repeats in cv.stages.items()})
                else:
                    classifier = task.fit()
        _add_facts(info, task.stages_of(classifier))

        with info.phase("evaluate"):
            stages = task.evaluate(classifier)
            metrics = results.metrics_of(task, stages, cv)
            predict_records_per_s = task.predict_speed(classifier)
            info.temperature, untempered = task.temperatures(classifier)
            splits = stages[""] | ({"cv": cv.stages[""][0]} if cv else {})
            review, reviewed = review_run(task, classifier, splits, info.temperature)
            if review is not None:
                metrics |= {split: metrics[split] | review.report(p) for split, p in reviewed.items()}
                review.write(run_dir, reviewed)
        info.warn(cv.warnings if cv else [])
        in_val = {stage: [splits["val"]] for stage, splits in stages.items() if "val" in splits}
        info.warn(never_predicted(in_val, "val", "try validation=kfold, which fits the model to train and val"))
        info.warn(results.hints(task, metrics))
        info.warn(untempered)

        with info.phase("figures"):
            drawn = results.draw(info, metrics, (task, classifier, stages[""]))
        with info.phase("write"):
            results.write_use(run_dir / "model" / "use.json", task, classifier)
            classifier.save(run_dir / "model")
            results.share_weights(run_dir / "model", config.outputs)
            write_json(run_dir / "metrics.json", metrics)
            write_predictions(run_dir / "predictions.csv", stages[""], task.dataset.name_of)
            if cv is not None:
                cv.write(run_dir / "oof_predictions.csv", task.dataset.name_of)
        with info.phase("mlflow_open"):
            opened()
        with info.phase("figures"):
            info.warn(drawn())

        trainable = [facts["parameters"]["trainable"] for facts in info.networks.values()]
        info.cost = Cost(
            fit_s=info.wall_s["fit"],
            predict_records_per_s=predict_records_per_s,
            trainable_parameters=sum(trainable) if trainable else None,
            peak_memory_mb=peak_memory_mb(),
        )
        # Checkpoints are large; after them, so that no finished run has any.
        shutil.rmtree(run_dir / "checkpoints", ignore_errors=True)
        info.end("FINISHED")
    try:
        with info.phase("mlflow_send"):
            info.send_to_mlflow_beside()
        info.write()
        if not quiet:
            show_result(info, metrics)
    except OSError as error:  # a full disk: all results are there
        if info.mlflow.sent or info.mlflow.tracking_uri is None:  # else there was a warning
            _log.warning(
                "The run has finished, but not all was written or shown (%s). Nothing is lost; send it later: "
                "spectro resend %s",
                error,
                shlex.quote(str(run_dir)),
            )
    return metrics["objective"]


def fit_and_score_trial(task: Task, info: RunInfo, on_epoch: OnEpoch) -> float:
    """One trial of a search: fits and evaluates what its objective needs, and never reads test.

    Metrics, predictions and history are written beside the trial's ``run.json``. ``on_epoch`` is as that of `run`.

    Returns:
        The objective.
    """
    run_dir, name_of = info.folder, task.dataset.name_of
    history = results.history_writer(run_dir / "history.csv", on_epoch)
    with _fitting(info, FitContext(None, task.config.stage, history)):
        folds = Folds.of(task) if "cv" in str(task.config.common.objective).split("/") else None
        if folds is not None:
            with info.phase("cross_validation"):
                cv = cross_validate(task, folds)
            with info.phase("evaluate"):
                metrics = results.metrics_of(task, {}, cv)
            cv.write(run_dir / "oof_predictions.csv", name_of)
            info.warn(cv.warnings)
        else:
            with info.phase("fit"):
                classifier = task.fit()
            with info.phase("evaluate"):
                stages = task.evaluate(classifier, splits=("val",))
                metrics = results.metrics_of(task, stages)
            write_predictions(run_dir / "predictions.csv", stages[""], name_of)
            _add_facts(info, task.stages_of(classifier))
    write_json(run_dir / "metrics.json", metrics)
    info.end("FINISHED")
    return float(metrics["objective"])


@contextmanager
def _ending(info: RunInfo) -> Iterator[None]:
    """A run that an error or an interrupt leaves ends as FAILED or KILLED, and is sent to MLflow."""
    try:
        yield
    except BaseException as error:
        with suppress(OSError):  # a full disk: run.json stays as it was
            if interrupt.caused(error):
                info.end("KILLED", "interrupted")
            else:
                info.end("FAILED", f"{type(error).__name__}: {error}")
            info.send_to_mlflow_beside()
        if is_disk_full(error):
            file, folder = getattr(error, "filename", None) or info.folder, shlex.quote(str(info.folder))
            message = f"{file}: the disk is full; the run goes on after spectro train resume={folder}"
            raise SpectroError(message) from error
        raise


@contextmanager
def _fitting(info: RunInfo, context: FitContext) -> Iterator[None]:
    """Fits inside have this context, and their warnings are added to the run's."""
    about_code = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ImportWarning)
    with warnings.catch_warnings(record=True) as caught, fit_context(context):
        warnings.simplefilter("always")
        yield
    info.warn(str(warning.message) for warning in caught if not issubclass(warning.category, about_code))


def _add_facts(info: RunInfo, stages: Mapping[str, ImageClassifier]) -> None:
    """Facts of fitted networks: parameters, weights, epochs."""
    info.networks = {stage: facts for stage, classifier in stages.items() if (facts := classifier.facts)}
    if info.networks:
        weights = {facts["weights"]["sha256"] or "random" for facts in info.networks.values()}
        info.tags["weights"] = " ".join(sorted(weights))

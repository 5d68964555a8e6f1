"""One run of several finished ones: the mean of their probabilities."""

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from spectro.classifiers import EnsembleClassifier, load
from spectro.config.received import check_modules
from spectro.config.schema import Common
from spectro.errors import DataError, ModelError, SpectroError
from spectro.evaluation.metrics import encode
from spectro.files import read_json, write_json
from spectro.paths import new_folder, short
from spectro.runs import results
from spectro.runs.crossval import CrossValidated
from spectro.runs.predictions import Predictions, read_predictions, write_predictions
from spectro.runs.review import Review, load_review, tempered
from spectro.runs.runinfo import Cost, RunInfo
from spectro.runs.terminal import show_result

# What files of predictions hold: split or repeat -> predictions.
_Tables = Mapping[str, Predictions]
# Least probability of a true label where members are chosen: one record must not decide.
_LEAST = 1e-4


def combine(members: Sequence[RunInfo], *, outputs: Path, name: str | None = None, greedy: bool = False) -> RunInfo:
    """Writes a run whose model is the mean of the models of finished runs, with no temperature but theirs.

    Nothing is predicted anew: its predictions are means of those that the runs wrote, of test, and of val and out of
    fold where all runs have the same records and folds.

    Args:
        members: Runs of the same data and classes.
        outputs: The folder that gets ``runs/``.
        name: Of its model; None: those of its members.
        greedy: Choose the members by out-of-fold log loss: the best one, and then, as long as one does, whichever
            lowers that of the mean most (Caruana et al., 2004, "Ensemble selection from libraries of models", with
            every model once).

    Raises:
        SpectroError: The runs cannot be combined; nothing was written.
    """
    if len(members) < 2:
        raise DataError(f"got {len(members)} run; allowed: two finished runs or more")
    if len(stages := {str(info.config["cascade_stage"]["name"]) for info in members}) > 1:
        raise DataError(f"cascade_stage: got {' and '.join(sorted(stages))}; allowed: runs that agree in it")
    tables = [read_predictions(info.folder / "predictions.csv") for info in members]
    shared = members[0].config
    stage, look_alikes = shared["cascade_stage"]["name"], shared["mapping"].get("look_alikes") or {}
    groups = look_alikes if stage == "full" else {}
    folds: list[_Tables] = []
    for info in members:
        path = info.folder / "oof_predictions.csv"
        repeats = read_predictions(path, "repeat") if path.exists() else {}
        # As the saved models predict: without their temperatures members would have other weights in the mean.
        folds.append({repeat: tempered(p, info.temperature, groups) for repeat, p in repeats.items()})
    notes = []
    if greedy:
        if not _means(folds):
            raise DataError("--greedy: got runs without the same folds; allowed: validation=kfold in all of them")
        chosen = choose([next(iter(repeats.values())) for repeats in folds])
        members, tables = [members[i] for i in chosen], [tables[i] for i in chosen]
        folds = [folds[i] for i in chosen]
        notes = ["the members were chosen by the predictions out of fold that cv is computed from: it is optimistic"]
    classifier, use = _models(members)
    first, means = members[0], {split: p for split, p in _means(tables).items() if split in ("val", "test")}
    pair = [label for labels in look_alikes.values() for label in labels] if stage in ("full", "flat") else []
    of_folds, seed = list(_means(folds).values()), first.seed or 0
    metrics: dict[str, Any] = {split: p.report(seed=seed, look_alikes=pair) for split, p in means.items()}
    if of_folds and of_folds[0].fold is not None:
        cv = CrossValidated({"": of_folds}, int(of_folds[0].fold.max()) + 1, pair, [], {})
        metrics["cv"] = cv.report("", seed=seed)
    split, _, metric = str(first.config.get("objective")).rpartition("/")
    is_same = all(info.config.get("objective") == first.config.get("objective") for info in members)
    metrics |= {"stages": {}, "objective": metrics[split][metric] if is_same and split in metrics else None}

    review, reviewed = load_review(first.folder / "model", list(classifier.classes_)), dict(means)
    if of_folds:
        reviewed = {"cv": of_folds[0]} | {split: p for split, p in means.items() if split != "val"}
    chosen_on = next((split for split in ("cv", "val") if split in reviewed and split in metrics), None)
    if review is not None and chosen_on is not None:
        # Features are those of the first member, and so are its neighbours.
        review = Review.of(review.knobs, chosen_on, reviewed[chosen_on], review.neighbours)
        metrics |= {split: metrics[split] | review.report(p) for split, p in reviewed.items()}
    info = _info(members, outputs, name)
    try:
        info.warn(notes)
        info.write()
        (info.folder / "model").mkdir()
        write_json(info.folder / "model" / "use.json", use)
        if review is not None and chosen_on is not None:
            review.write(info.folder, reviewed)
        classifier.save(info.folder / "model")
        results.share_weights(info.folder / "model", outputs)
        shutil.copy(first.folder / "records.csv", info.folder)
        write_json(info.folder / "metrics.json", metrics)
        write_predictions(info.folder / "predictions.csv", means, lambda record: record.path.as_posix())
        if "cv" in metrics:
            cv.write(info.folder / "oof_predictions.csv", lambda record: record.path.as_posix())
        drawn = results.draw(info, metrics)
        info.warn(drawn())
        info.end("FINISHED")
    except BaseException:
        shutil.rmtree(info.folder, ignore_errors=True)
        raise
    info.send_to_mlflow_beside()
    show_result(info, metrics)
    return info


def _means(tables: Sequence[_Tables]) -> dict[str, Predictions]:
    """Mean predictions of each split or repeat that all members have, of the same records, classes and folds."""
    means = {}
    for key in tables[0]:
        parts = [_ordered(table[key]) for table in tables if key in table]
        same = {(*p.classes, *(r.path for r in p.records), *([] if p.fold is None else p.fold.tolist())) for p in parts}
        if len(parts) == len(tables) and len(same) == 1:
            means[key] = replace(parts[0], probabilities=np.mean([p.probabilities for p in parts], axis=0))
    return means


def _ordered(p: Predictions) -> Predictions:
    order = sorted(range(len(p.records)), key=lambda i: str(p.records[i].path))
    fold = None if p.fold is None else p.fold[order]
    return Predictions([p.records[i] for i in order], p.y_true[order], p.classes, p.probabilities[order], fold)


def choose(members: Sequence[Predictions], k: int | None = None) -> list[int]:
    """Members of the ensemble of the least log loss, chosen greedily (Caruana et al., 2004), each at most once.

    Macro-F1 moves in steps of a record; ensembles chosen by it had worse probabilities, and no better labels
    (docs/background/settings.md#ensembles-of-families).

    Args:
        members: Predictions of the same records, test not among them.
        k: Number of members at most; None: no limit.

    Returns:
        Numbers of the members, the best one first.
    """
    members = [_ordered(p) for p in members]
    true = encode(members[0].y_true, list(members[0].classes), "labels")
    of_label = np.array([p.probabilities[np.arange(len(true)), true] for p in members])

    def loss(chosen: Sequence[int]) -> float:
        return float(-np.log(np.maximum(of_label[list(chosen)].mean(axis=0), _LEAST)).mean())

    chosen, least = list[int](), np.inf
    while (rest := [i for i in range(len(members)) if i not in chosen]) and len(chosen) != k:
        after, best = min((loss([*chosen, i]), i) for i in rest)
        if after >= least:
            break
        chosen, least = [*chosen, best], after
    return chosen


def _models(members: Sequence[RunInfo]) -> tuple[EnsembleClassifier, dict[str, Any]]:
    """The mean of the saved models, and the content of their ``use.json``."""
    for info in members:
        check_modules({"plugins": info.config.get("plugins")}, short(info.folder))
    uses = []
    for info in members:
        path = info.folder / "model" / "use.json"
        if (content := read_json(path)) is None:
            raise ModelError(f"{path}: no such file; allowed: runs with their model/ folder")
        uses.append(content)
    for key in ("classes", "data_fingerprint", "crop", "max_megapixels"):
        if len(got := {str(use[key]) for use in uses}) > 1:
            raise DataError(f"{key}: got {' and '.join(sorted(got))}; allowed: runs that agree in it")
    return EnsembleClassifier.of([load(info.folder / "model") for info in members]), uses[0]


def _info(members: Sequence[RunInfo], outputs: Path, name: str | None) -> RunInfo:
    """A new run directory and the content of its ``run.json``: what members share, and what they cost together."""
    first = members[0]
    counts = Counter(str(info.config["model"]["name"]) for info in members)
    together = "+".join(f"{n}x{model}" if n > 1 else model for model, n in counts.items())
    name = name or (together if len(members) > 1 else f"{together} alone")  # a greedy choice of one is no second embed
    stage, seed = first.config["cascade_stage"]["name"], first.seed or 0
    folder = new_folder(outputs / "runs" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_ensemble_{stage}")
    shared = {key: value for key, value in first.config.items() if key in Common.model_fields and key != "stages"}
    if any(info.config.get("validation") != first.config.get("validation") for info in members):
        shared.pop("validation", None)
    runs = [{"model": info.config["model"]["name"], "seed": info.seed, "run": short(info.folder)} for info in members]
    networks = {f"{key} member {i}": v for i, info in enumerate(members, 1) for key, v in info.networks.items()}
    fits, speeds, trained, memory = (
        [value for info in members if (value := getattr(info.cost, key)) is not None]
        for key in ("fit_s", "predict_records_per_s", "trainable_parameters", "peak_memory_mb")
    )
    speed = float(f"{1 / sum(1 / s for s in speeds):.4g}") if len(speeds) == len(members) else None
    tags = {k: tag for k, tag in first.tags.items() if k in ("mapping", "augmentation", "data_fingerprint")}
    tags |= {"model": name, "stage": stage, "seed": str(seed), "ensemble": "true"}
    mlflow, warnings = replace(first.mlflow, tracking_uri=None), []
    try:
        mlflow = mlflow if first.mlflow.tracking_uri is None else first.mlflow.to(None, outputs)
    except SpectroError as error:
        warnings.append(f"not sent to MLflow: {error}; allowed: spectro resend {short(folder)} --uri URI")
    return RunInfo.start(
        folder,
        warnings=warnings,
        run_name=f"{name} {stage}",
        experiment=first.experiment,
        tags=tags,
        config=shared | {"model": {"name": name, "family": "ensemble"}, "ensemble": {"runs": runs}},
        seed=seed,
        data=first.data,
        mlflow=replace(mlflow, run_id=None, experiment_id=None, sent=False),
        networks=networks,
        cost=Cost(
            fit_s=sum(fits) if len(fits) == len(members) else None,
            predict_records_per_s=speed,
            trainable_parameters=sum(trained) if trained else None,
            peak_memory_mb=max(memory, default=None),
        ),
    )

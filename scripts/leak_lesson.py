"""How much does cross-validation flatter where the fold leaks? Test is not read.

    python scripts/leak_lesson.py data=demo

Two leaks, each with and without the other: scaler and PCA fitted to all rows before the folds are made, and folds dealt
over augmented rows, so that copies of one record stand in several folds and copies are judged as well. Prints macro-F1
over all out-of-fold predictions, its mean over ten seeds of the folds and, behind it, the standard deviation; of demo
data also what the same settings reach on ten times as many new recordings, fitted to all train and val records. Takes
the same KEY=VALUE words as train.py; the model is the HOG-SVM without cascade.
"""

import sys
import warnings
from typing import Any

import numpy as np

from spectro import cli

SEEDS = range(10)
_FRESH_SEED, _FRESH_TIMES = 1_000_000, 10


def _lesson(overrides: list[str]) -> None:
    from spectro import task
    from spectro.classifiers.hog_svm import DegenerateModelWarning
    from spectro.crossval import plan
    from spectro.data import labels_of
    from spectro.schema import DemoKnobs

    warnings.simplefilter("ignore", DegenerateModelWarning)
    overrides = [
        *overrides,
        "model=hog_svm",
        "cascade_stage=flat",
        "validation=kfold",
        f"validation.repeats={len(SEEDS)}",
    ]
    config = cli.composed(overrides)
    dataset = task.load_data(config)
    planned = plan(config, dataset)
    # One row for each variant of each record, and which record it is.
    X, y = task.training_set(config, dataset, planned.records)
    record_of = {record.digest: number for number, record in enumerate(planned.records)}
    row_of = np.array([record_of[digest] for digest in X.digests])
    estimator, original = config.estimator(), X.variants == "original"
    print(f"{len(planned.records)} records, {len(X)} rows, {planned.folds.max() + 1} folds, {len(SEEDS)} seeds")
    outside = _outside(estimator, X)
    for title, components in (("fitted to all rows", outside), ("fitted in the fold", None)):
        for copies, told in ((True, "copies in other folds"), (False, "copies with their record")):
            scores = []
            for seed in SEEDS:
                if copies:
                    folds, judged = _folds_over_rows(y, planned.folds.max() + 1, seed), np.full(len(y), True)
                else:
                    folds, judged = planned.folds[seed][row_of], original
                scores.append(_score(estimator, X, y, folds, judged, components))
            print(
                f"scaler and PCA {title}, {told + ':':25} {np.mean(scores):.3f} ± {np.std(scores, ddof=1):.3f}",
                flush=True,
            )
    if isinstance(config.common.data, DemoKnobs):
        from sklearn.metrics import f1_score

        knobs = config.common.data
        fresh = [f"data.seed={knobs.seed + _FRESH_SEED}", f"data.scale={knobs.scale * _FRESH_TIMES}"]
        new = task.load_data(cli.composed([*overrides, *fresh]))
        truth, predicted = labels_of(new.records), estimator.fit(X, y).predict(new.pictures(new.records))
        score = f1_score(truth.astype(str), predicted.astype(str), average="macro")
        print(f"fitted to all of them, on {len(truth)} new recordings: {score:.3f}")


def _folds_over_rows(y: np.ndarray, k: int, seed: int) -> np.ndarray:
    from sklearn.model_selection import StratifiedKFold

    folds = np.empty(len(y), dtype=int)
    for number, (_, held_out) in enumerate(StratifiedKFold(k, shuffle=True, random_state=seed).split(y, y.astype(str))):
        folds[held_out] = number
    return folds


def _outside(estimator: Any, X: Any) -> np.ndarray:
    """Components of all rows, with scaler and PCA fitted to all of them: the mistake."""
    from spectro.classifiers.fold_scores import fold_scores
    from spectro.classifiers.hog_svm import SCALERS
    from spectro.classifiers.pca import kept

    scores = fold_scores(estimator.hog, SCALERS[estimator.scaler](), X, X[:1])
    return scores["train"][:, : kept(scores["shares"], estimator.pca_variance)]


def _score(
    estimator: Any, X: Any, y: np.ndarray, folds: np.ndarray, judged: np.ndarray, components: np.ndarray | None
) -> float:
    from sklearn.metrics import f1_score
    from sklearn.svm import SVC

    from spectro.classifiers.hog_svm import absolute_gamma

    predicted = np.empty_like(y)
    for fold in range(folds.max() + 1):
        train, new = folds != fold, (folds == fold) & judged
        if components is None:
            classes = np.array(sorted(set(y[train])), dtype=object)
            predicted[new] = classes[estimator.out_of_fold(X[train], y[train], None, None, X[new]).argmax(axis=1)]
            continue
        gamma = absolute_gamma(estimator.gamma, components[train])
        svc = SVC(C=estimator.C, gamma=gamma, class_weight=estimator.class_weight, break_ties=True)
        predicted[new] = svc.fit(components[train], y[train].astype(str)).predict(components[new])
    return float(f1_score(y[judged].astype(str), predicted[judged].astype(str), average="macro"))


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
    else:
        cli.guard(lambda: _lesson(sys.argv[1:]), sys.argv[1:])

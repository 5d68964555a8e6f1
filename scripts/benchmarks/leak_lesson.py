"""How optimistic is cross-validation where folds leak? Test is not read.

    python scripts/benchmarks/leak_lesson.py data=demo

Two leaks, each with and without the other: scaler and PCA fitted to all rows before the folds are made, and folds drawn
over augmented rows, so that copies of one record stand in several folds and copies are evaluated as well. Prints
macro-F1 over all out-of-fold predictions, mean and standard deviation over ten seeds: of the configured settings, and
of the best of 15 settings of C and gamma, by the score of this way and by that of leak-free cross-validation.
A seed gives other folds, and other demo data; for these it also prints the scores of the models on 1,000 and more new
recordings, fitted to all train and val records: the configured one, and the best one by leak-free cross-validation.
Takes the same KEY=VALUE words as train.py; the model is the HOG-SVM without cascade.
"""

import itertools
import sys
import warnings
from typing import Any

import numpy as np
from sklearn.base import clone

from spectro.cli import main as cli

SEEDS = range(10)
C, GAMMA = (1.0, 10.0, 100.0), ("0.03x", "0.1x", "0.3x", "1.0x", "3.0x")
_FRESH = ("data.seed=1000000", "data.scale=10.0")
WAYS = [
    (where, copies) for where in ("before the folds", "in the fold") for copies in ("anywhere", "with their record")
]


def _lesson(overrides: list[str]) -> None:
    from spectro.classifiers.svm import DegenerateModelWarning
    from spectro.config.schema import DemoKnobs
    from spectro.data import labels_of
    from spectro.runs import task
    from spectro.runs.crossval import Folds

    # Some of the settings give degenerate models; the score shows it.
    warnings.simplefilter("ignore", DegenerateModelWarning)
    overrides = [*overrides, "model=hog_svm", "cascade_stage=flat", "validation=kfold"]
    is_demo = isinstance(cli.composed(overrides).common.data, DemoKnobs)
    new = task.load_data(cli.composed([*overrides, *_FRESH])) if is_demo else None
    fresh: list[list[float]] = []
    # (seed, way, settings): the configured settings first
    scores = np.empty((len(SEEDS), len(WAYS), 1 + len(C) * len(GAMMA)))
    for seed in SEEDS:
        other = [f"validation.seed={seed}", *([f"data.seed={seed}"] if is_demo else [])]
        config = cli.composed([*overrides, *other])
        dataset = task.load_data(config)
        setup = task.Task(config, dataset)
        planned, configured_svm = Folds.of(setup), config.estimator()
        # One row for each view of each record, and which record it is.
        X, y = setup.training_set(planned.records)
        record_of = {record.digest: number for number, record in enumerate(planned.records)}
        folds = planned.number[0][[record_of[digest] for digest in X.digests]]
        over_rows = _folds_over_rows(y, config.common.validation.k, seed)
        outside, evaluated = _outside(configured_svm, X), {True: np.full(len(y), True), False: X.views == "original"}
        settings = [
            configured_svm,
            *(clone(configured_svm).set_params(C=c, gamma=g) for c, g in itertools.product(C, GAMMA)),
        ]
        for (way, (where, copies)), (n, estimator) in itertools.product(enumerate(WAYS), enumerate(settings)):
            components, anywhere = (outside if where == "before the folds" else None), copies == "anywhere"
            fold_of_row = over_rows if anywhere else folds
            scores[seed, way, n] = _score(estimator, X, y, fold_of_row, evaluated[anywhere], components)
        if new is not None:
            fitted = [s.fit(X, y) for s in (configured_svm, settings[1 + int(scores[seed, -1, 1:].argmax())])]
            fresh.append([_macro_f1(labels_of(new.records), s.predict(new.images(new.records))) for s in fitted])
    print(f"{len(planned.records)} records, {len(X)} rows, {len(SEEDS)} seeds\n")
    print("| scaler and PCA | copies | as configured | best of 15, promised | the same, leak-free |\n|" + " --- |" * 5)
    for way, (where, copies) in enumerate(WAYS):
        best = 1 + scores[:, way, 1:].argmax(axis=1)
        columns = scores[:, way, 0], scores[SEEDS, way, best], scores[SEEDS, -1, best]
        print(f"| fitted {where} | {copies} | {' | '.join(map(_mean_std, columns))} |")
    if fresh:
        configured, best_of = np.array(fresh).T
        print(f"| new recordings | | {_mean_std(configured)} | | {_mean_std(best_of)} |")


def _mean_std(values: np.ndarray) -> str:
    return f"{values.mean():.3f} ± {values.std(ddof=1):.3f}"


def _macro_f1(truth: np.ndarray, predicted: np.ndarray) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(truth.astype(str), predicted.astype(str), average="macro"))


def _folds_over_rows(y: np.ndarray, k: int, seed: int) -> np.ndarray:
    from sklearn.model_selection import StratifiedKFold

    folds = np.empty(len(y), dtype=int)
    for number, (_, held_out) in enumerate(StratifiedKFold(k, shuffle=True, random_state=seed).split(y, y.astype(str))):
        folds[held_out] = number
    return folds


def _outside(estimator: Any, X: Any) -> np.ndarray:
    """Components of all rows, with scaler and PCA fitted to all of them: the mistake."""
    from sklearn.preprocessing import StandardScaler

    from spectro.classifiers.pca import fit_pca

    scaled = StandardScaler().fit_transform(estimator.hog.features(X).astype(float))
    return fit_pca(scaled, estimator.pca_variance).transform(scaled)


def _score(
    estimator: Any, X: Any, y: np.ndarray, folds: np.ndarray, evaluated: np.ndarray, components: np.ndarray | None
) -> float:
    from sklearn.svm import SVC

    from spectro.classifiers.svm import absolute_gamma

    predicted = np.empty_like(y)
    for fold in range(folds.max() + 1):
        train, new = folds != fold, (folds == fold) & evaluated
        if components is None:
            classes = np.array(sorted(set(y[train])), dtype=object)
            predicted[new] = classes[estimator.out_of_fold(X[train], y[train], None, None, X[new]).argmax(axis=1)]
            continue
        gamma = absolute_gamma(estimator.gamma, components[train])
        svc = SVC(
            kernel=estimator.kernel, C=estimator.C, gamma=gamma, class_weight=estimator.class_weight, break_ties=True
        )
        predicted[new] = svc.fit(components[train], y[train].astype(str)).predict(components[new])
    return _macro_f1(y[evaluated], predicted[evaluated])


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
    else:
        cli.guard(lambda: _lesson(sys.argv[1:]), sys.argv[1:])

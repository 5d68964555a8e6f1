"""Which probabilities come of the pairwise decision values of an SVM? (docs/background/calibration.md)

    python scripts/benchmarks/svm_probabilities.py model=hog_svm_grid data=folder data.root=$NCEDC validation.repeats=4

Cross-validates train and val with each way, the choice of C inside the folds included. The temperature of a fold is
fitted to the other folds. Prints a row of a table for each: macro-F1, log loss, Brier score, calibration error, and the
area under risk and coverage: the mean, over all shares of the most confident records, of the share that is wrong. Means
over the repeats. Test is not read.
"""

import argparse

import numpy as np
from scipy.special import expit

from spectro.classifiers.svm import STEEPNESS, SvmClassifier
from spectro.classifiers.temperature import columns, fit_temperature, probabilities, scores_of
from spectro.cli import main as cli
from spectro.evaluation.calibration import calibration
from spectro.evaluation.metrics import macro_f1
from spectro.evaluation.selective import confidence_of
from spectro.runs.crossval import Folds, cross_validate
from spectro.runs.task import Task, load_data


def square(decisions: np.ndarray) -> np.ndarray:
    """Decision values for each class against each other one, ``(n, k, k)``."""
    k = round((1 + np.sqrt(1 + 8 * decisions.shape[1])) / 2)
    values = np.zeros((len(decisions), k, k))
    first, second = np.triu_indices(k, 1)
    values[:, first, second], values[:, second, first] = decisions, -decisions
    return values


def votes(decisions: np.ndarray) -> np.ndarray:
    """scikit-learn's decision function of the shape ``ovr``: won pairs, and a third at most for the sums."""
    values = square(decisions)
    sums = values.sum(axis=2)
    return np.asarray((values > 0).sum(axis=2) + sums / (3 * (np.abs(sums) + 1)))


def mean(decisions: np.ndarray) -> np.ndarray:
    """The mean decision value of each class."""
    return np.asarray(square(decisions).mean(axis=2))


def coupling(decisions: np.ndarray) -> np.ndarray:
    """Wu, Lin and Weng, 2004, "Probability estimates for multi-class classification by pairwise coupling", method 2."""
    r = expit(STEEPNESS * square(decisions)) * (1 - np.eye(square(decisions).shape[1]))
    n, k = r.shape[:2]
    system = np.zeros((n, k + 1, k + 1))
    system[:, :k, :k] = -r.transpose(0, 2, 1) * r
    system[:, range(k), range(k)] = (r**2).sum(axis=1) + 1e-9
    system[:, :k, k] = system[:, k, :k] = 1
    return scores_of(np.linalg.solve(system, np.eye(k + 1)[None, :, [k]])[:, :k, 0])


WAYS = {"votes": votes, "mean": mean, "coupling": coupling, "product": SvmClassifier._scores_of}


def main() -> None:
    """Prints the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments = cli.parse_with_overrides(parser, "as for spectro train")
    cli.guard(lambda: measure(arguments.overrides), arguments.overrides)


def measure(overrides: list[str]) -> None:
    """Measures and prints."""
    config = cli.composed(["validation=kfold", "cascade_stage=flat", *overrides])
    task = Task(config, load_data(config))
    folds = Folds.of(task)
    assert folds is not None
    for name, way in WAYS.items():
        # Of two classes all ways are one.
        SvmClassifier._scores_of = staticmethod(  # type: ignore[method-assign]
            lambda decisions, way=way: columns(decisions) if decisions.ndim == 1 else way(decisions)
        )
        rows = []
        for repeat in cross_validate(task, folds).stages[""]:
            scores, k = scores_of(repeat.probabilities), len(repeat.classes)
            truth, fold = np.searchsorted(repeat.classes, repeat.y_true), np.asarray(repeat.fold)
            p = np.zeros(scores.shape)
            for number in np.unique(fold):
                new = fold == number
                p[new] = probabilities(scores[new], fit_temperature(scores[~new], truth[~new]) or 1.0)
            confusion = np.zeros((k, k))
            np.add.at(confusion, (truth, p.argmax(axis=1)), 1)
            of = calibration(repeat.y_true, p, repeat.classes)
            wrong = (p.argmax(axis=1) != truth)[np.argsort(-confidence_of(p), kind="stable")]
            area = (wrong.cumsum() / np.arange(1, len(wrong) + 1)).mean()
            rows.append([float(macro_f1(confusion, ())), of["nll"], of["brier"], of["ece"], area])
        print(f"| {config.model} | {name} | {' | '.join(f'{v:.3f}' for v in np.mean(rows, axis=0))} |", flush=True)


if __name__ == "__main__":
    main()

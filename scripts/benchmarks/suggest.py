"""Learning curves of images that ``spectro suggest`` chooses and of random ones. (docs/how-to/labels.md)

    python scripts/benchmarks/suggest.py model=pixels data.scale=4
    python scripts/benchmarks/suggest.py --batch 8 model=pixels data=folder data.root=$NCEDC

Train and val are divided into three folds. In turn one is for evaluation, and the labels of the other two are hidden
but for a share of each class. In each of several rounds a batch of them is labelled: at random, of the smallest
margins, or as suggest chooses. All start alike. Test is not read. Prints a row of a table for each round: labels,
macro-F1 of all records of train and val by random choice, and what the others gain, with 95 % intervals over records
and seeds.
"""

import argparse
from collections.abc import Callable

import numpy as np

from spectro.cli import main as cli
from spectro.data import labels_of
from spectro.data.splits import folds, group_numbers, part_of
from spectro.evaluation.paired import differences, score_over_seeds
from spectro.labels.suggest import choose, margins
from spectro.runs.task import Task, load_data

Choose = Callable[[np.ndarray, np.ndarray, int, np.random.Generator], np.ndarray]
METHODS: dict[str, Choose] = {
    "random": lambda features, p, n, rng: rng.permutation(len(p))[:n],
    "margin": lambda features, p, n, rng: np.argsort(margins(p), kind="stable")[:n],
    "suggest": lambda features, p, n, rng: choose(features, p, n),
}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=10, help="images that are labelled at a time (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--share", type=float, default=0.1, help="of each class that is labelled first (%(default)s)")
    arguments = cli.parse_with_overrides(parser, "as for spectro train")
    cli.guard(lambda: measure(arguments), arguments.overrides)


def measure(arguments: argparse.Namespace) -> None:
    """Measures and prints."""
    config = cli.composed(["cascade_stage=flat", *arguments.overrides])
    task = Task(config, load_data(config))
    records, labels = task.train_and_val, labels_of(task.train_and_val)
    groups, classes = group_numbers(records), np.array(task.dataset.classes, dtype=object)
    shape = (arguments.rounds + 1, arguments.seeds, len(records))
    predicted = {method: np.full(shape, "", dtype=object) for method in METHODS}
    n_labelled = np.zeros(arguments.rounds + 1)
    for seed in range(arguments.seeds):
        fold = folds(labels, groups, 3, seed)
        for number in range(3):
            pool, new = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
            first = part_of(labels[pool], groups[pool], arguments.share, [seed, number])
            for method, chooses in METHODS.items():
                rng, labelled = np.random.default_rng([seed, number]), first.copy()
                for step in range(arguments.rounds + 1):
                    n_labelled[step] += labelled.sum() / len(METHODS) / 3 / arguments.seeds
                    known = [records[i] for i in pool[labelled]]
                    classifier = task.estimator().fit(*task.training_set(known))
                    images = task.dataset.images([records[i] for i in new])
                    predicted[method][step, seed, new] = classifier.predict(images)
                    rest = np.flatnonzero(~labelled)
                    stages, features = classifier.outputs(task.dataset.images([records[i] for i in pool[rest]]))
                    labelled[rest[chooses(features, stages[""].probabilities, arguments.batch, rng)]] = True
    sources = groups.tolist()
    for step, n in enumerate(n_labelled):
        base = predicted["random"][step]
        score = score_over_seeds(labels, base, classes, sources=sources)["macro_f1"]
        gains = [
            str(differences(labels, predicted[method][step], base, classes, sources=sources)["macro_f1"])
            for method in ("margin", "suggest")
        ]
        print(f"| {n:.0f} | {score} | {' | '.join(gains)} |", flush=True)


if __name__ == "__main__":
    main()

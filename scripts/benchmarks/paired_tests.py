"""Error rates of the tests of docs/background/statistics.md on simulated data, where the truth is known.

    python scripts/benchmarks/paired_tests.py mcnemar      false alarms of McNemar's test
    python scripts/benchmarks/paired_tests.py folds        false alarms of the t-test over folds, corrected and not
    python scripts/benchmarks/paired_tests.py difference   coverage of the interval of a difference
    python scripts/benchmarks/paired_tests.py equal        the same for models that are equally good: false alarms

Without a name all four, in about twenty minutes. Same --seed, same numbers.
"""

import argparse
import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from spectro.evaluation import metrics
from spectro.evaluation.paired import corrected_resampled_t, differences, mcnemar

CLASSES = ("a", "b", "c", "d")
# Chance of a model's error to stay within the pair (a, b) or (c, d).
PAIR = 0.8


def rate(hits: list[bool]) -> str:
    """A share with its own standard error, in per cent."""
    p = float(np.mean(hits))
    return f"{100 * p:.1f} ± {100 * np.sqrt(p * (1 - p) / len(hits)):.1f} %"


def mcnemar_alarms(rng: np.random.Generator, rounds: int) -> Iterator[tuple[str, ...]]:
    """Two models that are equally good on average but err on other records."""
    yield "records", "accuracy of both", "p <= 0.05"
    for n, accuracy in itertools.product((24, 100, 400), (0.6, 0.9)):
        right = rng.random((rounds, 2, n)) < accuracy
        yield str(n), str(accuracy), rate([mcnemar(a, b).p_value <= 0.05 for a, b in right])


def centroid_accuracy(
    x: NDArray[np.float64], y: NDArray[np.intp], train: NDArray[np.bool_], neighbour: bool
) -> NDArray[np.float64]:
    """Balanced accuracy, on what is not in ``train``, of the nearest class mean or the nearest record."""
    if neighbour:
        prototypes, labels = x[train], y[train]
    else:
        labels = np.unique(y)
        prototypes = np.stack([x[train & (y == label)].mean(axis=0) for label in labels])
    # Squared distances, less what does not depend on the prototype.
    far = (prototypes**2).sum(axis=1) - 2 * x[~train] @ prototypes.T
    hit = labels[far.argmin(axis=1)] == y[~train]
    return np.mean([hit[y[~train] == label].mean() for label in np.unique(y)])


def fold_alarms(rng: np.random.Generator, rounds: int) -> Iterator[tuple[str, ...]]:
    """Two equal models by design: the same method on two sets of features that are drawn alike."""
    yield "method", "records", "folds", "corrected, p <= 0.05", "plain t-test, p <= 0.05"
    designs = [(20, 5, 1), (20, 5, 10), (20, 10, 10), (5, 5, 10), (50, 5, 10)]
    for neighbour, (per_class, k, repeats) in itertools.product((False, True), designs):
        y = np.repeat(np.arange(4), per_class)
        n = len(y)
        alarms: dict[str, list[bool]] = {"corrected": [], "plain": []}
        for _ in range(rounds):
            x = rng.normal(size=(2, n, 10))
            x[:, :, :4] += 1.5 * np.eye(4)[y]
            differences = []
            for _ in range(repeats):
                # Dealt class by class, so that each fold has as many of each.
                fold = np.concatenate([rng.permutation(per_class) % k for _ in range(4)])
                for held_out in range(k):
                    a, b = (centroid_accuracy(features, y, fold != held_out, neighbour) for features in x)
                    differences.append(a - b)
            for name, n_test in (("corrected", n / k), ("plain", 1e-12)):
                p = corrected_resampled_t(differences, n - n / k, n_test).p_value
                alarms[name].append(p is not None and p <= 0.05)
        method = "nearest record" if neighbour else "nearest mean"
        yield method, f"4 x {per_class}", f"{repeats} x {k}", rate(alarms["corrected"]), rate(alarms["plain"])


def simulated(
    rng: np.random.Generator, y: NDArray[np.intp], skill: tuple[float, float], seeds: int, spread_seeds: float
) -> NDArray[np.intp]:
    """Predictions of two models, (2, seeds, n), on the same records, some of which are hard for both."""
    n = len(y)
    hard_for_both, hard_for_one = rng.normal(size=n), 0.7 * rng.normal(size=(2, 1, n))
    of_seed, rest = spread_seeds * rng.normal(size=(2, seeds, 1)), 0.7 * rng.normal(size=(2, seeds, n))
    right = np.reshape(skill, (2, 1, 1)) + hard_for_both + hard_for_one + of_seed + rest > 0
    partner, other = y ^ 1, (y + 2 + rng.integers(0, 2, size=right.shape)) % 4
    return np.where(right, y, np.where(rng.random(right.shape) < PAIR, partner, other))


def macro_f1(y: NDArray[np.intp], predicted: NDArray[np.intp]) -> float:
    """Macro-F1 of one set of predictions."""
    tally = np.zeros((4, 4))
    np.add.at(tally, (y, predicted), 1)
    return float(metrics.macro_f1(tally, "0123"))


def difference_coverage(
    rng: np.random.Generator, rounds: int, skill: tuple[float, float] = (1.9, 1.3)
) -> Iterator[tuple[str, ...]]:
    """The interval of a difference against the one of a hundred thousand records and hundreds of seeds."""
    yield (
        "records per class",
        "seeds",
        "seeds differ by",
        "true difference",
        "coverage",
        "mean width",
        "detected",
        "smallest",
    )
    names = np.array(CLASSES)
    designs = [(1, 0.0), (1, 0.3), (3, 0.0), (3, 0.3), (5, 0.0), (5, 0.3)]
    sizes = [(5, 5, 5, 5), (15, 15, 15, 15), (50, 50, 50, 50), (1, 5, 15, 50)]
    for counts, (seeds, spread) in itertools.product(sizes, designs):
        y = np.repeat(np.arange(4), counts)
        true = []
        for _ in range(400):
            many = np.repeat(np.arange(4), np.array(counts) * 2000 // sum(counts) + 1)
            a, b = simulated(rng, many, skill, 1, spread)[:, 0]
            true.append(macro_f1(many, a) - macro_f1(many, b))
        truth = float(np.mean(true))
        covered, detected, widths, smallest = [], [], [], []
        for number in range(rounds):
            a, b = names[simulated(rng, y, skill, seeds, spread)]
            d = differences(names[y], a, b, names, seed=number, resamples=1000)["macro_f1"]
            low, high = (d.value, d.value) if d.ci_low is None or d.ci_high is None else (d.ci_low, d.ci_high)
            covered.append(low <= truth <= high)
            detected.append(low > 0 or high < 0)
            widths.append(high - low)
            smallest.append(d.smallest or np.nan)
        size = str(counts[0]) if len(set(counts)) == 1 else ", ".join(map(str, counts))
        yield (
            size,
            str(seeds),
            str(spread),
            f"{truth:.3f}",
            rate(covered),
            f"{np.mean(widths):.3f}",
            rate(detected),
            f"{np.nanmedian(smallest):.3f}",
        )


def equal_coverage(rng: np.random.Generator, rounds: int) -> Iterator[tuple[str, ...]]:
    """Two models that are equally good: every detection is a false alarm."""
    return difference_coverage(rng, rounds, (1.6, 1.6))


PARTS = {"mcnemar": mcnemar_alarms, "folds": fold_alarms, "difference": difference_coverage, "equal": equal_coverage}
ROUNDS = {"mcnemar": 4000, "folds": 1000, "difference": 1000, "equal": 1000}


def main() -> None:
    """Prints the tables of the parts on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="all unless named")
    parser.add_argument("--rounds", type=int, help="simulated data sets for each row")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for part in options.parts or PARTS:
        rows = PARTS[part](np.random.default_rng(options.seed), options.rounds or ROUNDS[part])
        for number, row in enumerate(rows):
            print("| " + " | ".join(row) + " |", flush=True)
            if number == 0:
                print("|" + " --- |" * len(row))
        print()


if __name__ == "__main__":
    main()

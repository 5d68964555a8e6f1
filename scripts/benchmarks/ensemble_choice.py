"""Which members of an ensemble does a few hundred records choose best? (docs/background/settings.md)

    python scripts/benchmarks/ensemble_choice.py data=folder data.root=$NCEDC validation.repeats=2 \\
        models model=pixels models model=hog_svm_grid models model=embed embed.weights=$WEIGHTS

The overrides before the first `models` are those of all members, the others of one member each. Every member predicts
train and val out of fold. Then one half of the groups chooses the members and the other half evaluates their mean, in
20 divisions of each repeat. Prints a row for each rule, and for each member alone: macro-F1, log loss and the number of
members. Test is not read.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from sklearn.metrics import f1_score

from spectro.classifiers.temperature import fit_temperature, probabilities, scores_of
from spectro.cli import main as cli
from spectro.data.splits import group_numbers
from spectro.runs.crossval import Folds, cross_validate
from spectro.runs.ensemble import choose
from spectro.runs.predictions import Predictions
from spectro.runs.task import Task, load_data

DIVISIONS = 20
Rule = Callable[[Sequence[Predictions]], list[int]]


def main() -> None:
    """Prints the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments = cli.parse_with_overrides(parser, "as for spectro train")
    cli.guard(lambda: measure(arguments.overrides), arguments.overrides)


def measure(words: list[str]) -> None:
    """Measures and prints."""
    starts = [i for i, word in enumerate(words) if word == "models"]
    parts = [words[i + 1 : j] for i, j in zip(starts, [*starts[1:], len(words)], strict=True)]
    members = []
    for part in parts:
        config = cli.composed(["validation=kfold", "cascade_stage=flat", *words[: starts[0]], *part])
        task = Task(config, load_data(config))
        folds = Folds.of(task)
        assert folds is not None
        members.append([calibrated(repeat) for repeat in cross_validate(task, folds).stages[""]])
    for row in rows_of(members, [str(part[0]) for part in parts]):
        print(row, flush=True)


def calibrated(p: Predictions) -> Predictions:
    """As the saved model would predict: with the temperature that suits all out-of-fold predictions."""
    scores = scores_of(p.probabilities)
    temperature = fit_temperature(scores, np.searchsorted(p.classes, p.y_true)) or 1.0
    return replace(p, probabilities=probabilities(scores, temperature))


def rows_of(members: Sequence[Sequence[Predictions]], names: Sequence[str]) -> list[str]:
    """Rows of the table from the out-of-fold predictions of each member and repeat, records in one order."""
    rules: dict[str, Rule] = {
        "best by macro-F1": lambda parts: [int(np.argmax([score(p) for p in parts]))],
        "greedy by macro-F1": greedy,
        "greedy by log loss": choose,
        "all": lambda parts: list(range(len(parts))),
    }
    rules |= {name: lambda parts, i=i: [i] for i, name in enumerate(names)}  # type: ignore[misc]
    results: dict[str, list[tuple[float, float, int]]] = {name: [] for name in rules}
    for repeat in zip(*members, strict=True):
        chance, y, groups = np.random.default_rng(0), repeat[0].y_true, group_numbers(repeat[0].records)
        for _ in range(DIVISIONS):
            first = divided(groups, y, chance)
            for here, there in ((first, ~first), (~first, first)):
                for name, rule in rules.items():
                    chosen = rule([part(p, here) for p in repeat])
                    mean = mean_of([part(repeat[i], there) for i in chosen])
                    p_true = mean.probabilities[np.arange(len(mean.y_true)), np.searchsorted(mean.classes, mean.y_true)]
                    loss = -np.log(np.maximum(p_true, 1e-4)).mean()
                    results[name].append((score(mean), loss, len(chosen)))
    means = {name: np.mean(values, axis=0) for name, values in results.items()}
    return [f"| {name} | {f1:.3f} | {loss:.3f} | {n:.1f} |" for name, (f1, loss, n) in means.items()]


def divided(groups: np.ndarray, y: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Records of a random half of the groups, drawn until each half has two records of every class if it can be."""
    names = np.unique(groups)
    for _ in range(50):
        half = np.isin(groups, chance.permutation(names)[: len(names) // 2])
        if all(min((y[half] == label).sum(), (y[~half] == label).sum()) >= 2 for label in set(y)):
            break
    return half


def part(p: Predictions, rows: np.ndarray) -> Predictions:
    """The predictions of some records."""
    return Predictions([p.records[i] for i in np.flatnonzero(rows)], p.y_true[rows], p.classes, p.probabilities[rows])


def mean_of(parts: Sequence[Predictions]) -> Predictions:
    """The mean of predictions of the same records."""
    return replace(parts[0], probabilities=np.mean([p.probabilities for p in parts], axis=0))


def score(p: Predictions) -> float:
    """Macro-F1."""
    return float(f1_score(p.y_true, p.predicted, average="macro", zero_division=0))


def greedy(parts: Sequence[Predictions]) -> list[int]:
    """As `spectro.runs.ensemble.choose`, by macro-F1."""
    chosen, most = list[int](), -1.0
    while rest := [i for i in range(len(parts)) if i not in chosen]:
        after, best = max((score(mean_of([parts[j] for j in [*chosen, i]])), -i) for i in rest)
        if after <= most:
            break
        chosen, most = [*chosen, -best], after
    return chosen


if __name__ == "__main__":
    main()

"""Measures the coverage of 95 % intervals on simulated test sets.

    python scripts/benchmarks/interval_coverage.py [--repeats 200] [--details] [--groups]

A case is a number of test sources in each class and a classifier, given by the probability of each prediction for a
source of each class. Each repeat draws a test set and makes its intervals. The true value is the metric of the expected
confusion matrix for the same class sizes. An interval without width counts as a miss. The first line of each table is
the method of `spectro.evaluation.score`, with 400 resamples in place of 1,000; the others are alternatives. Printed are
the mean over classifiers and numbers of classes, and the smallest. ``--groups``: only the table of groups that span
classes, such as stations.
"""

import argparse
from collections.abc import Callable, Mapping
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from spectro.evaluation import score, wilson
from spectro.evaluation.intervals import design_effects, draw_tallies, pseudo_observations
from spectro.evaluation.metrics import METRICS, evaluate

Array = NDArray[np.float64]
Bounds = tuple[Array, Array]
PAIR = ["0", "1"]
RESAMPLES = 400
NORMAL = NormalDist()
# Sources of each class, repeated until every class has a number.
SIZES = {"5": [5], "15": [15], "50": [50], "2 to 50": [2, 5, 15, 50], "1 to 3": [1, 2, 3]}


def classifiers(k: int) -> dict[str, Array]:
    """What is predicted for a source of each class, with which probability: (k, k), rows are the truth."""

    def even(right: float) -> Array:
        return np.where(np.eye(k) > 0, right, (1 - right) / (k - 1))

    pair = even(0.95)
    pair[:2] = 0.05 / (k - 2)
    pair[:2, :2] = [[0.65, 0.30], [0.25, 0.70]]
    half = even(0.7)
    half[k // 2 :] = np.eye(k)[k // 2 :]
    return {"0.98": even(0.98), "0.9": even(0.9), "0.6": even(0.6), "look-alikes": pair, "half perfect": half}


def drawn(p: Array, sizes: NDArray[np.intp], records: int, rng: np.random.Generator) -> tuple[NDArray[np.intp], ...]:
    """A test set: source, truth and prediction of each record.

    With ``records`` above 1 a source has 1 to so many, and each record but the first is predicted like the first
    one with probability 0.7.
    """
    truth = np.repeat(np.arange(len(sizes)), sizes)
    counts = rng.integers(1, records + 1, len(truth))
    source = np.repeat(np.arange(len(truth)), counts)
    edges = p.cumsum(axis=1)[truth[source]]
    predicted = np.minimum((rng.random((len(source), 1)) > edges).sum(axis=1), len(p) - 1)
    first = np.searchsorted(source, np.arange(len(truth)))
    follows = rng.random(len(source)) < 0.7
    return source, truth[source], np.where(follows, predicted[first][source], predicted) if records > 1 else predicted


def statistic(matrices: Array) -> Array:
    """The metrics of confusion matrices: (r, k, k) to (r, q)."""
    labels = [str(label) for label in range(matrices.shape[-1])]
    return np.stack(list(evaluate(matrices, labels, PAIR).values()), axis=1)


def ours(tallies: Array, strata: NDArray[np.intp], seed: int) -> Bounds:
    """What the library does."""
    return interval(tallies, strata, seed, pseudo_observations(tallies.sum(axis=2), strata, tallies.shape[1]))


def interval(
    tallies: Array, strata: NDArray[np.intp], seed: int, pseudo: Mapping[int, tuple[Array, Array]], level: float = 0.95
) -> Bounds:
    """Percentile interval of the stratified bootstrap."""
    sums = draw_tallies(tallies, strata, pseudo, np.random.default_rng(seed), RESAMPLES)
    low, high = np.quantile(statistic(sums), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def percentile(tallies: Array, strata: NDArray[np.intp], seed: int) -> Bounds:
    """The plain stratified bootstrap."""
    return interval(tallies, strata, seed, {})


def widened(tallies: Array, strata: NDArray[np.intp], seed: int) -> Bounds:
    """The plain one at a level that makes up for few units: T. Hesterberg (2015), The American Statistician 69, 371."""
    from scipy.stats import t

    n = max(2.0, len(strata) / len(set(strata.tolist())))
    level = min(1 - 2 * NORMAL.cdf(-((n / (n - 1)) ** 0.5) * t.ppf(0.975, n - 1)), 0.9999)
    return interval(tallies, strata, seed, {}, level)


def values(tallies: Array, strata: NDArray[np.intp], draw: Callable[..., Array]) -> Array:
    """The metrics of resamples, (RESAMPLES, q), whose numbers of each kind of source in a stratum ``draw`` gives."""
    flat = tallies.reshape(len(tallies), -1)
    sums = np.zeros((RESAMPLES, flat.shape[1]))
    for group in np.unique(strata):
        kinds, counts = np.unique(flat[strata == group], axis=0, return_counts=True)
        sums += draw(group, kinds, counts)
    return statistic(sums.reshape(RESAMPLES, *tallies.shape[1:]))


def bca(tallies: Array, strata: NDArray[np.intp], seed: int) -> Bounds:
    """Bias-corrected and accelerated: A. Davison and D. Hinkley (1997), "Bootstrap Methods", 5.3.2, 5.4."""
    rng = np.random.default_rng(seed)

    def draw(_: int, kinds: Array, counts: Array) -> Array:
        return rng.multinomial(counts.sum(), counts / counts.sum(), size=RESAMPLES) @ kinds

    resampled = values(tallies, strata, draw)
    value, without = statistic(tallies.sum(axis=0)[None])[0], statistic(tallies.sum(axis=0) - tallies)
    sizes = np.bincount(strata)[strata][:, None]
    means = np.stack([np.bincount(strata, column)[strata] for column in without.T], axis=1) / sizes
    influence = np.where(sizes > 1, (sizes - 1) * (means - without), 0) / sizes
    spread = (influence**2).sum(axis=0)
    skew = (influence**3).sum(axis=0) / np.maximum(6 * spread**1.5, 1e-300)
    low, high = np.zeros_like(value), np.zeros_like(value)
    for i, (column, center, a) in enumerate(zip(resampled.T, value, skew, strict=True)):
        below = ((column < center).mean() + (column <= center).mean()) / 2
        z0 = NORMAL.inv_cdf(min(max(below, 1 / RESAMPLES), 1 - 1 / RESAMPLES))
        ends = [z0 + (z0 + z) / (1 - a * (z0 + z)) for z in (NORMAL.inv_cdf(0.025), NORMAL.inv_cdf(0.975))]
        low[i], high[i] = np.quantile(column, [NORMAL.cdf(end) for end in ends])
    return low, high


def bayesian(mass: float, per_class: bool, spare: float) -> Callable[..., Bounds]:
    """Dirichlet weights: D. B. Rubin (1981), Annals of Statistics 9, 130, with made-up sources as in the library.

    Args:
        mass: How many made-up sources.
        per_class: In each class, rather than shared out among them.
        spare: By how much the weights of a class sum up to less than its sources, which makes them vary more.
    """

    def method(tallies: Array, strata: NDArray[np.intp], seed: int) -> Bounds:
        rng = np.random.default_rng(seed)
        prior = pseudo_observations(tallies.sum(axis=2), strata, tallies.shape[1])
        share = mass / 2 * (len(prior) if per_class else 1)

        def draw(group: int, kinds: Array, counts: Array) -> Array:
            made_up, weights = prior[group]
            alpha = np.concatenate([counts, weights * share])
            total = alpha.sum()
            alpha *= max(total - spare, total / 2) / total
            drawn = rng.standard_gamma(alpha, (RESAMPLES, len(alpha)))
            drawn *= counts.sum() / np.maximum(drawn.sum(axis=1, keepdims=True), 1e-300)
            return drawn @ np.concatenate([kinds, np.reshape(made_up, (len(weights), -1))])

        low, high = np.quantile(values(tallies, strata, draw), [0.025, 0.975], axis=0)
        return low, high

    return method


METHODS: dict[str, Callable[..., Bounds]] = {
    "smoothed, the default": ours,
    "percentile": percentile,
    "percentile, widened": widened,
    "BCa": bca,
    "Bayesian, 2 shared": bayesian(2, False, 0),
    "Bayesian, 2 shared, wider": bayesian(2, False, 1),
    "Bayesian, 1 a class": bayesian(1, True, 0),
}


def covered(p: Array, sizes: NDArray[np.intp], records: int, repeats: int, case: int) -> dict[str, Array]:
    """Share of the test sets whose interval contains the true value: of each method (q,), of Wilson's recalls (1,)."""
    k = len(p)
    truth = statistic((p * sizes[:, None])[None])[0]
    hits = {name: np.zeros(len(METRICS)) for name in METHODS} | {"recall, Wilson": np.zeros(1)}
    for repeat in range(repeats):
        # The test set and its resamples have nothing in common, and no two cases have either.
        rng = np.random.default_rng([records, *sizes.tolist(), case, repeat])
        source, true, pred = drawn(p, sizes, records, rng)
        cells = (source * k + true) * k + pred
        tallies = np.bincount(cells, minlength=sizes.sum() * k * k).reshape(-1, k, k).astype(float)
        strata, matrix = np.repeat(np.arange(k), sizes), tallies.sum(axis=0)
        value = statistic(matrix[None])[0]
        for name, method in METHODS.items():
            low, high = method(tallies, strata, int(rng.integers(2**32)))
            low, high = np.minimum(low, value), np.maximum(high, value)
            hits[name] += (low < high) & (low <= truth + 1e-9) & (truth - 1e-9 <= high)
        effects = design_effects(true, true == pred, source, k)
        low, high = wilson(np.diagonal(matrix) / effects, matrix.sum(axis=1) / effects)
        hits["recall, Wilson"] += np.mean((low <= np.diagonal(p)) & (np.diagonal(p) <= high))
    return {name: count / repeats for name, count in hits.items()}


def groups(n: int, logit: float, spread: float, missing: float, rng: np.random.Generator) -> Array:
    """Confusion matrices of groups that span four classes, (n, 4, 4); they differ in how well they are predicted."""
    sizes = rng.poisson([10, 4, 3, 2], (n, 4)) * (rng.random((n, 4)) >= missing)
    sizes[:, 0] += sizes.sum(axis=1) == 0
    right = 1 / (1 + np.exp(-rng.normal(logit, spread, (n, 1)) - rng.normal(0, spread / 2, (n, 4))))
    wrong = (1 - right)[..., None] / 3 * (1 - np.eye(4))
    return rng.multinomial(sizes, wrong + right[..., None] * np.eye(4)).astype(float)


def main_of_groups(repeats: int) -> None:
    """Prints the coverage and the mean width of intervals of `score` for few and many groups."""
    names, labels = ["macro_f1", "accuracy", "mcc", "recall", "recall, Wilson by record"], list("0123")
    print(f"| groups | {' | '.join(names)} |\n| --- |" + " --- |" * len(names))
    for n in (1, 3, 5, 10, 20):
        rows = []
        for case, (logit, spread) in enumerate([(1, 0.3), (1, 1.2), (3, 1)] * 2):
            population = groups(20000, logit, spread, 0.4 * (case > 2), np.random.default_rng([n, case])).sum(axis=0)
            truth = {name: float(METRICS[name](population, labels)) for name in names[:3]}
            recalls = np.diagonal(population) / population.sum(axis=1)
            hits: dict[str, list[tuple[bool, float]]] = {name: [] for name in names}
            for repeat in range(repeats):
                rng = np.random.default_rng([n, case, repeat])
                cells = groups(n, logit, spread, 0.4 * (case > 2), rng).astype(int)
                source, true, pred = np.repeat(np.argwhere(cells), cells[cells > 0], axis=0).T.tolist()
                report = score(
                    [labels[i] for i in true], [labels[i] for i in pred], labels, sources=source, resamples=RESAMPLES
                )
                ends = [(name, truth[name], report[f"{name}_ci_low"], report[f"{name}_ci_high"]) for name in truth]
                for i, of_class in enumerate(report["per_class"].values()):
                    if support := of_class["support"]:
                        ends.append(("recall", recalls[i], of_class["recall_ci_low"], of_class["recall_ci_high"]))
                        ends.append((names[4], recalls[i], *wilson(round(of_class["recall"] * support), support)))
                for name, value, low, high in ends:
                    hits[name].append((low is not None and low <= value <= high, (high or 0) - (low or 0)))
            rows.append([np.mean(hits[name], axis=0) for name in names])
        table = np.array(rows)  # (cases, names, 2)
        texts = [
            f"{100 * c[:, 0].mean():.0f} ({100 * c[:, 0].min():.0f}), {c[:, 1].mean():.2f}"
            for c in table.swapaxes(0, 1)
        ]
        print(f"| {n} | {' | '.join(texts)} |", flush=True)


def main() -> None:
    """Runs every case and prints a table for each number of records in a source."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=200, help="test sets of each case")
    parser.add_argument("--details", action="store_true", help="print each case as well")
    parser.add_argument("--groups", action="store_true", help="only groups that span classes")
    arguments = parser.parse_args()
    if arguments.groups:
        return main_of_groups(arguments.repeats)
    for records, sizes_of in ((1, SIZES), (4, {name: SIZES[name] for name in ("5", "15")})):
        print(f"\n{'one record' if records == 1 else f'1 to {records} records'} in a source")
        table: dict[str, dict[str, list[Array]]] = {}
        for name, pattern in sizes_of.items():
            for k in (4, 8) if records == 1 else (4,):
                for case, (label, p) in enumerate(classifiers(k).items()):
                    shares = covered(p, np.resize(pattern, k), records, arguments.repeats, case)
                    for method, share in shares.items():
                        table.setdefault(method, {}).setdefault(name, []).append(share)
                        if arguments.details:
                            shown = "  ".join(f"{100 * x:5.1f}" for x in share)
                            print(f"  n={name} k={k} {label:12} {method:26} {shown}", flush=True)
        for i, metric in enumerate(METRICS):
            print(f"\n| {metric}, sources in a class: | {' | '.join(sizes_of)} |")
            print("| --- |" + " --- |" * len(sizes_of))
            for method in METHODS:
                cells = [np.array(table[method][name])[:, i] * 100 for name in sizes_of]
                print(f"| {method} | " + " | ".join(f"{c.mean():.1f} ({c.min():.0f})" for c in cells) + " |")
        cells = [np.array(table["recall, Wilson"][name])[:, 0] * 100 for name in sizes_of]
        print("| recall, Wilson | " + " | ".join(f"{c.mean():.1f} ({c.min():.0f})" for c in cells) + " |")


if __name__ == "__main__":
    main()

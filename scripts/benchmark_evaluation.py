"""Effect of temperature, threshold and augmented views: ``python scripts/benchmark_evaluation.py model=hog_svm``.

For each of several seeds a model is fitted to demo data of that seed, and asked about their test records, and about
hundreds of new recordings, which tell a gain from chance. Of one fit everything is tried: temperature as fitted on val,
with no or four records of unknown label in place of one, or 1; the mean over the variants of augmentation, or the
original alone; argmax, or thresholds chosen on val. Prints tables: the first row has means over the seeds ± their
standard deviation, the others differences from it within a seed.

Takes the same KEY=VALUE words as train.py, and --seeds N.
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spectro.cli import main as cli

_FRESH = ("data.seed=1000000", "data.scale=6.0")
_LIMITS = (5, 1)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="how many seeds, from 0")
    arguments, overrides = parser.parse_known_args()
    cli.guard(lambda: _compare(overrides, range(arguments.seeds)), overrides)


def _compare(overrides: Sequence[str], seeds: Sequence[int]) -> None:
    import warnings

    from spectro.runs import task

    warnings.simplefilter("ignore")
    overrides = [*overrides, "tracking.uri=null"]
    fresh = task.load_data(cli.composed([*overrides, *_FRESH]))
    found: list[dict[tuple[str, str], dict[str, float]]] = []
    for seed in seeds:
        config = cli.composed([*overrides, f"data.seed={seed}", f"seed={seed}"])
        dataset = task.load_data(config)
        classifier = task.fit(config, dataset, *task.training_rows(config, dataset))
        asked = {"test": (dataset, dataset.of("test")), "new": (fresh, fresh.records)}
        found.append(_all_ways(config, dataset, classifier, asked))
        print(f"seed {seed} done", flush=True)
    print(f"\n{' '.join(overrides)}: {len(seeds)} seeds, {len(fresh.records)} new recordings\n")
    for records in ("test", "new"):
        _show(records, found)


def _all_ways(config: Any, dataset: Any, classifier: Any, asked: Mapping[str, Any]) -> dict:
    """(records, way) -> metric -> value."""
    from spectro.data import VARIANTS
    from spectro.evaluation import calibration, score
    from spectro.runs import task

    val = task.in_task(config, dataset.of("val"))
    X_val, y_val = dataset.images(val), task.task_labels(config, val)
    groups = task.pairs(config)
    stages = {k: own for k, own in task.stages_of(config, classifier).items() if hasattr(own, "temperature_")}
    fitted = {stage: own.temperature_ for stage, own in stages.items()}
    for own in stages.values():
        own.temperature_ = 1.0
    ones = dict.fromkeys(stages, 1.0)
    said = task.evaluate(config, dataset, classifier, ("val",))
    variants = VARIANTS[config.common.augmentation.name]
    ways: dict[str, tuple[Mapping[str, float], Sequence[str], int | None]] = {
        "plain": (fitted, ("original",), None),
        "temperature 1": (ones, ("original",), None),
        **{f"temperature, {n} unknown": (_fitted(said, stages, n), ("original",), None) for n in (0, 4)},
        "tta": (fitted, variants, None),
        **{f"threshold, {n} records": (fitted, ("original",), n) for n in _LIMITS},
    }
    found = {}
    for way, (temperatures, averaged, limit) in ways.items():
        for stage, own in stages.items():
            own.temperature_ = temperatures[stage]
        classifier.average_over(averaged).thresholds_ = ()
        if limit is not None:
            classifier.choose_thresholds(X_val, y_val, groups, min_records=limit)
        for name, (source, records) in asked.items():
            kept = task.in_task(config, records)
            truth, p = task.task_labels(config, kept), classifier.predict_proba(source.images(kept))
            report = score(truth, classifier.decide(p), list(classifier.classes_), resamples=1)
            pair = [label for members in groups.values() for label in members]
            found[name, way] = {
                "macro-F1": report["macro_f1"],
                "pair F1": float(np.mean([report["per_class"][label]["f1"] or 0.0 for label in pair])),
                **{key.upper(): calibration(truth, p, classifier.classes_)[key] for key in ("ece", "nll")},
                "moved": float(any(own.value != 0.5 for own in classifier.thresholds_)),
            }
    return found


def _fitted(said: Mapping[str, Any], stages: Sequence[str], extra: float) -> dict[str, float]:
    """Temperature of each stage, from what it says of val at temperature 1: logarithms of that are scores as well."""
    from spectro.classifiers.temperature import fit_temperature

    found = {}
    for stage in stages:
        own = said[stage if stage in said else ""]["val"]
        scores = np.log(np.maximum(own.probabilities, 1e-300))
        found[stage] = fit_temperature(scores, np.searchsorted(own.classes, own.truth), extra) or 1.0
    return found


def _show(records: str, found: Sequence[Mapping[tuple[str, str], Mapping[str, float]]]) -> None:
    keys = ("macro-F1", "pair F1", "ECE", "NLL")
    print(f"| {records} | {' | '.join(keys)} | seeds with another threshold |\n|{' --- |' * (len(keys) + 2)}")
    plain = found[0][records, "plain"].keys()
    for way in [way for name, way in found[0] if name == records]:
        table = {key: np.array([own[records, way][key] for own in found]) for key in plain}
        base = {key: np.array([own[records, "plain"][key] for own in found]) for key in plain}
        cells = []
        for key in keys:
            own = table[key] if way == "plain" else table[key] - base[key]
            spread = own.std(ddof=1) if len(own) > 1 else float("nan")
            cells.append(f"{own.mean():.3f} ± {spread:.3f}" if way == "plain" else f"{own.mean():+.3f} ± {spread:.3f}")
        print(f"| {way} | {' | '.join(cells)} | {table['moved'].sum():.0f} |")
    print()


if __name__ == "__main__":
    main()

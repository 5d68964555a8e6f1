"""Promised against measured: accuracy of the automatic part of test, false alarms on test, foreign images found.

    python train.py --multirun model=hog_svm,pixels data.seed=0,1,2,3,4 validation=kfold
    python scripts/benchmarks/review.py outputs/sweeps/SWEEP/* --foreign FOLDER ...

Runs of one data set, model and validation that differ in their seeds are one row: their records are counted together.
Thresholds are chosen anew for each target, on the predictions that the run has written. docs/background/review.md has
the results.
"""

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from spectro.classifiers import load
from spectro.config.schema import ReviewKnobs
from spectro.data import Crop, Images, ImageStore
from spectro.data.images import file_digest
from spectro.data.inputs import find_inputs
from spectro.evaluation.format import format_number, markdown_table
from spectro.evaluation.selective import automatic_report, confidence_of
from spectro.files import read_json
from spectro.runs.predictions import read_predictions
from spectro.runs.review import Review, load_review, tempered
from spectro.runs.runinfo import RunInfo

TARGETS = (0.9, 0.95)
MOST_FOREIGN = 150


def measure(folder: Path, foreign: list[Path], counted: dict[str, Any]) -> None:
    """Adds what a run has to offer: records by target, flags of test and of each foreign folder."""
    info, model = RunInfo.read(folder), folder / "model"
    classifier, use = load(model), read_json(model / "use.json")
    review = load_review(model, list(classifier.classes_))
    assert review is not None
    assert info.data is not None
    groups = info.config["mapping"]["look_alikes"] or {} if info.config["cascade_stage"]["name"] == "full" else {}
    test = read_predictions(folder / "predictions.csv")
    chosen_on = test.get("val")
    if (folder / "oof_predictions.csv").exists():
        chosen_on = tempered(read_predictions(folder / "oof_predictions.csv", "repeat")["1"], info.temperature, groups)
    assert chosen_on is not None
    for target in TARGETS:
        chosen = Review.of(ReviewKnobs(target_accuracy=target), review.split, chosen_on, review.neighbours)
        for name, p in {"chosen": chosen_on, "test": test["test"]}.items():
            automatic = chosen.thresholds.automatic(confidence_of(p.probabilities), p.predicted)
            sources = [f"{folder} {source}" for source in p.sources]
            counted[f"{name} {target}"] += list(zip(p.predicted == p.y_true, automatic, sources, strict=True))
    root = Path(str(info.data.root))
    folders = {"test": [root / record.path for record in test["test"].records]}
    folders |= {
        str(path): [item.path for item in find_inputs([path])[:MOST_FOREIGN]]
        for path in foreign
        if root not in (path, *path.parents)
    }
    for name, paths in folders.items():
        store, digests = ImageStore(crop=Crop(**use["crop"])), [file_digest(path) for path in paths]
        bad = store.add(paths, digests, classifier.specs)
        stages, features = classifier.outputs(
            Images(store, [d for path, d in zip(paths, digests, strict=True) if path not in bad])
        )
        reasons = review.reasons(*stages[""], features)
        # A crop that leaves nothing of an image is an error of the file, which has a line in any case.
        counted["test flags" if name == "test" else "foreign"] += ["unlike" in r for r in reasons] + [True] * len(bad)


def main() -> None:
    """Measures runs and prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--foreign", type=Path, nargs="*", default=[])
    arguments = parser.parse_args()
    rows: dict[tuple[str, ...], dict[str, Any]] = defaultdict(lambda: defaultdict(list))
    for folder in (path for path in arguments.runs if (path / "metrics.json").exists()):
        info = RunInfo.read(folder)
        key = info.data.name if info.data else "", info.config["model"]["name"], info.config["validation"]["name"]
        measure(folder.absolute(), [path.absolute() for path in arguments.foreign], rows[key])

    def numbers(records: list[tuple[bool, bool, str]]) -> list[str]:
        right, automatic, sources = (np.array(column) for column in zip(*records, strict=True))
        report = automatic_report(right, automatic, list(sources))
        ends = (report[f"automatic_accuracy{end}"] for end in ("", "_ci_low", "_ci_high"))
        return [f"{report['automatic']:.0%}", format_number(*ends)]

    header = [
        "data, model, validation",
        *(f"{t}: share of {n} | accuracy" for t in TARGETS for n in ("chosen", "test")),
    ]
    cells = []
    for key, c in rows.items():
        of_targets = [" | ".join(numbers(c[f"{name} {target}"])) for target in TARGETS for name in ("chosen", "test")]
        shares = [f"{np.mean(c[name]):.0%} of {len(c[name])}" if c[name] else "" for name in ("test flags", "foreign")]
        cells.append([" ".join(key), *of_targets, *shares])
    print(markdown_table([*header, "false alarms on test", "foreign found"], cells))


if __name__ == "__main__":
    main()

"""How many labels that were flipped on purpose are among the first 10 % of ``spectro audit``? (docs/how-to/labels.md)

    python scripts/benchmarks/flipped_labels.py model=hog_svm
    python scripts/benchmarks/flipped_labels.py --seeds 5 --share 0.05 model=pixels data=folder data.root=$NCEDC

Of each seed another 5 % of the labels of train and val are replaced by another class, drawn evenly; then train and val
are cross-validated as ``validation=kfold`` does, with other folds each time. With data=demo the data differ as well.
Prints a row of a table, over all seeds: model, records, flipped labels, recall of these among the first 10 % with its
Wilson interval, label issues by cleanlab, recall among them, and the share of them that was flipped.
"""

import argparse
from dataclasses import replace

import numpy as np

from spectro.cli import main as cli
from spectro.data import Dataset
from spectro.evaluation.format import format_number
from spectro.evaluation.intervals import wilson
from spectro.labels.audit import label_issues
from spectro.runs.crossval import Folds, cross_validate
from spectro.runs.task import Task, load_data


def flipped(dataset: Dataset, share: float, seed: int) -> tuple[Dataset, set[str]]:
    """The data with a share of the labels of train and val replaced, and the digests of these records."""
    rng = np.random.default_rng(seed)
    records = list(dataset.records)
    rows = np.array([i for i, record in enumerate(records) if record.split != "test"])
    chosen = rng.choice(rows, round(share * len(rows)), replace=False).tolist()
    for i in chosen:
        others = [label for label in dataset.classes if label != records[i].label]
        records[i] = replace(records[i], label=str(rng.choice(others)))
    return replace(dataset, records=records), {records[i].digest for i in chosen}


def main() -> None:
    """Prints the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--share", type=float, default=0.05, help="of the labels that are flipped (%(default)s)")
    arguments = cli.parse_with_overrides(parser, "as for spectro train")
    cli.guard(lambda: measure(arguments.overrides, arguments.seeds, arguments.share), arguments.overrides)


def measure(overrides: list[str], seeds: int, share: float) -> None:
    """Measures and prints."""
    n_flipped = n_found = n_issues = n_right = n_records = 0
    for seed in range(seeds):
        words = ["cascade_stage=flat", "validation=kfold", *overrides, f"validation.seed={seed}", f"seed={seed}"]
        if cli.composed(words).raw["data"]["kind"] == "demo":
            words.append(f"data.seed={seed}")
        config = cli.composed(words)
        dataset, digests = flipped(load_data(config), share, seed)
        task = Task(config, dataset)
        folds = Folds.of(task)
        assert folds is not None
        predictions = cross_validate(task, folds).stages[""][0]
        p_label, is_issue = label_issues(predictions, predictions.probabilities)
        is_flipped = np.array([record.digest in digests for record in predictions.records])
        first = np.argsort(p_label, kind="stable")[: round(0.1 * len(p_label))]
        n_flipped, n_found = n_flipped + int(is_flipped.sum()), n_found + int(is_flipped[first].sum())
        n_issues, n_right = n_issues + int(is_issue.sum()), n_right + int((is_issue & is_flipped).sum())
        n_records += len(p_label)
    recall = format_number(n_found / n_flipped, *wilson(n_found, n_flipped))
    print(
        f"| {config.model} | {n_records} | {n_flipped} | {recall} | {n_issues} | {n_right / n_flipped:.2f} | "
        f"{n_right / max(n_issues, 1):.2f} |"
    )


if __name__ == "__main__":
    main()

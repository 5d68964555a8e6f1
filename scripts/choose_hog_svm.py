"""Cross-validates HOG-SVM settings on the train and val records of a folder; test is not read.

    python scripts/choose_hog_svm.py data=folder data.root=DIR mapping=identity augmentation=none

Five folds by source, stratified, two repeats; scaler and PCA are fitted in each fold, augmented copies stay with their
record, and only originals are judged. Prints macro-F1 over the out-of-fold predictions of each repeat. Takes the same
KEY=VALUE words as train.py.
"""

import itertools
import sys
import warnings

import numpy as np

from spectro import cli

CELLS_PX, C, GAMMA = (8, 16), (1.0, 10.0, 100.0), ("0.03x", "0.1x", "0.3x", "1.0x")


def _choose(overrides: list[str]) -> None:
    from sklearn.metrics import f1_score
    from sklearn.model_selection import StratifiedGroupKFold

    from spectro.classifiers import HogSvmClassifier
    from spectro.classifiers.hog_svm import DegenerateModelWarning
    from spectro.data import VARIANTS, expand, labels_of
    from spectro.task import load_data

    # A search goes where the machine degenerates; the score says it.
    warnings.simplefilter("ignore", DegenerateModelWarning)
    config = cli.composed([*overrides, "cascade_stage=flat", "model=hog_svm"])
    dataset = load_data(config)
    records = [record for record in dataset.records if record.split != "test"]
    y, sources = labels_of(records), np.array([record.source for record in records])
    knobs = config.common.augmentation
    for cell_px, c, gamma in itertools.product(CELLS_PX, C, GAMMA):
        scores = []
        for repeat in range(2):
            predicted = np.empty_like(y)
            folds = StratifiedGroupKFold(5, shuffle=True, random_state=repeat)
            for train, held_out in folds.split(y, y.astype(str), sources):
                rows, variants = expand(list(sources[train]), VARIANTS[knobs.name], knobs.exclude)
                X = dataset.pictures([records[i] for i in train[rows]], variants)
                classifier = HogSvmClassifier(cell_px=cell_px, C=c, gamma=gamma).fit(X, y[train][rows])
                predicted[held_out] = classifier.predict(dataset.pictures([records[i] for i in held_out]))
            scores.append(f1_score(y.astype(str), predicted.astype(str), average="macro"))
        told = " ".join(f"{score:.2f}" for score in scores)
        print(f"hog.cell_px={cell_px:<3} svm.C={c:<6g} svm.gamma={gamma:6} {np.mean(scores):.2f} ({told})", flush=True)


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
    else:
        cli.guard(lambda: _choose(sys.argv[1:]), sys.argv[1:])

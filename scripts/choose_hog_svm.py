"""Cross-validates HOG-SVM settings on the train and val records of a folder; test is not read.

    python scripts/choose_hog_svm.py data=folder data.root=DIR mapping=identity augmentation=none

Five folds, ten repeats, without cascade, as `validation=kfold` does it. Prints the mean of macro-F1 over the repeats
and its standard deviation over them. Takes the same KEY=VALUE words as train.py.
"""

import itertools
import sys

from spectro.cli import main as cli

CELLS_PX, C, GAMMA = (8, 16), (1.0, 10.0, 100.0), ("0.03x", "0.1x", "0.3x", "1.0x")


def _choose(overrides: list[str]) -> None:
    from spectro.runs.crossval import cross_validate
    from spectro.runs.task import load_data

    shared = ["cascade_stage=flat", "model=hog_svm", "validation=kfold", "validation.repeats=10", *overrides]
    for cell_px, c, gamma in itertools.product(CELLS_PX, C, GAMMA):
        words = [f"hog.cell_px={cell_px}", f"svm.C={c:g}", f"svm.gamma={gamma}"]
        config = cli.composed([*shared, *words])
        found = cross_validate(config, load_data(config)).tasks[""].averages()
        told = f"{words[0]:16} {words[1]:10} {words[2]:16}"
        print(f"{told} {found['macro_f1']:.2f} ± {found['macro_f1_std_repeats']:.2f}", flush=True)


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
    else:
        cli.guard(lambda: _choose(sys.argv[1:]), sys.argv[1:])

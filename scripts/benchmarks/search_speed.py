"""Times a HOG-SVM search against the plain way of making one, at the same parameter points.

    python scripts/benchmarks/search_speed.py [--trials 50] [--repeats 3]

The plain way is what the original did, and what one would write: decode every image, HOG by scikit-image, one scaler
for all rows; then in each trial PCA on all rows and cross_val_score of an SVC over five folds. Ours is the whole
command ``train.py --multirun sweeper=hog_svm cascade_stage=flat`` on the demo data in a new folder: Hydra, the study,
folds by source with scaler and PCA inside, files, MLflow. Counted from the first trial's start to the last one's end.
Each repeat does both, in processes of their own; printed are medians and their ratios.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from common import HOME

COMMAND = ["--multirun", "sweeper=hog_svm", "cascade_stage=flat"]
FOLDS = 5


def plain(root: Path, points: list[dict[str, float]]) -> dict[str, float]:
    """Seconds of the plain way: with and without decoding and HOG."""
    import numpy as np
    from PIL import Image
    from skimage.feature import hog
    from sklearn.decomposition import PCA
    from sklearn.model_selection import cross_val_score
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    warnings.simplefilter("ignore")
    start = time.perf_counter()
    rows, labels = [], []
    for path in sorted((root / "train").glob("*/*.png")):
        # As the original's files on disk: the image, its mirror image, and each half mirrored onto the other.
        grey = np.asarray(Image.open(path).convert("L").resize((128, 128)))
        left, right = grey[:, :64], grey[:, 64:]
        variants = (grey, grey[:, ::-1], np.hstack([left, left[:, ::-1]]), np.hstack([right[:, ::-1], right]))
        for variant in variants:
            rows.append(hog(variant, 9, (8, 8), (2, 2), "L2-Hys"))
            labels.append(path.parent.name)
    X, y = StandardScaler().fit_transform(np.array(rows)), np.array(labels)
    read = time.perf_counter()
    for point in points:
        reduced = PCA(point["pca.variance"], svd_solver="full").fit_transform(X)
        gamma = point["svm.gamma"] / (reduced.shape[1] * reduced.var())
        svc = SVC(C=point["svm.C"], gamma=gamma, class_weight="balanced")
        cross_val_score(svc, reduced, y, cv=FOLDS, scoring="f1_macro")
    end = time.perf_counter()
    return {"rows": len(X), "features": X.shape[1], "all": end - start, "trials": end - read}


def ours(outputs: Path, trials: int) -> dict[str, Any]:
    """Seconds of the search, and where they went."""
    sys.path.insert(0, str(HOME))
    from spectro.runs import run as experiment
    from spectro.sweeps import search
    from spectro.sweeps.space import Space

    spent: dict[str, float] = {}

    def timed(owner: Any, name: str, label: str) -> None:
        real: Callable[..., Any] = getattr(owner, name)

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return real(*args, **kwargs)
            finally:
                spent[label] = spent.get(label, 0.0) + time.perf_counter() - start

        setattr(owner, name, wrapper)

    timed(search, "claim", "drawing the point")
    timed(Space, "config", "composing")
    timed(search, "check", "checking")
    timed(Space, "save", "writing .hydra")
    timed(search, "run_trial", "trial")
    timed(experiment, "fit_and_score_trial", "attempt")
    timed(experiment, "cross_validate", "fitting")
    sys.argv = [str(HOME / "train.py"), *COMMAND, f"n_trials={trials}", f"outputs={outputs}", "study=benchmark"]
    os.chdir(HOME)
    import runpy

    runpy.run_path(str(HOME / "train.py"), run_name="__main__")
    import optuna

    known = optuna.load_study(study_name="benchmark", storage=f"sqlite:///{outputs}/studies.db").trials
    begun, ended = (
        min(t.datetime_start for t in known if t.datetime_start),
        max(t.datetime_complete for t in known if t.datetime_complete),
    )
    spent["scores and files"] = spent.pop("attempt") - spent["fitting"]
    spent["recording in the study"] = spent.pop("trial") - spent["scores and files"] - spent["fitting"]
    # The last children reach MLflow after the last trial.
    sent = max(path.stat().st_mtime for path in (outputs / "sweeps" / "benchmark").glob("[0-9]*/run.json"))
    span_s = (ended - begun).total_seconds()
    return {"span": span_s, "sent": sent - begun.timestamp(), "spent": spent, "points": [t.params for t in known]}


def main() -> None:
    """Runs both ways in turn and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        task = json.loads(arguments.part)
        done = (
            plain(Path(task["root"]), task["points"])
            if "root" in task
            else ours(Path(task["outputs"]), arguments.trials)
        )
        Path(task["answer"]).write_text(json.dumps(done), encoding="utf-8")
        return
    rounds: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for number in range(arguments.repeats):
        with tempfile.TemporaryDirectory() as folder:
            outputs = Path(folder) / "outputs"
            mine = _part({"outputs": str(outputs)}, folder, arguments.trials)
            (root,) = (outputs / "demo").iterdir()
            theirs = _part({"root": str(root), "points": mine["points"]}, folder, arguments.trials)
        rounds.append((mine, theirs))
        print(f"repeat {number + 1}: plain {theirs['all']:.1f} s, ours {mine['span']:.1f} s", flush=True)
    _show(rounds, arguments.trials)


def _part(task: dict[str, Any], folder: str, trials: int) -> Any:
    answer = Path(folder) / "answer.json"
    words = [sys.executable, __file__, "--trials", str(trials), "--part", json.dumps({**task, "answer": str(answer)})]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return json.loads(answer.read_text(encoding="utf-8"))


def _show(rounds: list[tuple[dict[str, Any], dict[str, Any]]], trials: int) -> None:
    rows, features = rounds[0][1]["rows"], rounds[0][1]["features"]
    print(f"\n{trials} trials, {rows} rows of {features} HOG values in the plain way, {FOLDS} folds; medians, seconds")
    lines = [
        ("fitting", [p["trials"] for _, p in rounds], [m["spent"]["fitting"] for m, _ in rounds]),
        ("first trial's start to last one's end", [p["all"] for _, p in rounds], [m["span"] for m, _ in rounds]),
        ("and until MLflow has all of them", [p["all"] for _, p in rounds], [m["sent"] for m, _ in rounds]),
    ]
    for name, of_plain, of_ours in lines:
        a, b = median(of_plain), median(of_ours)
        print(f"  {name:40} plain {a:6.2f}  ours {b:6.2f}  ratio {a / b:5.1f}")
    over = [(m["span"] - m["spent"]["fitting"]) / trials * 1000 for m, _ in rounds]
    print(f"  what is not fitting, a trial: {median(over):.0f} ms, of it")
    labels = [label for label in rounds[0][0]["spent"] if label != "fitting"]
    known = 0.0
    for label in labels:
        value = median(m["spent"].get(label, 0.0) / trials * 1000 for m, _ in rounds)
        known += value
        print(f"    {label:38} {value:6.1f} ms")
    print(f"    {'the rest, some of MLflow beside it':38} {median(over) - known:6.1f} ms")


if __name__ == "__main__":
    main()

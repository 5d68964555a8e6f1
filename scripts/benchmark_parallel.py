"""What a second worker brings: a small network's search by one process and by two, in seconds and as a ratio.

    python scripts/benchmark_parallel.py                    the same command twice, against once
    python scripts/benchmark_parallel.py --way joblib       hydra/launcher=joblib n_jobs=2, against once

A ResNet-18 without pretrained weights at 112 px on the demo data, all trials of the same length, nothing pruned.
Measured is what a user waits for: start-up and the final run are in it, which nobody shares. The demo data, and the
decoded pictures in the cache, are made before. Medians over --repeats alternating rounds; run it on a quiet machine
with two cores or more.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TRAIN = Path(__file__).resolve().parent.parent / "train.py"
# One trial after another uses all cores; two at a time share them.
WAYS = {"one": [[]], "two": [[], []], "joblib": [["hydra/launcher=joblib", "n_jobs=2"]]}


def overrides(arguments: argparse.Namespace) -> list[str]:
    """The search's command line."""
    return [
        *("--multirun", "model=resnet18", "sweeper=resnet18", "study=benchmark", "sweep.prune=false"),
        *("cnn.pretrained=false", f"cnn.size_px={arguments.size}", "train.patience=null"),
        *(f"n_trials={arguments.trials}", f"train.epochs={arguments.epochs}", "cascade_stage=flat"),
        # Batches of one size: trials that take equally long.
        *("train.batch_size=16", "device=cpu", "tracking.uri=null", f"data.scale={arguments.scale}"),
    ]


def search(way: str, base: list[str], folder: Path, n_trials: int) -> float:
    """Seconds until all processes of a new search have ended."""
    sweeps = folder / "outputs"
    shutil.rmtree(sweeps / "sweeps", ignore_errors=True)
    for database in sweeps.glob("studies.db*"):
        database.unlink()
    start = time.perf_counter()
    processes = [
        subprocess.Popen(
            [sys.executable, TRAIN, *base, *more],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        for more in WAYS[way]
    ]
    errors = [process.communicate()[1] for process in processes]
    seconds = time.perf_counter() - start
    if any(process.returncode for process in processes):
        sys.exit("\n".join(errors))
    done = (sweeps / "sweeps" / "benchmark" / "trials.csv").read_text(encoding="utf-8").count("COMPLETE")
    if done != n_trials:
        sys.exit(f"{way}: {done} of {n_trials} trials are complete; see {folder}")
    return seconds


def main() -> None:
    """Prints the seconds of both ways and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--way", choices=["two", "joblib"], default="two")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--size", type=int, default=112, help="side of the pictures in pixels")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the demo data")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    base = overrides(arguments)
    taken: dict[str, list[float]] = {"one": [], arguments.way: []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Data and cache, once.
        first = [o for o in base if not o.startswith("n_trials")]
        search("one", [*first, "n_trials=1", "train.epochs=1"], folder, 1)
        for round_ in range(arguments.repeats):
            for way, seconds in taken.items():
                seconds.append(search(way, base, folder, arguments.trials))
                print(f"round {round_ + 1}: {way:6} {seconds[-1]:7.1f} s", flush=True)
    ratios = [one / other for one, other in zip(taken["one"], taken[arguments.way], strict=True)]
    for way, seconds in taken.items():
        print(f"{way:6} {statistics.median(seconds):7.1f} s, median of {len(seconds)}")
    print(f"{arguments.way} is {statistics.median(ratios):.2f} times faster ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()

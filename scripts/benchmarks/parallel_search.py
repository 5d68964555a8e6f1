"""What a second worker brings: a small network's search by one process and by two, in seconds and as a ratio.

    python scripts/benchmarks/parallel_search.py                    the same command twice, against once
    python scripts/benchmarks/parallel_search.py --way joblib       hydra/launcher=joblib n_jobs=2, against once

Once is measured in two ways: with a single core, which is what a worker has where there are as many workers as cores,
and with all of them, which is what a lone worker takes. A ResNet-18 without pretrained weights at 112 px on the demo
data, all trials of the same length, nothing pruned. Two times: from the first trial's start to the last one's end, and
the whole command, with the start-up and the final run, which nobody shares. The demo data, and the decoded images in
the cache, are made before. Medians over --repeats alternating rounds; run it on a quiet machine with two cores or more.
"""

import argparse
import contextlib
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import TRAIN

# The command lines that are started at once, and the cores they may use; None: all. Two trials at a time share them.
WAYS: dict[str, tuple[list[list[str]], set[int] | None]] = {
    "one, one core": ([[]], {min(os.sched_getaffinity(0))}),
    "one, all cores": ([[]], None),
    "two": ([[], []], None),
    "joblib": ([["hydra/launcher=joblib", "n_jobs=2"]], None),
}


def overrides(arguments: argparse.Namespace) -> list[str]:
    """The search's command line."""
    return [
        *("--multirun", "model=resnet18", "sweeper=resnet18", "study=benchmark", "sweep.prune=false"),
        *("cnn.pretrained=false", f"cnn.size_px={arguments.size}", "train.patience=null"),
        *(f"n_trials={arguments.trials}", f"train.epochs={arguments.epochs}", "cascade_stage=flat"),
        # Batches of one size: trials that take equally long.
        *("train.batch_size=16", "device=cpu", "tracking.uri=null", f"data.scale={arguments.scale}"),
    ]


def search(way: str, base: list[str], folder: Path, n_trials: int) -> tuple[float, float]:
    """Seconds of a new search: of its trials, and until all of its processes have ended."""
    sweeps = folder / "outputs"
    shutil.rmtree(sweeps / "sweeps", ignore_errors=True)
    for database in sweeps.glob("studies.db*"):
        database.unlink()
    commands, cores = WAYS[way]
    start = time.perf_counter()
    processes = [
        subprocess.Popen(
            [
                *(["taskset", "--cpu-list", ",".join(map(str, cores))] if cores else []),
                sys.executable,
                TRAIN,
                *base,
                *more,
            ],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        for more in commands
    ]
    errors = [process.communicate()[1] for process in processes]
    seconds = time.perf_counter() - start
    if any(process.returncode for process in processes):
        sys.exit("\n".join(errors))
    done = (sweeps / "sweeps" / "benchmark" / "trials.csv").read_text(encoding="utf-8").count("COMPLETE")
    if done != n_trials:
        sys.exit(f"{way}: {done} of {n_trials} trials are complete; see {folder}")
    with contextlib.closing(sqlite3.connect(sweeps / "studies.db")) as database:
        query = "SELECT (julianday(max(datetime_complete)) - julianday(min(datetime_start))) * 86400 FROM trials"
        ((trials_s,),) = database.execute(query).fetchall()
    return trials_s, seconds


def main() -> None:
    """Prints the seconds of both ways and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--way", choices=["two", "joblib"], default="two")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--size", type=int, default=112, help="side of the images in pixels")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the demo data")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    base = overrides(arguments)
    taken: dict[str, list[tuple[float, float]]] = {"one, one core": [], "one, all cores": [], arguments.way: []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Data and cache, once.
        first = [o for o in base if not o.startswith("n_trials")]
        search("one, all cores", [*first, "n_trials=1", "train.epochs=1"], folder, 1)
        for round_ in range(arguments.repeats):
            for way, seconds in taken.items():
                seconds.append(search(way, base, folder, arguments.trials))
                print(f"round {round_ + 1}: {way:14} {seconds[-1][0]:7.1f} s of {seconds[-1][1]:7.1f} s", flush=True)
    for number, part in enumerate(("trials", "whole command")):
        print(part)
        for way, seconds in taken.items():
            of_way, of_two = [s[number] for s in seconds], [s[number] for s in taken[arguments.way]]
            ratios = [a / b for a, b in zip(of_way, of_two, strict=True)]
            ratio = f"{statistics.median(ratios):.2f} times {arguments.way} ({min(ratios):.2f} to {max(ratios):.2f})"
            print(f"  {way:14} {statistics.median(of_way):7.1f} s, median of {len(of_way)}, {ratio}")


if __name__ == "__main__":
    main()

"""Sends run directories to MLflow that it does not have yet, for example because the server was away.

    spectro resend                     every unsent run under outputs/
    spectro resend outputs/runs/<run>  this run, or a sweep with its runs, also if sent before (nothing is duplicated)

Exit code: 0 all runs are sent, 1 some could not be sent, 2 a path is not a run directory.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

_PLACES = ("runs/*", "sweeps/*", "sweeps/*/*", "comparison/*")


def main() -> int:
    """Entry point of ``spectro resend`` and ``python scripts/resend.py``; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dirs", nargs="*", type=Path, metavar="RUN_DIR", help="default: all that are unsent")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="default: %(default)s")
    parser.add_argument("--uri", help="send to this store instead of the one that the runs name")
    arguments = parser.parse_args()
    return resend(arguments.run_dirs, outputs=arguments.outputs, uri=arguments.uri)


def resend(run_dirs: Sequence[Path], *, outputs: Path, uri: str | None = None) -> int:
    """Sends run directories whose copy in MLflow is missing or incomplete, and prints a line for each.

    Args:
        run_dirs: The directories to send; empty for all unsent ones under `outputs`, but for those that may be alive.
        outputs: The folder that holds `runs/`, `sweeps/` and `comparison/`.
        uri: Another store than the one that the runs were meant for, as when a server has moved.

    Returns:
        The exit code; for 2 nothing is sent.
    """
    from spectro import tracking
    from spectro.paths import redact
    from spectro.runs.runinfo import RunInfo

    # A sweep stands for itself and its runs.
    run_dirs = [run for path in run_dirs for run in (path, *sorted(p.parent for p in path.glob("*/run.json")))]
    others = [path for path in run_dirs if not (path / "run.json").is_file()]
    for path in others:
        print(f"{path}: not a run directory: expected a folder that holds run.json")
    if others:
        return 2
    all_runs = sorted(path.parent for place in _PLACES for path in outputs.glob(f"{place}/run.json"))
    if not all_runs and not run_dirs:
        print(f"no runs below {outputs}")
    failures = sent = 0
    for run_dir in run_dirs or all_runs:
        try:
            info = RunInfo.read(run_dir)
            if not run_dirs and (info.mlflow.sent or info.mlflow.tracking_uri is None):
                continue
            if not run_dirs and info.status == "RUNNING" and tracking.is_alive(info.content()) is not False:
                print(f"{run_dir}: may still be running on {info.host or 'an unknown host'}: left alone")
                continue
            info.mlflow = info.mlflow.to(uri, outputs)
            info.mlflow = tracking.send_now(run_dir, info.content())
            info.write()
            sent += 1
            print(f"{run_dir}: sent to {redact(str(info.mlflow.tracking_uri))}")
        except Exception as error:  # mlflow lets through what its stores, drivers and servers raise: any type
            print(f"{run_dir}: not sent: {tracking.reason_of(error)}")
            failures += 1
    if all_runs and not (run_dirs or sent or failures):
        print(f"nothing to send: MLflow has all {len(all_runs)} runs below {outputs}, or they were not meant for it")
    return 1 if failures else 0

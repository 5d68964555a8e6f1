"""Sends run directories to MLflow that it does not have yet, for example because the server was away.

    spectro resend                     every unsent run under outputs/
    spectro resend outputs/runs/<run>  this run, also if it was sent before (nothing is duplicated)

Exit code: 0 all runs are sent, 1 some could not be sent, 2 a path is not a run directory.
"""

import argparse
from pathlib import Path


def main() -> int:
    """Entry point of ``spectro resend`` and ``python scripts/resend.py``; returns the exit code."""
    from spectro.runs.resend import resend

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dirs", nargs="*", type=Path, metavar="RUN_DIR", help="default: all that are unsent")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="default: %(default)s")
    parser.add_argument("--uri", help="send to this store instead of the one that the runs name")
    arguments = parser.parse_args()
    return resend(arguments.run_dirs, outputs=arguments.outputs, uri=arguments.uri)

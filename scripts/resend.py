"""Sends run directories to MLflow that it does not have yet, as after a server was away.

    python scripts/resend.py                     every unsent run under outputs/
    python scripts/resend.py outputs/runs/<run>  this one, also if it was sent before (nothing is duplicated)

Exit code: 0 all sent, 1 some could not be sent, 2 a path is not a run directory.
"""

import argparse
import sys
from pathlib import Path

from spectro.tracking import resend


def main() -> int:
    """Reads the command line and sends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dirs", nargs="*", type=Path, metavar="RUN_DIR", help="default: all that are unsent")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="default: %(default)s")
    parser.add_argument("--uri", help="send to this store instead of the one that the runs name")
    arguments = parser.parse_args()
    return resend(arguments.run_dirs, outputs=arguments.outputs, uri=arguments.uri)


if __name__ == "__main__":
    sys.exit(main())

"""Makes one run of finished runs: its probabilities are the mean of theirs.

    spectro ensemble outputs/runs/RUN outputs/runs/RUN ...
    spectro ensemble outputs/sweeps/MULTIRUN --greedy     those of its runs that help each other out of fold

The runs may be of any families, on the same data, classes, splits and stage. The result is a run directory in
outputs/runs, with a model, for compare, predict and resend like any other. See docs/how-to/compare.md.

Exit code: 0 combined, 2 invalid arguments or runs that cannot be combined.
"""

import argparse
import tempfile
from pathlib import Path

from spectro.cli import main as cli


def main() -> None:
    """Entry point of ``spectro ensemble`` and ``python scripts/ensemble.py``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run directory, or a folder of several")
    parser.add_argument("--name", help="of the model, in comparisons and MLflow; default: the names of the members")
    parser.add_argument("--greedy", action="store_true", help="choose members by predictions out of fold (kfold runs)")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="default: %(default)s")
    cli.add_plugin_option(parser)
    arguments = parser.parse_args()
    cli.guard(lambda: _combine(arguments), plugins=arguments.plugin)


def _combine(arguments: argparse.Namespace) -> None:
    from spectro.comparison.load import load_runs
    from spectro.progress import say, status
    from spectro.runs.ensemble import combine

    with tempfile.TemporaryDirectory() as scratch, status("reading runs"):
        runs, notes = load_runs(arguments.runs, outputs=arguments.outputs, scratch=Path(scratch))
    for note in notes:
        say(note)
    combine([run.info for run in runs], outputs=arguments.outputs, name=arguments.name, greedy=arguments.greedy)

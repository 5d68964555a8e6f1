"""Compares finished runs: which model is the best, how certain that is, and what it costs.

    spectro compare outputs/runs/RUN outputs/runs/RUN ...
    spectro compare outputs/sweeps/SWEEP            all runs of a multirun, or the final runs of a search
    spectro compare outputs                         all runs that share the records and classes of most
    spectro compare ID ID ...                       MLflow run ids
    spectro compare --experiment field              all finished runs of an MLflow experiment

Runs that differ in nothing but the seed are one model. The baselines pixels and, where its weights are on this machine,
embed are added: a finished run of outputs/runs, or a new one. Writes report.html, table.csv, table.md and figures to
outputs/comparison/<date_time>_<names>/, and sends them to MLflow. See docs/how-to/compare.md.

Exit code: 0 compared, 2 invalid arguments or runs that cannot be compared.
"""

import argparse
from pathlib import Path

from spectro.cli import main as cli


def main() -> None:
    """Entry point of ``spectro compare`` and ``python scripts/compare.py``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="RUN", help="a run directory, a folder of several, an MLflow run id")
    parser.add_argument("--experiment", metavar="NAME", help="all finished runs of an MLflow experiment")
    parser.add_argument("--names", metavar="A,B", help="names of the models, in the order of their first runs")
    parser.add_argument("--split", choices=("test", "val"), default="test", help="default: %(default)s")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="default: %(default)s")
    parser.add_argument(
        "--tracking-uri", metavar="URI", help="MLflow store; default: that of --outputs, and of the runs"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="a new folder for the report")
    cli.add_plugin_option(parser)
    arguments = parser.parse_args()
    if not arguments.runs and arguments.experiment is None:
        parser.error("got no runs; allowed: RUN ... or --experiment NAME")
    cli.guard(lambda: _compare(arguments), plugins=arguments.plugin)


def _compare(arguments: argparse.Namespace) -> None:
    from spectro.comparison import compare
    from spectro.comparison.report import show

    result, folder = compare(
        arguments.runs,
        outputs=arguments.outputs,
        experiment=arguments.experiment,
        tracking_uri=arguments.tracking_uri,
        split=arguments.split,
        out=arguments.out,
        labels=None if arguments.names is None else arguments.names.split(","),
    )
    show(result, folder)

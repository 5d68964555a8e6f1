"""Registers the best of some runs as a named model in MLflow, if it is shown to be better than what is there.

    spectro promote outputs/runs/RUN --name records           a run
    spectro promote outputs/sweeps/SWEEP --name records       the best of a multirun, or the final run of a search
    spectro promote field --name records --alias champion     the best of an MLflow experiment
    spectro predict models:/records@champion images/          and it is used

The best run has the highest macro-F1 out of fold (validation=kfold), or else on val, never on test. It must beat the
pixels baseline and the model that has the alias today, on the same records and by the paired test of spectro compare.
See docs/how-to/serve.md.

Exit code: 0 registered, 2 invalid arguments or runs, 3 refused by the gate: nothing was registered.
"""

import argparse
import sys
from pathlib import Path

from spectro.cli import main as cli


def main() -> None:
    """Entry point of ``spectro promote`` and ``python scripts/promote.py``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", metavar="EXPERIMENT_OR_RUN", help="a run, a folder of runs, an id, an experiment")
    parser.add_argument("--name", required=True, help="the registered model")
    parser.add_argument("--alias", default="champion", help="what moves to the new version; default: %(default)s")
    parser.add_argument("--force", action="store_true", help="register what the gate refuses, and record it")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="default: %(default)s")
    parser.add_argument(
        "--tracking-uri", metavar="URI", help="MLflow store; default: MLFLOW_TRACKING_URI, or that of --outputs"
    )
    cli.add_plugin_option(parser)
    arguments = parser.parse_args()
    cli.guard(lambda: _promote(arguments), plugins=arguments.plugin)


def _promote(arguments: argparse.Namespace) -> None:
    from spectro.comparison.promote import promote

    outputs, name, alias = arguments.outputs, arguments.name, arguments.alias
    uri = cli.store_of(arguments.tracking_uri, outputs)
    force = arguments.force
    promotion = promote(arguments.target, name=name, alias=alias, outputs=outputs, uri=uri, force=force)
    print(*promotion.lines, sep="\n")
    if promotion.version is None:
        reasons = [f"  {reason}" for reason in promotion.refusals]
        print(f"refused: {name}@{alias} stays as it is", *reasons, "allowed: --force", sep="\n", file=sys.stderr)
        sys.exit(3)
    if promotion.refusals:
        print("forced: the gate refused it, and the version's tag and description record that")
    print(f"models:/{name}@{alias} is version {promotion.version}")
    print(f"next:   spectro predict models:/{name}@{alias} new_images/ --out predictions.csv")

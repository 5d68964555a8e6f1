"""Trains and evaluates one configuration, or searches for one: ``spectro train --help`` shows every group and knob."""

from spectro.cli import main as cli
from spectro.paths import CONF


def main() -> None:
    """Entry point of ``spectro train`` and ``python train.py``."""
    import hydra

    cli.main(hydra.main(config_path=str(CONF), config_name="config")(cli.job))

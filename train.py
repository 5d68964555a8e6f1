"""Trains and evaluates one configuration: ``python train.py --help`` shows every group and knob."""

import hydra
from omegaconf import DictConfig

from spectro.cli import main as cli


@hydra.main(config_path="conf", config_name="config")
def main(cfg: DictConfig) -> float | None:
    """One run; returns the objective."""
    return cli.job(cfg)


if __name__ == "__main__":
    cli.main(main)

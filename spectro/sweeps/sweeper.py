"""The sweeper that Hydra runs for ``--multirun sweeper=NAME``; imported by every command, so it imports little."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, open_dict, read_write


class StudySweeper(Sweeper):
    """Runs a search; see ``conf/hydra/sweeper/study.yaml`` for its keys.

    Search spaces and samplers are those of Hydra's Optuna plugin. The loop is ours: the plugin's leaves killed trials
    running, counts ``n_trials`` anew at every start and has no pruning.

    Args:
        values: The official sweeper's keys, read from the configuration later: ``sampler``, ``direction``, ``storage``,
            ``study_name``, ``n_trials``, ``n_jobs`` and ``params``; others are not used.
    """

    def __init__(self, **values: Any):
        pass

    def setup(self, *, hydra_context: Any, task_function: Any, config: DictConfig) -> None:
        """Takes the configuration that Hydra has composed."""
        self.hydra_context: Any = hydra_context
        self.task_function: Any = task_function
        self.config: Any = config

    def sweep(self, arguments: list[str]) -> None:
        """Searches until the study has its trials, then fits the best configuration and reads test.

        Raises:
            ConfigError: The command is invalid; no trial was started.
            SweepError: Every trial failed.
        """
        from spectro.sweeps.search import Search
        from spectro.sweeps.space import Space

        is_in_process = "BasicLauncher" in self.config.hydra.launcher._target_
        space = Space(self.hydra_context.config_loader, self.config, arguments)
        Search(space, self.config.hydra.sweeper, None if is_in_process else self._launch).run()

    def _launch(self, jobs: Sequence[Sequence[str]], first: int, folder: Path) -> Sequence[Any]:
        """Submits jobs to the configured launcher, numbered from ``first``, and waits for all of them."""
        config = copy.deepcopy(self.config)
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.sweep.dir = str(folder)
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.hydra_context, task_function=self.task_function, config=config
        )
        return launcher.launch([tuple(job) for job in jobs], initial_job_idx=first)

"""The sweeper that Hydra runs for ``--multirun sweeper=NAME``: Optuna's samplers on a study that survives kills.

Search spaces and samplers are those of Hydra's Optuna plugin. The loop is ours: the plugin's leaves killed trials
running, counts ``n_trials`` anew at every start and has no pruning.
"""

import copy
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

# The classes that a configuration may name as its sampler.
_TRUSTED = ("optuna.*", "hydra_plugins.hydra_optuna_sweeper.*")
_SILENT = {"version": 1, "disable_existing_loggers": False, "root": {"level": "WARNING", "handlers": []}}


class StudySweeper(Sweeper):
    """Runs a search; see ``conf/hydra/sweeper/study.yaml`` for its keys.

    Args:
        values: The official sweeper's keys: ``sampler``, ``direction``, ``storage``, ``study_name``, ``n_trials``,
            ``n_jobs`` and ``params``; others are not used.
    """

    def __init__(self, **values: Any):
        self._values = values

    def setup(self, *, hydra_context: Any, task_function: Any, config: DictConfig) -> None:
        """Takes the configuration that Hydra has composed."""
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def sweep(self, arguments: list[str]) -> None:
        """Searches until the study has its trials, then fits the best configuration and reads test.

        Raises:
            ConfigError: The command is invalid; no trial was started.
            SweepError: Every trial failed.
        """
        from spectro.errors import ConfigError
        from spectro.sweeps.search import Search
        from spectro.sweeps.space import Space

        assert self.config is not None
        assert self.hydra_context is not None
        # The terminal gets one line for each trial, not Hydra's and its launchers' lines for each job.
        for name in ("hydra", "HYDRA"):
            logging.getLogger(name).setLevel(logging.WARNING)
        # Hydra has set up a second handler for the terminal.
        root = logging.getLogger()
        root.handlers = [handler for handler in root.handlers if isinstance(handler, logging.FileHandler)]
        values = self._values
        params = {str(key): str(value) for key, value in (values["params"] or {}).items()}
        space = Space(self.hydra_context.config_loader, self.config, params, arguments)
        direction = str(getattr(values["direction"], "name", values["direction"]))
        if direction != "maximize":
            raise ConfigError(f"hydra.sweeper.direction: got {direction}; allowed: maximize (of every objective)")
        for key in ("storage", "n_trials"):
            if values[key] is None:
                raise ConfigError(f"{key}: got null; it must be given")
        sampler: Any = OmegaConf.to_container(self.config.hydra.sweeper.sampler, resolve=True)
        Search(
            space,
            storage=values["storage"],
            name=values["study_name"],
            sampler=sampler,
            make_sampler=sampler_of_draw(sampler),
            n_trials=values["n_trials"],
            n_jobs=values["n_jobs"],
            launch=self._launch if "BasicLauncher" not in str(self.config.hydra.launcher._target_) else None,
        ).run()

    def _launch(self, jobs: Sequence[Sequence[str]], first: int, folder: Path) -> Sequence[Any]:
        """Submits jobs to the configured launcher, numbered from ``first``, and waits for all of them."""
        from hydra.core.plugins import Plugins

        assert self.config is not None
        assert self.hydra_context is not None
        config = copy.deepcopy(self.config)
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.sweep.dir = str(folder)
            # Launchers set up Hydra's log again, and print all overrides of every job.
            config.hydra.hydra_logging = _SILENT
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.hydra_context, task_function=self.task_function, config=config
        )
        return launcher.launch([tuple(job) for job in jobs], initial_job_idx=first)


def sampler_of_draw(sampler: dict[str, Any]) -> Callable[[int], Any]:
    """Number of a draw -> a sampler with a seed of its own, made from the configured seed and the number.

    Raises:
        ConfigError: A sampler that walks through a grid.
    """
    import numpy as np
    from hydra.utils import instantiate

    from spectro.errors import ConfigError

    name = str(sampler["_target_"]).rpartition(".")[2]
    if sampler.get("_partial_"):
        raise ConfigError(
            f"hydra/sweeper/sampler: got {name}; allowed: tpe, random, cmaes, gp, nsgaii, nsgaiii, qmc "
            "(all combinations of some values: --multirun KEY=A,B KEY=C,D without sweeper=)"
        )
    seed = sampler.get("seed")
    new = instantiate({**sampler, "_partial_": True}, _execution_whitelist_=_TRUSTED)

    def make(draw: int) -> Any:
        # Without a seed the draws are not reproducible; a quasi-random sequence is one sequence for all trials.
        if seed is None or name == "QMCSampler":
            return new(seed=seed)
        return new(seed=int(np.random.SeedSequence([seed, draw]).generate_state(1)[0]))

    return make

"""The sweeper that Hydra runs for ``--multirun sweeper=NAME``: Optuna's samplers on a study that survives kills.

The official plugin (hydra-optuna-sweeper) brings the samplers' configurations and the grammar of the search space; its
own loop forgets trials that were killed, counts ``n_trials`` anew at every start and knows no pruning.
"""

import copy
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

# Whose classes a configuration may name as its sampler.
_TRUSTED = ("optuna.*", "hydra_plugins.hydra_optuna_sweeper.*")
_SILENT = {"version": 1, "disable_existing_loggers": False, "root": {"level": "WARNING", "handlers": []}}


class StudySweeper(Sweeper):
    """Takes what `OptunaSweeperConf` holds; see ``conf/hydra/sweeper/study.yaml``.

    Args:
        sampler: An Optuna sampler's configuration.
        direction: ``maximize``.
        storage: The study's database.
        study_name: The study's name; None: made from what is searched.
        n_trials: How many trials the study shall have in all.
        n_jobs: How many of them the launcher gets at a time.
        params: What is searched: key -> override grammar.
        others: What the official sweeper has besides; not used.
    """

    def __init__(
        self,
        sampler: Any,
        direction: Any,
        storage: str,
        study_name: str | None,
        n_trials: int,
        n_jobs: int,
        params: DictConfig | None,
        **others: Any,
    ):
        self._direction = direction
        self._storage = storage
        self._study_name = study_name
        self._n_trials = n_trials
        self._n_jobs = n_jobs
        self._params: Any = params or {}

    def setup(self, *, hydra_context: Any, task_function: Any, config: DictConfig) -> None:
        """Takes what Hydra has composed."""
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def sweep(self, arguments: list[str]) -> None:
        """Searches until the study has its trials, then fits the best configuration and reads test.

        Raises:
            ConfigError: Something is wrong that can be known before the first trial.
            SweepError: Every trial failed.
        """
        from spectro.errors import ConfigError
        from spectro.sweeps.search import Search
        from spectro.sweeps.space import Space

        assert self.config is not None
        assert self.hydra_context is not None
        # What Hydra and its launchers say of every job is not for a terminal that gets one line for each.
        for name in ("hydra", "HYDRA"):
            logging.getLogger(name).setLevel(logging.WARNING)
        # Hydra has set up a second way to the terminal for whatever is logged.
        root = logging.getLogger()
        root.handlers = [handler for handler in root.handlers if isinstance(handler, logging.FileHandler)]
        params = {str(key): str(value) for key, value in self._params.items()}
        space = Space(self.hydra_context.config_loader, self.config, params, arguments)
        direction = str(getattr(self._direction, "name", self._direction))
        if direction != "maximize":
            raise ConfigError(f"hydra.sweeper.direction: got {direction}; allowed: maximize (of every objective)")
        for key, value in {"storage": self._storage, "n_trials": self._n_trials}.items():
            if value is None:
                raise ConfigError(f"{key}: got null; it must be given")
        sampler: Any = OmegaConf.to_container(self.config.hydra.sweeper.sampler, resolve=True)
        search = Search(
            space,
            storage=self._storage,
            name=self._study_name,
            sampler=sampler,
            make_sampler=_maker(sampler),
            n_trials=self._n_trials,
            n_jobs=self._n_jobs,
            launch=self._launch if "BasicLauncher" not in str(self.config.hydra.launcher._target_) else None,
        )
        search.run()

    def _launch(self, jobs: Sequence[Sequence[str]], first: int, folder: Path) -> Sequence[Any]:
        """Hands jobs to the configured launcher, numbered from ``first``, and waits for all of them."""
        from hydra.core.plugins import Plugins

        assert self.config is not None
        assert self.hydra_context is not None
        config = copy.deepcopy(self.config)
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.sweep.dir = str(folder)
            # Launchers set up Hydra's log again, and tell of every job with all its overrides.
            config.hydra.hydra_logging = _SILENT
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.hydra_context, task_function=self.task_function, config=config
        )
        return launcher.launch([tuple(job) for job in jobs], initial_job_idx=first)


def _maker(sampler: dict[str, Any]) -> Callable[[int], Any]:
    """Number of a draw -> a sampler of its own.

    Raises:
        ConfigError: A sampler that walks through a grid.
    """
    from hydra.utils import instantiate

    from spectro.errors import ConfigError
    from spectro.sweeps.study import seed_of_draw

    target = str(sampler["_target_"]).rpartition(".")[2]
    if sampler.get("_partial_"):
        raise ConfigError(
            f"hydra/sweeper/sampler: got {target}; allowed: tpe, random, cmaes, gp, nsgaii, nsgaiii, qmc "
            "(all combinations of some values: --multirun KEY=A,B KEY=C,D without sweeper=)"
        )
    seed = sampler.get("seed")
    # Looking up what a name stands for is not done again for every draw.
    new = instantiate({**sampler, "_partial_": True}, _execution_whitelist_=_TRUSTED)

    def make(number: int) -> Any:
        # Without a seed the user wants chance; a quasi-random sequence is one sequence for all trials.
        own = seed if seed is None or target == "QMCSampler" else seed_of_draw(seed, number)
        return new(seed=own)

    return make

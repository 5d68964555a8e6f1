"""One trial, in whatever process: fitted, evaluated on val or by cross-validation, and reported to the study."""

import json
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import optuna
from threadpoolctl import threadpool_limits

from spectro import interrupt
from spectro.config.check import Config, check
from spectro.config.schema import SweepKnobs
from spectro.data import Dataset
from spectro.errors import ConfigError, DataError, SpectroError
from spectro.files import is_disk_full
from spectro.paths import cores
from spectro.runs import run as experiment
from spectro.runs.runinfo import RunInfo
from spectro.runs.task import Task, load_data
from spectro.sweeps.study import OWNER, SETTINGS, complete, end_trial, heartbeat, open_storage, running, this_process

# The stages of a trial follow each other on Optuna's axis of steps: each begins at a multiple of this.
_STRIDE = 100_000
_MAX_DATASETS = 2
_datasets: dict[str, Dataset] = {}


@dataclass(frozen=True)
class TrialSpec:
    """What another process needs besides the configuration to run a trial.

    Attributes:
        storage: The database of the study.
        params: The searched values as the trial's run shows them, in sections.
        cwd: The folder in which the search was started; relative paths refer to it.
    """

    storage: str
    study: str
    number: int
    params: dict[str, Any]
    cwd: str

    def override(self) -> str:
        """The specification as a Hydra override, in letters and digits: names and addresses may hold anything."""
        return f"+trial=t{json.dumps(asdict(self)).encode().hex()}"

    @classmethod
    def read(cls, text: str) -> Self:
        """The specification in the value of `override`."""
        return cls(**json.loads(bytes.fromhex(text[1:])))


def run_submitted_trial(spec: TrialSpec, cfg: Any, run_dir: Path) -> None:
    """Runs a trial in a process that a launcher started; the result goes to the study, not to Hydra.

    Raises:
        ConfigError: This machine lacks the search's folders.
    """
    with suppress(OSError):
        os.chdir(spec.cwd)  # schedulers start processes elsewhere
    if not (folder := run_dir.parent / "run.json").exists():
        raise ConfigError(f"{folder}: not found on {socket.gethostname()}; all machines of a search must share it")
    study = optuna.load_study(study_name=spec.study, storage=open_storage(spec.storage))
    frozen = study.get_trials(deepcopy=False)[spec.number]
    if frozen.state.is_finished():
        return  # given up, or a scheduler started the job a second time
    # The search drew it, but this process is the one that may be killed.
    optuna.trial.Trial(study, frozen._trial_id).set_user_attr(OWNER, this_process())
    config = check(cfg)
    config.prepare()
    with heartbeat(study):
        run_trial(study, config, run_dir, spec.number, spec.params)
    RunInfo.read(run_dir).send_to_mlflow()


def run_trial(study: optuna.Study, config: Config, run_dir: Path, number: int, params: Mapping[str, Any]) -> None:
    """Runs one trial and reports it to the study: complete, pruned, or failed with its reason.

    ``params`` are the searched values in sections, as the trial's ``run.json`` shows them.

    Raises:
        KeyboardInterrupt: It was interrupted; the trial does not count.
    """
    tags = {"study": study.study_name, "trial": str(number)}
    info = RunInfo.of(config, run_dir, run_name=f"trial {number}", parent="..", tags=tags, config=params)
    info.write()
    try:
        n_threads = config.sweep.threads or _share_of_cores(study)
        # The search for loaded libraries takes as long as a short fit.
        with threadpool_limits(n_threads) if n_threads < cores() else nullcontext():
            dataset = dataset_of(config)
            if dataset.fingerprint != study.user_attrs.get(SETTINGS, {}).get("data.fingerprint", dataset.fingerprint):
                raise DataError(f"data.root: {dataset.root} does not hold the records that the search began with")
            pruner = Pruner(study, number, config.sweep)
            value = experiment.fit_and_score_trial(Task(config, dataset), info, pruner)
        end_trial(study, number, "COMPLETE", value)
    except optuna.TrialPruned as pruned:
        info.end("PRUNED", str(pruned))
        end_trial(study, number, "PRUNED", reason=str(pruned))
    except BaseException as error:
        if (is_full := is_disk_full(error)) or interrupt.caused(error):  # the next trials would end alike
            reason = "the disk is full" if is_full else "interrupted"
            with suppress(OSError):
                info.end("KILLED", reason)
            end_trial(study, number, "FAIL", counts=False, reason=reason)
            raise
        if not isinstance(error, Exception):
            raise
        info.end("FAILED", reason_of(error))
        end_trial(study, number, "FAIL", reason=reason_of(error).splitlines()[0])


class Pruner:
    """Reports a trial's epochs to its study, and ends the trial when it is hopeless by the settings of ``sweep``.

    Optuna's MedianPruner compares the best value of all steps, so that an easy stage's 0.9 would stand for the hard
    stage, too, and leaves out trials that stopped earlier.
    """

    def __init__(self, study: optuna.Study, number: int, sweep: SweepKnobs):
        self._trial = optuna.trial.Trial(study, study.get_trials(deepcopy=False)[number]._trial_id)
        # What a pruned trial would have reached is unknown.
        self._earlier = [trial.intermediate_values for trial in complete(study)]
        self._sweep = sweep
        self._stages: list[str] = []

    def __call__(self, stage: str, history: Sequence[Mapping[str, Any]]) -> None:
        """Takes the rows of a stage, one for each epoch so far.

        Raises:
            TrialPruned: The best val macro-F1 so far is below the median of what earlier trials had reached by now.
        """
        if stage not in self._stages:
            self._stages.append(stage)
        if not history or history[-1]["val_macro_f1"] is None:
            return
        first, n_epochs = self._stages.index(stage) * _STRIDE, len(history)
        self._trial.report(history[-1]["val_macro_f1"], first + n_epochs)
        if not self._sweep.prune or n_epochs < self._sweep.warmup_epochs:
            return
        # A trial that stopped before this epoch keeps the best value that it had.
        epochs = [[v for step, v in earlier.items() if first < step <= first + n_epochs] for earlier in self._earlier]
        reached = [max(values) for values in epochs if values]
        if len(reached) < max(1, self._sweep.startup_trials):
            return
        if max(row["val_macro_f1"] for row in history) < np.median(reached):
            where = f"epoch {n_epochs} of {stage or 'the fit'}"
            raise optuna.TrialPruned(f"below the median of the earlier trials after {where}")


def dataset_of(config: Config) -> Dataset:
    """The configuration's data, read and checked once in a process."""
    key = repr((config.raw["data"], config.raw["mapping"], config.raw["outputs"], config.estimator().specs))
    if key not in _datasets:
        if len(_datasets) == _MAX_DATASETS:
            _datasets.pop(next(iter(_datasets)))
        _datasets[key] = load_data(config)
    return _datasets[key]


def reason_of(error: BaseException) -> str:
    """An error as the reason of a failed trial or search."""
    return str(error).strip() if isinstance(error, SpectroError) else f"{type(error).__name__}: {error}".strip(": \n")


def _share_of_cores(study: optuna.Study) -> int:
    """What a scheduler allots (Ray sets OMP_NUM_THREADS), else this machine's cores divided by its running trials."""
    allotted = os.environ.get("OMP_NUM_THREADS") or os.environ.get("SLURM_CPUS_PER_TASK") or ""
    if allotted.isdigit():
        return int(allotted)
    hosts = [trial.user_attrs.get(OWNER, {}).get("host") for trial in running(study)]
    return max(1, cores() // max(1, hosts.count(socket.gethostname())))

"""One trial, in whatever process: fitted, evaluated on val or by cross-validation, and reported to the study."""

import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spectro import interrupt
from spectro.config.check import Config, check
from spectro.config.schema import SweepKnobs
from spectro.data import Dataset
from spectro.errors import ConfigError, DataError, SpectroError
from spectro.paths import cores
from spectro.runs import run as experiment
from spectro.runs.runinfo import RunInfo
from spectro.runs.task import Task, load_data
from spectro.sweeps.study import (
    OWNER,
    SETTINGS,
    end_trial,
    heartbeat,
    open_storage,
    running,
    this_process,
)

if TYPE_CHECKING:
    import optuna

# The stages of a trial follow each other on Optuna's axis of steps: each begins at a multiple of this.
_STRIDE = 100_000
_MAX_DATASETS = 2
_HOST = socket.gethostname()
_datasets: dict[str, Dataset] = {}


@dataclass(frozen=True)
class TrialSpec:
    """What another process needs besides the configuration to run a trial.

    Attributes:
        storage: The study's database.
        study: Its name.
        number: The trial's number.
        params: The searched values as the trial's run shows them, in sections.
        n_submitted: How many trials were submitted together.
        cwd: The folder in which the search was started; relative paths refer to it.
        host: The machine of the search.
    """

    storage: str
    study: str
    number: int
    params: dict[str, Any]
    n_submitted: int
    cwd: str
    host: str

    def override(self) -> str:
        """The specification as a Hydra override, in letters and digits: names and addresses may hold anything."""
        return f"+trial=t{json.dumps(asdict(self)).encode().hex()}"

    @classmethod
    def read(cls, text: str) -> "TrialSpec":
        """The specification in the value of `override`."""
        return cls(**json.loads(bytes.fromhex(text[1:])))


def run_submitted_trial(spec: TrialSpec, cfg: Any, run_dir: Path) -> None:
    """Runs a trial in a process that a launcher started; the result goes to the study, not to Hydra.

    Args:
        spec: Which trial it is.
        cfg: The trial's composed configuration.
        run_dir: The trial's folder.

    Raises:
        ConfigError: This machine lacks the search's folders.
    """
    import optuna

    try:
        os.chdir(spec.cwd)  # schedulers start processes elsewhere
        if not (run_dir.parent / "run.json").exists():
            raise FileNotFoundError(run_dir.parent)
    except OSError as error:
        raise ConfigError(
            f"{error.filename or error}: not found on {_HOST}; all machines of a search must share its folder"
        ) from error
    study = optuna.load_study(study_name=spec.study, storage=open_storage(spec.storage))
    frozen = study.get_trials(deepcopy=False)[spec.number]
    if frozen.state.is_finished():
        return  # given up, or a scheduler started the job a second time
    # The search drew it, but this process is the one that may be killed.
    optuna.trial.Trial(study, frozen._trial_id).set_user_attr(OWNER, this_process())
    config = check(cfg)
    config.estimator().prepare()
    n_here = spec.n_submitted if spec.host == _HOST else 1
    with heartbeat(study):
        run_trial(study, config, run_dir, spec.number, spec.params, n_here=n_here)
    RunInfo.read(run_dir).send_to_mlflow()


def run_trial(
    study: "optuna.Study", config: Config, run_dir: Path, number: int, params: Mapping[str, Any], *, n_here: int = 1
) -> None:
    """Runs one trial and reports it to the study: complete, pruned, or failed with its reason.

    Args:
        study: The study.
        config: A valid configuration.
        run_dir: The trial's own folder.
        number: The trial's number.
        params: The searched values as the trial's run shows them, in sections.
        n_here: How many trials are about to run on this machine, where others may not have begun.

    Raises:
        KeyboardInterrupt: It was interrupted; the trial does not count.
    """
    import optuna

    tags = {"study": study.study_name, "trial": str(number)}
    info = RunInfo.of(config, run_dir, run_name=f"trial {number}", parent="..", tags=tags, config=params)
    info.write()
    try:
        with _threads(config.sweep.threads or _n_threads(study, n_here)):
            dataset = dataset_of(config)
            _check_same_data(study, dataset)
            pruner = Pruner(study, number, config.sweep)
            value = experiment.fit_and_score_trial(Task(config, dataset), info, pruner)
        end_trial(study, number, "COMPLETE", value)
    except optuna.TrialPruned as pruned:
        info.end("PRUNED", str(pruned))
        end_trial(study, number, "PRUNED", reason=str(pruned))
    except BaseException as error:
        if interrupt.caused(error):
            info.end("KILLED", "interrupted")
            end_trial(study, number, "FAIL", counts=False, reason="interrupted")
            raise
        if not isinstance(error, Exception):
            raise
        reason = reason_of(error)
        info.end("FAILED", reason)
        end_trial(study, number, "FAIL", reason=reason.splitlines()[0])


class Pruner:
    """Reports a trial's epochs to its study, and ends the trial when it is hopeless.

    Optuna's MedianPruner compares the best value of all steps, so that an easy stage's 0.9 would stand for the hard
    stage, too, and leaves out trials that stopped earlier.

    Args:
        study: The study.
        number: The trial's number.
        sweep: ``prune``, ``warmup_epochs`` and ``startup_trials``.
    """

    def __init__(self, study: "optuna.Study", number: int, sweep: SweepKnobs):
        import optuna

        trials = study.get_trials(deepcopy=False)
        self._trial = optuna.trial.Trial(study, trials[number]._trial_id)
        # What a pruned trial would have reached is unknown.
        self._earlier = [t.intermediate_values for t in trials if t.state == optuna.trial.TrialState.COMPLETE]
        self._sweep = sweep
        self._stages: list[str] = []

    def __call__(self, stage: str, history: Sequence[Mapping[str, Any]]) -> None:
        """Takes the rows of a stage, one for each epoch so far.

        Raises:
            TrialPruned: The best val macro-F1 so far is below the median of what earlier trials had reached by now.
        """
        from optuna import TrialPruned

        if stage not in self._stages:
            self._stages.append(stage)
        if not history or history[-1]["val_macro_f1"] is None:
            return
        first, n_epochs = self._stages.index(stage) * _STRIDE, len(history)
        self._trial.report(history[-1]["val_macro_f1"], first + n_epochs)
        if not self._sweep.prune or n_epochs < self._sweep.warmup_epochs:
            return
        reached = [best_until(values, first, n_epochs) for values in self._earlier]
        comparable = [value for value in reached if value is not None]
        if len(comparable) < max(1, self._sweep.startup_trials):
            return
        if max(row["val_macro_f1"] for row in history) < float(np.median(comparable)):
            raise TrialPruned(f"below the median of the earlier trials after epoch {n_epochs} of {stage or 'the fit'}")


def best_until(values: Mapping[int, float], first: int, epoch: int) -> float | None:
    """The best of a trial's intermediate values by an epoch of the stage that begins at step ``first``.

    A trial that stopped before that epoch keeps the best value that it had; None if it never began the stage.
    """
    return max((value for step, value in values.items() if first < step <= first + epoch), default=None)


def dataset_of(config: Config) -> Dataset:
    """The configuration's data, read and checked once in a process."""
    key = repr((config.raw["data"], config.raw["mapping"], config.raw["outputs"], config.estimator().specs))
    if key not in _datasets:
        while len(_datasets) >= _MAX_DATASETS:
            _datasets.pop(next(iter(_datasets)))
        _datasets[key] = load_data(config)
    return _datasets[key]


def _check_same_data(study: "optuna.Study", dataset: Dataset) -> None:
    expected = study.user_attrs.get(SETTINGS, {}).get("data.fingerprint", dataset.fingerprint)
    if dataset.fingerprint != expected:
        raise DataError(f"data.root: {dataset.root} on {_HOST} does not hold the records that the search began with")


def reason_of(error: BaseException) -> str:
    """An error as the reason of a failed trial or search."""
    return str(error).strip() if isinstance(error, SpectroError) else f"{type(error).__name__}: {error}".strip(": \n")


def _n_threads(study: "optuna.Study", n_here: int) -> int:
    """What a scheduler allots (Ray sets OMP_NUM_THREADS), else this machine's cores divided by its running trials."""
    allotted = os.environ.get("OMP_NUM_THREADS") or os.environ.get("SLURM_CPUS_PER_TASK") or ""
    if allotted.isdigit():
        return int(allotted)
    if n_here == 1:
        owners = [trial.user_attrs.get(OWNER) or {} for trial in running(study)]
        n_here = len({owner["pid"] for owner in owners if owner.get("host") == _HOST} | {os.getpid()})
    return max(1, cores() // n_here)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Computes with ``count`` processor threads inside; a network's trial must have imported torch before."""
    torch = sys.modules.get("torch")
    n_before = torch.get_num_threads() if torch else 0
    from threadpoolctl import threadpool_limits

    # The search for loaded libraries takes as long as a short fit.
    with threadpool_limits(count) if count < cores() else nullcontext():
        try:
            if torch:
                torch.set_num_threads(count)
            yield
        finally:
            if torch:
                torch.set_num_threads(n_before)

"""One trial, in whatever process: composed, fitted, evaluated on val or by cross-validation, and told to the study."""

import contextlib
import json
import socket
from collections import OrderedDict
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectro import interrupt
from spectro.config.check import Config
from spectro.data import Dataset
from spectro.errors import DataError, SpectroError
from spectro.runs import run as experiment
from spectro.runs import task
from spectro.runs.runinfo import RunInfo
from spectro.sweeps.pruning import PrunedError, Reporter
from spectro.sweeps.storage import absolute, open_storage
from spectro.sweeps.study import OWNER, REASON, SETTINGS, beating, end, give_up, is_own, owner
from spectro.sweeps.threads import Threads

if TYPE_CHECKING:
    import optuna

_MAX_DATASETS = 2
_datasets: OrderedDict[str, Dataset] = OrderedDict()


@dataclass(frozen=True)
class Ticket:
    """Which trial it is: everything that a process needs besides the configuration.

    Attributes:
        storage: The study's database.
        study: Its name.
        number: The trial's number.
        shown: What is searched, as the trial's run shows it, in sections.
        threads: Processor threads; None: what a scheduler allots, or else the cores divided by the trials that run on
            this machine.
        jobs: How many trials were handed out together.
        folder: Where the search was started: relative paths are seen from there.
        host: On which machine.
    """

    storage: str
    study: str
    number: int
    shown: dict[str, Any]
    threads: int | None = None
    jobs: int = 1
    folder: str = "."
    host: str = ""

    def overrides(self) -> list[str]:
        """The ticket as an override, for a process that Hydra composes in."""
        # Letters and digits alone: names and addresses may hold anything.
        return [f"+ticket=t{json.dumps(asdict(self)).encode().hex()}"]

    @classmethod
    def read(cls, text: str) -> "Ticket":
        """The ticket of `overrides`."""
        return cls(**json.loads(bytes.fromhex(text[1:])))


def run_trial(config: Config, run_dir: Path, ticket: Ticket) -> RunInfo | None:
    """Runs one trial and tells the study of it: complete, pruned, or failed with its reason.

    Args:
        config: A valid configuration.
        run_dir: The trial's own folder.
        ticket: Which trial it is.

    Returns:
        The trial's info; None where the study waits for the trial no more.

    Raises:
        KeyboardInterrupt: It was interrupted; the trial does not count.
    """
    import optuna

    study = _study(absolute(ticket.storage), ticket.study)
    trials = study.get_trials(deepcopy=False)
    its = trials[ticket.number]
    if its.state.is_finished():
        return None  # given up, or done: a scheduler may start a job a second time
    live = optuna.trial.Trial(study, its._trial_id)
    is_handed_out = not is_own(its)
    if is_handed_out:
        # It was drawn by one process and is run by another, which is the one that may be killed.
        live.set_user_attr(OWNER, owner(searches=False))
    sweep = config.sweep
    # Not the pruned ones: what they would have reached is not known.
    finished = [t for t in trials if t.state == optuna.trial.TrialState.COMPLETE]
    reporter = Reporter(
        live,
        [t.intermediate_values for t in finished],
        prune=sweep.prune,
        warmup_epochs=sweep.warmup_epochs,
        startup_trials=sweep.startup_trials,
    )
    info = experiment.new_trial_card(config, run_dir, ticket.number, ticket.study, ticket.shown)
    try:
        with (
            Threads(study, ticket.threads, ticket.jobs if ticket.host == socket.gethostname() else 1) as threads,
            # A search tells of its own trials itself.
            beating(study) if is_handed_out else contextlib.nullcontext(),
        ):
            threads.share(trials)
            dataset = dataset_of(config)
            _check_same_data(study, dataset)
            value = experiment.attempt(config, dataset, run_dir, info, reporter, threads.share)
        end(study, ticket.number, value, marks={})
    except PrunedError as pruned:
        info.end("PRUNED", str(pruned))
        end(study, ticket.number, None, pruned=True, marks={REASON: str(pruned)})
    except BaseException as error:
        if interrupt.caused(error):
            info.end("KILLED", "interrupted")
            give_up(study, ticket.number, "interrupted", counts=False)
            raise
        if not isinstance(error, Exception):
            raise
        reason = str(error) if isinstance(error, SpectroError) else f"{type(error).__name__}: {error}"
        info.end("FAILED", reason)
        give_up(study, ticket.number, reason.strip().splitlines()[0] if reason.strip() else type(error).__name__)
    return info


def _check_same_data(study: "optuna.Study", dataset: Dataset) -> None:
    wanted = study.user_attrs.get(SETTINGS, {}).get("data.fingerprint", dataset.fingerprint)
    if dataset.fingerprint != wanted:
        host = socket.gethostname()
        raise DataError(f"data.root: {dataset.root} on {host} does not hold the records that the search began with")


def dataset_of(config: Config) -> Dataset:
    """The configuration's data, read and checked once in a process."""
    key = repr((config.raw["data"], config.raw["mapping"], config.raw["outputs"], config.estimator().specs))
    if key not in _datasets:
        _datasets[key] = task.load_data(config)
    _datasets.move_to_end(key)
    while len(_datasets) > _MAX_DATASETS:
        _datasets.popitem(last=False)
    return _datasets[key]


@cache
def _study(storage: str, name: str) -> "optuna.Study":
    import optuna

    return optuna.load_study(study_name=name, storage=open_storage(storage))


def seconds_of(trial: "optuna.trial.FrozenTrial") -> float:
    """How long a finished trial took; 0 where it is not known."""
    if trial.datetime_start is None or trial.datetime_complete is None:
        return 0.0
    return (trial.datetime_complete - trial.datetime_start).total_seconds()

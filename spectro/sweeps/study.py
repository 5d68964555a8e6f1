"""An Optuna study in a database on which several processes work: it counts to a total and survives kills."""

import functools
import itertools
import os
import secrets
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from sqlalchemy import event

from spectro.errors import ConfigError
from spectro.files import locked
from spectro.paths import redact, sqlite_path
from spectro.tracking import is_alive

# User attributes of a study.
ID, SETTINGS = "id", "settings"
# User attributes of a trial.
OWNER, SEEN_AT, DRAW, REASON, UNCOUNTED, SAME_AS = "owner", "seen_at", "draw", "reason", "uncounted", "same_as"
# Whether a process of another machine is alive can only be seen by the attribute that it writes every minute.
_HEARTBEAT_S, _SILENT_S = 60, 600
# Until another process has created the tables of a new database.
_TABLES_S = 3


@functools.cache
def open_storage(storage: str) -> optuna.storages.BaseStorage:
    """Connects to a study database and creates it if needed; several processes may do so at once.

    A process has one connection to each database, so that finished trials are read once.

    Raises:
        ConfigError: It cannot be used.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if storage == "sqlite://" or ":memory:" in storage:
        raise ConfigError(f"storage: got {storage!r}; allowed: a database that outlives the process")
    create = optuna.storages.RDBStorage
    try:
        if (path := sqlite_path(storage)) is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            address = f"sqlite:///{path}{''.join(storage.partition('?')[1:])}"
            # Processes that create the tables of a file at the same time collide.
            with locked(path.with_name(f"{path.name}.lock")):
                rdb = create(address, engine_kwargs={"connect_args": {"timeout": 120}})
            event.listen(rdb.engine, "connect", _without_fsync)
            rdb.engine.dispose()
        else:
            try:
                rdb = create(storage, engine_kwargs={"pool_pre_ping": True})
            except Exception:
                time.sleep(_TABLES_S)
                rdb = create(storage, engine_kwargs={"pool_pre_ping": True})
        return optuna.storages.get_storage(rdb)
    except Exception as error:  # drivers and SQLAlchemy raise any type
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"storage: got {redact(storage)!r}, which cannot be used ({redact(reason)}); allowed: sqlite:///FILE, "
            "postgresql+psycopg://USER@HOST/NAME (pip install 'spectro[postgres]')"
        ) from error


def _without_fsync(connection: Any, _: Any) -> None:
    """Lets the system decide when a sqlite file reaches the disk: a killed process loses nothing."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def open_study(storage: str, name: str, settings: Mapping[str, Any]) -> optuna.Study:
    """The study of this name; created if there is none. ``settings`` are whatever makes two trials comparable.

    Raises:
        ConfigError: It holds trials of other settings, or the storage cannot be used.
    """
    database = open_storage(storage)
    study = optuna.create_study(storage=database, study_name=name, direction="maximize", load_if_exists=True)
    if SETTINGS not in study.user_attrs and not study.get_trials(deepcopy=False):
        study.set_user_attr(ID, secrets.token_hex(8))
        study.set_user_attr(SETTINGS, dict(settings))
    before = study.user_attrs.get(SETTINGS, {})
    if changed := sorted(key for key in before.keys() | settings.keys() if before.get(key) != settings.get(key)):
        shown = ", ".join(f"{key} (was {before.get(key)!r}, is {settings.get(key)!r})" for key in changed[:3])
        raise ConfigError(
            f"study: got {name!r}, whose trials had other settings: {shown}; allowed: study=NAME with a new name"
        )
    return study


def counting(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that count towards the total: all but those whose process was killed."""
    return [trial for trial in study.get_trials(deepcopy=False) if UNCOUNTED not in trial.user_attrs]


def running(study: optuna.Study) -> list[FrozenTrial]:
    """The trials without an end, whether or not their process is alive."""
    return [trial for trial in study.get_trials(deepcopy=False) if not trial.state.is_finished()]


def complete(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that have a value of the objective."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]


def claim(
    study: optuna.Study,
    space: Mapping[str, Any],
    total: int,
    make_sampler: Callable[[int], optuna.samplers.BaseSampler],
    start: Mapping[str, Any],
) -> optuna.trial.Trial | None:
    """Draws the next trial, for this process to run. One process at a time may call this: hold a lock.

    Every draw has a sampler and a random state of its own, and a killed trial gives its draw back. So the points depend
    on the seed and on the trials before, but neither on restarts nor on which process draws.

    Args:
        study: The study.
        space: Parameter -> Optuna distribution.
        total: How many trials the study is to have.
        make_sampler: Number of the draw -> a sampler.
        start: Parameters of the first draw; its sampler draws those that are missing.

    Returns:
        The trial; None if as many are finished or running.
    """
    trials = counting(study)
    if len(trials) >= total:
        return None
    used = {trial.user_attrs.get(DRAW) for trial in trials}
    draw = next(number for number in itertools.count() if number not in used)
    sampler = make_sampler(draw)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        fixed = dict(start) if draw == 0 else {}
        study.sampler = optuna.samplers.PartialFixedSampler(fixed, sampler) if fixed else sampler
    trial = study.ask(dict(space))
    trial.set_user_attr(OWNER, this_process())
    trial.set_user_attr(DRAW, draw)
    return trial


def end_trial(
    study: optuna.Study, number: int, state: str, value: float | None = None, *, counts: bool = True, **marks: Any
) -> None:
    """Ends a trial as ``COMPLETE``, with its objective, ``PRUNED`` or ``FAIL``, unless another process was faster.

    Without ``counts`` it does not count towards the total. Marks are ``reason``, why it has no value, and ``same_as``,
    the earlier trial from which the value was copied.
    """
    trial = study.get_trials(deepcopy=False)[number]
    with suppress(optuna.exceptions.UpdateFinishedTrialError):
        for name, mark in (marks if counts else {**marks, UNCOUNTED: True}).items():
            study._storage.set_trial_user_attr(trial._trial_id, name, mark)
        study.tell(number, value, state=optuna.trial.TrialState[state], skip_if_finished=True)


def fail_stale(study: optuna.Study) -> list[int]:
    """Marks running trials whose process is gone as failed and uncounted; returns their numbers.

    Hold the lock of `claim`: a trial that is being drawn has no owner yet.
    """
    stale = [trial.number for trial in running(study) if not is_running(trial)]
    for number in stale:
        end_trial(study, number, "FAIL", counts=False, reason="its process was killed")
    return stale


def is_running(trial: FrozenTrial) -> bool:
    """Whether the process of a trial without an end is alive; on another machine, whether it was a while ago."""
    if (owner := trial.user_attrs.get(OWNER)) is None:
        return False
    if (alive := is_alive(owner)) is not None:
        return alive
    return time.time() - trial.user_attrs.get(SEEN_AT, owner["started_at"]) < _SILENT_S


def this_process() -> dict[str, Any]:
    """This process as the owner of a trial."""
    return {"pid": os.getpid(), "host": socket.gethostname(), "started_at": time.time()}


def is_own(trial: FrozenTrial) -> bool:
    """Whether a trial belongs to this process."""
    owner = trial.user_attrs.get(OWNER) or {}
    return (owner.get("pid"), owner.get("host")) == (os.getpid(), socket.gethostname())


@contextmanager
def heartbeat(study: optuna.Study) -> Iterator[None]:
    """Shows other machines that the trials of this process are alive; Optuna's own runs in ``study.optimize`` only."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(_HEARTBEAT_S):
            with suppress(Exception):  # the database may be away for a moment
                for trial in filter(is_own, running(study)):
                    study._storage.set_trial_user_attr(trial._trial_id, SEEN_AT, time.time())

    threading.Thread(target=beat, name="heartbeat", daemon=True).start()
    try:
        yield
    finally:
        ended.set()

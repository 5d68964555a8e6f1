"""An Optuna study in a database on which several processes work: it counts to a total and survives kills."""

import functools
import itertools
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from spectro.errors import ConfigError
from spectro.paths import redact, sqlite_path
from spectro.tracking import is_alive

if TYPE_CHECKING:
    import optuna

# User attributes of a study.
ID, SETTINGS = "id", "settings"
# User attributes of a trial.
OWNER, SEEN_AT, DRAW, REASON, UNCOUNTED, SAME_AS = "owner", "seen_at", "draw", "reason", "uncounted", "same_as"
# Whether a process of another machine is alive can only be seen by the attribute that it writes every minute.
_HEARTBEAT_S, _SILENT_S = 60, 600
# A trial gets its owner directly after it is drawn.
_WITHOUT_OWNER_S = 10


@functools.cache
def open_storage(storage: str) -> "optuna.storages.BaseStorage":
    """Connects to a study database and creates it if needed; several processes may do so at once.

    A process has one connection to each database, so that finished trials are read once.

    Args:
        storage: ``sqlite:///FILE`` or another address that SQLAlchemy takes.

    Raises:
        ConfigError: It cannot be used.
    """
    import optuna
    from filelock import FileLock

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if storage == "sqlite://" or ":memory:" in storage:
        raise ConfigError(f"storage: got {storage!r}; allowed: a database that outlives the process")
    try:
        if (path := sqlite_path(storage)) is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Processes that create the tables of a file at the same time collide.
            with FileLock(f"{path}.lock", timeout=120):
                address = f"sqlite:///{path}{''.join(storage.partition('?')[1:])}"
                rdb = optuna.storages.RDBStorage(address, engine_kwargs={"connect_args": {"timeout": 120}})
                return optuna.storages.get_storage(_without_fsync(rdb))
        for pause_s in (0.5, 1, 2, None):
            try:
                rdb = optuna.storages.RDBStorage(storage, engine_kwargs={"pool_pre_ping": True})
                return optuna.storages.get_storage(rdb)
            except Exception:
                # Another process may be creating the tables.
                if pause_s is None:
                    raise
                time.sleep(pause_s)
    except Exception as error:  # drivers and SQLAlchemy raise any type
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"storage: got {redact(storage)!r}, which cannot be used ({redact(reason)}); allowed: sqlite:///FILE, "
            "postgresql+psycopg://USER@HOST/NAME (pip install 'spectro[postgres]')"
        ) from error
    raise AssertionError("unreachable")


def _without_fsync(storage: "optuna.storages.RDBStorage") -> "optuna.storages.RDBStorage":
    """Leaves it to the system when the bytes of a sqlite file reach the disk: a trial writes a dozen times.

    A killed process loses nothing; a power failure may lose the last trials, but does not damage the file.
    """
    from sqlalchemy import event

    def set_pragmas(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    event.listen(storage.engine, "connect", set_pragmas)
    storage.engine.dispose()
    return storage


def open_study(storage: str, name: str, settings: Mapping[str, Any]) -> "optuna.Study":
    """The study of this name; created if there is none. It maximizes the objective.

    Args:
        storage: See `open_storage`.
        name: The study's name.
        settings: Whatever makes two trials comparable: dotted key -> value.

    Raises:
        ConfigError: It holds trials of other settings, or the storage cannot be used.
    """
    import optuna

    study = optuna.create_study(
        storage=open_storage(storage), study_name=name, direction="maximize", load_if_exists=True
    )
    before = study.user_attrs.get(SETTINGS)
    if before is None:
        if study.get_trials(deepcopy=False):
            raise ConfigError(f"study: got {name!r}, which another program created; allowed: another name")
        study.set_user_attr(ID, secrets.token_hex(8))
        study.set_user_attr(SETTINGS, dict(settings))
    elif before != dict(settings):
        changed = sorted(key for key in before.keys() | settings.keys() if before.get(key) != settings.get(key))
        shown = ", ".join(f"{key} (was {before.get(key)!r}, is {settings.get(key)!r})" for key in changed[:3])
        raise ConfigError(
            f"study: got {name!r}, whose trials had other settings: {shown}{' ...' if len(changed) > 3 else ''}; "
            "allowed: study=NAME with a new name"
        )
    return study


def counting(trials: Sequence["optuna.trial.FrozenTrial"]) -> list["optuna.trial.FrozenTrial"]:
    """The trials that count towards the total: all but those whose process was killed."""
    return [trial for trial in trials if UNCOUNTED not in trial.user_attrs]


def claim(
    study: "optuna.Study",
    space: Mapping[str, Any],
    total: int,
    make_sampler: Callable[[int], "optuna.samplers.BaseSampler"],
) -> "optuna.trial.Trial | None":
    """Draws the next trial, for this process to run. One process at a time may call this: hold a lock.

    Every draw has a sampler and a random state of its own, and a killed trial gives its draw back. So the points
    depend on the seed and on the trials before, but neither on restarts nor on which process draws.

    Args:
        study: The study.
        space: Parameter -> Optuna distribution.
        total: How many trials the study is to have.
        make_sampler: Number of the draw -> a sampler.

    Returns:
        The trial; None if as many are finished or running.
    """
    trials = counting(study.get_trials(deepcopy=False))
    if len(trials) >= total:
        return None
    used = {trial.user_attrs.get(DRAW) for trial in trials}
    draw = next(number for number in itertools.count() if number not in used)
    study.sampler = make_sampler(draw)
    trial = study.ask(dict(space))
    trial.set_user_attr(OWNER, this_process())
    trial.set_user_attr(DRAW, draw)
    return trial


def end_trial(
    study: "optuna.Study",
    number: int,
    state: str,
    value: float | None = None,
    *,
    reason: str | None = None,
    same_as: int | None = None,
    counts: bool = True,
) -> None:
    """Ends a trial, unless another process was faster.

    Args:
        study: The study.
        number: The trial's number.
        state: ``COMPLETE``, ``PRUNED`` or ``FAIL``.
        value: The objective of a complete trial.
        reason: Why it has no value.
        same_as: The earlier trial from which the value was copied.
        counts: Whether it counts towards the total.
    """
    import optuna

    trial = study.get_trials(deepcopy=False)[number]
    with suppress(optuna.exceptions.UpdateFinishedTrialError):
        marks = {REASON: reason, SAME_AS: same_as, UNCOUNTED: None if counts else True}
        for name in (name for name, mark in marks.items() if mark is not None):
            study._storage.set_trial_user_attr(trial._trial_id, name, marks[name])
        study.tell(number, value, state=optuna.trial.TrialState[state], skip_if_finished=True)


def fail_stale(study: "optuna.Study") -> list[int]:
    """Marks running trials whose process is gone as failed and uncounted; returns their numbers."""
    stale = [trial.number for trial in running(study) if not is_running(trial)]
    for number in stale:
        end_trial(study, number, "FAIL", counts=False, reason="its process was killed")
    return stale


def running(study: "optuna.Study") -> list["optuna.trial.FrozenTrial"]:
    """The trials without an end, whether or not their process is alive."""
    return [trial for trial in study.get_trials(deepcopy=False) if not trial.state.is_finished()]


def is_running(trial: "optuna.trial.FrozenTrial") -> bool:
    """Whether the process of a trial without an end is alive."""
    owner = trial.user_attrs.get(OWNER)
    alive = is_alive(owner) if owner is not None else None
    if alive is not None:
        return alive
    started_at = trial.datetime_start.timestamp() if trial.datetime_start is not None else 0.0
    silent_s = time.time() - max(started_at, trial.user_attrs.get(SEEN_AT, 0.0))
    return silent_s < (_SILENT_S if owner is not None else _WITHOUT_OWNER_S)


def this_process() -> dict[str, Any]:
    """This process as the owner of a trial."""
    return {"pid": os.getpid(), "host": socket.gethostname(), "started_at": time.time()}


def is_own(trial: "optuna.trial.FrozenTrial") -> bool:
    """Whether a trial belongs to this process."""
    owner = trial.user_attrs.get(OWNER) or {}
    return (owner.get("pid"), owner.get("host")) == (os.getpid(), socket.gethostname())


@contextmanager
def heartbeat(study: "optuna.Study") -> Iterator[None]:
    """Shows other machines that the trials of this process are alive.

    Optuna's own heartbeat only runs inside ``study.optimize``, and needs its grace period even where the process can
    be looked up.
    """
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


def seconds_of(trial: "optuna.trial.FrozenTrial") -> float:
    """How long a finished trial took; 0 where it is unknown."""
    if trial.datetime_start is None or trial.datetime_complete is None:
        return 0.0
    return (trial.datetime_complete - trial.datetime_start).total_seconds()

"""The database of a study: reached by several processes at once, made by the first."""

import functools
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectro.errors import ConfigError
from spectro.paths import redact

if TYPE_CHECKING:
    import optuna


def absolute(storage: str) -> str:
    """A storage address that means the same from every folder: the file of a sqlite address made absolute."""
    found = re.fullmatch(r"sqlite:///([^?]+)(\?.*)?", storage)
    if found is None or found[1] == ":memory:":
        return storage
    return f"sqlite:///{Path(found[1]).expanduser().absolute()}{found[2] or ''}"


@functools.cache
def open_storage(storage: str) -> "optuna.storages.BaseStorage":
    """Connects to a study database, made if it is not there; several processes may do so at once.

    A process has one connection to each, so that it reads no finished trial twice.

    Args:
        storage: ``sqlite:///FILE`` or another address that SQLAlchemy takes.

    Raises:
        ConfigError: It cannot be used.
    """
    import optuna
    from filelock import FileLock

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = absolute(storage)
    if storage == "sqlite://" or ":memory:" in storage:
        raise ConfigError(f"storage: got {storage!r}; allowed: a database that outlives the process")
    file = storage.removeprefix("sqlite:///").partition("?")[0] if storage.startswith("sqlite:///") else None
    try:
        if file is not None:
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            # Optuna's first use of a file collides between processes; writers wait for each other afterwards.
            with FileLock(f"{file}.lock", timeout=120):
                rdb = optuna.storages.RDBStorage(storage, engine_kwargs={"connect_args": {"timeout": 120}})
                return optuna.storages.get_storage(_quick(rdb))
        for attempt in range(4):
            try:
                rdb = optuna.storages.RDBStorage(storage, engine_kwargs={"pool_pre_ping": True})
                return optuna.storages.get_storage(rdb)
            except Exception:
                # Another process may be making the tables at this moment.
                if attempt == 3:
                    raise
                time.sleep(0.5 * 2**attempt)
    except Exception as error:  # drivers and SQLAlchemy raise any type
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"storage: got {redact(storage)!r}, which cannot be used ({redact(reason)}); allowed: sqlite:///FILE, "
            "postgresql+psycopg://USER@HOST/NAME (pip install 'spectro[postgres]')"
        ) from error
    raise AssertionError("unreachable")


def _quick(storage: "optuna.storages.RDBStorage") -> "optuna.storages.RDBStorage":
    """Lets sqlite leave it to the system when bytes reach the disk: a study writes a dozen times a trial.

    A kill of the process loses nothing; only a power failure may lose the last trials, never the file.
    """
    from sqlalchemy import event

    def set_pragmas(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    event.listen(storage.engine, "connect", set_pragmas)
    storage.engine.dispose()
    return storage

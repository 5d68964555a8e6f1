"""Results of a computation, a few arrays each, kept under what they were made from: in memory and on disk."""

import logging
import os
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

log = logging.getLogger("spectro")

Arrays = Mapping[str, np.ndarray]


class ArrayCache:
    """Named arrays under content keys, beside the rows of a `RowCache` and within the same limit on disk.

    A file is written under a temporary name and renamed when it is whole; zip's own checksums tell a damaged one.

    Args:
        folder: Where files go; None: memory only.
        shrink: Called after a file was written: it deletes what is too much on disk.
        memory_bytes: What was used longest ago is dropped from memory past this.
    """

    def __init__(self, folder: Path | None, shrink: Callable[[], None] = lambda: None, memory_bytes: float = 256e6):
        self._folder, self._shrink, self._memory_bytes = folder, shrink, memory_bytes
        # Oldest use first.
        self._kept: dict[str, Arrays] = {}
        self._bytes = 0

    def get(self, key: str, compute: Callable[[], Arrays]) -> Arrays:
        """The arrays under ``key``: from memory, from disk, or computed. They must not be changed.

        Args:
            key: Names everything that the arrays were made from; letters and digits.
            compute: Makes them.
        """
        found = self._kept.pop(key, None)
        if found is not None:
            self._kept[key] = found
            return found
        path = None if self._folder is None else self._folder / f"{key}.npz"
        found = None if path is None else self._read(path)
        if found is None:
            found = dict(compute())
            if path is not None:
                self._write(path, found)
        self._keep(key, found)
        return found

    def _keep(self, key: str, arrays: Arrays) -> None:
        self._kept[key] = arrays
        self._bytes += _size(arrays)
        while self._bytes > self._memory_bytes and len(self._kept) > 1:
            self._bytes -= _size(self._kept.pop(next(iter(self._kept))))

    def _read(self, path: Path) -> Arrays | None:
        try:
            # Opened here: numpy leaves a file that it cannot make sense of open.
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                found = {name: file[name] for name in file.files}
        except OSError:  # not there, or not ours to read
            return None
        except (ValueError, KeyError, EOFError, BadZipFile) as error:
            log.warning("cache: %s is damaged (%s); it is made again", path, error)
            return None
        with suppress(OSError):  # what is used stays longer
            os.utime(path)
        return found

    def _write(self, path: Path, arrays: Arrays) -> None:
        draft = path.with_name(f"{uuid.uuid4().hex}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with draft.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
            draft.replace(path)
        except OSError as error:
            log.warning("cache: cannot write to %s (%s); its arrays are kept in memory only", path, error)
            with suppress(OSError):
                draft.unlink()
            return
        self._shrink()


def _size(arrays: Arrays) -> int:
    return sum(array.nbytes for array in arrays.values())

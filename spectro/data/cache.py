"""Cache of computed results under what they were made from: one immutable file each on disk, or in memory.

A file is written under a temporary name and renamed when it is whole. Several processes may write at once and any of
them may be killed: at worst a file is written twice. Nothing is locked.
"""

import gzip
import hashlib
import io
import json
import logging
import os
import re
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

log = logging.getLogger("spectro")

Arrays = Mapping[str, np.ndarray]
# Missing keys -> chunks of (keys, their rows).
Compute = Callable[[Sequence[str]], Iterable[tuple[Sequence[str], np.ndarray]]]

# Files used more recently are neither deleted nor marked as used again.
_RECENT_S = 3600
# The end of the path of a file that a cache has written; of an earlier version in a folder more.
_IS_OURS = re.compile(r"/(\w+-[0-9a-f]{16}/(../)?[^/]+\.npy(\.gz)?|arrays/\w+\.npz)(\.[0-9a-f]{32}\.tmp)?\Z")
# Past this the arrays that were used longest ago are read from disk again.
_ARRAYS_BYTES = 256e6


@dataclass(frozen=True)
class RowKind:
    """What rows are, apart from what they were made from.

    Attributes:
        name: ``pixels``, ``hog``.
        settings: Everything that changes a row's values besides its key, code version included; JSON values.
        shape: Shape of one row.
        dtype: Its type.
    """

    name: str
    settings: dict
    shape: tuple[int, ...]
    dtype: str

    @cached_property
    def folder(self) -> str:
        """A folder name that two kinds share only if they are the same."""
        text = json.dumps([self.settings, self.shape, self.dtype], sort_keys=True)
        return f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


class RowCache:
    """Rows of fixed shapes (images, feature vectors), one ``.npy`` file each, and results of a few arrays each.

    Where nothing can be written, on a full disk for example, new results are kept in memory.

    Args:
        folder: Made when the first file is written. None: everything stays in memory.
        limit_bytes: Past this the files that were used longest ago are deleted, but none of the last hour.
    """

    def __init__(self, folder: Path | None, limit_bytes: float = float("inf")):
        self.folder, self.limit_bytes = folder, limit_bytes
        self._is_writable = folder is not None
        self._disk_bytes: int | None = None
        self._rows: dict[str, np.ndarray] = {}
        self._arrays: dict[str, Arrays] = {}

    def missing(self, kind: RowKind, keys: Iterable[str]) -> list[str]:
        """The keys without a row, each once, in order."""
        paths = {key: self._path(kind, key) for key in keys}
        return [key for key, path in paths.items() if path not in self._rows and not self._use(path)]

    def rows(self, kind: RowKind, keys: Sequence[str], compute: Compute | None = None) -> np.ndarray:
        """Rows for ``keys``, computed where they are not there yet.

        Args:
            kind: What rows.
            keys: One key for each row; keys may repeat.
            compute: Called with the missing keys. May be None if nothing is missing.

        Returns:
            A new array ``(len(keys), *shape)``, in the order of ``keys``.

        Raises:
            KeyError: A key has no row even after ``compute``.
        """
        out = np.empty((len(keys), *kind.shape), kind.dtype)
        positions: dict[str, list[int]] = {}
        for i, key in enumerate(keys):
            positions.setdefault(key, []).append(i)
        for key in list(positions):
            path = self._path(kind, key)
            row = self._rows[path] if path in self._rows else self._load(path)
            if row is not None:
                out[positions.pop(key)] = row
        if positions and compute is not None:
            for computed, rows in compute(list(positions)):
                self.write(kind, computed, rows)
                for key, row in zip(computed, rows, strict=True):
                    out[positions.pop(key)] = row
            self.shrink()
        if positions:
            raise KeyError(next(iter(positions)))
        return out

    def write(self, kind: RowKind, keys: Sequence[str], rows: np.ndarray) -> None:
        """Stores rows ``(len(keys), *shape)``; `shrink` is to be called after the last of them."""
        for key, row in zip(keys, rows.astype(kind.dtype), strict=True):
            path = self._path(kind, key)
            if not self._write(path, lambda file, row=row: np.save(file, row)):  # type: ignore[misc]
                self._rows[path] = row

    def arrays(self, key: str, compute: Callable[[], Arrays]) -> Arrays:
        """A few named arrays: from memory, from disk, or computed. They must not be changed.

        Args:
            key: Names everything that the arrays were made from; letters and digits.
            compute: Makes them.
        """
        path = f"{self.folder}/arrays/{key}.npz"
        arrays = self._arrays.pop(key, None) or self._load(path)
        if arrays is None:
            arrays = computed = dict(compute())
            self._write(path, lambda file: np.savez(file, allow_pickle=False, **computed))
            self.shrink()
        # The most recent one is the last.
        self._arrays[key] = arrays
        while len(self._arrays) > 1 and sum(map(_n_bytes, self._arrays.values())) > _ARRAYS_BYTES:
            del self._arrays[next(iter(self._arrays))]
        return arrays

    def shrink(self) -> None:
        """Deletes what was used longest ago if the folder holds more than its limit."""
        if self.folder is None or (self._disk_bytes is not None and self._disk_bytes <= self.limit_bytes):
            return
        files = []
        for folder, _, names in os.walk(self.folder):
            # The folder may be one that holds other files.
            for path in filter(_IS_OURS.search, (Path(folder, name).as_posix() for name in names)):
                with suppress(OSError):  # another process may have deleted it
                    status = os.stat(path)
                    files.append((status.st_mtime, status.st_size, path))
        self._disk_bytes = sum(size for _, size, _ in files)
        for mtime, size, path in sorted(files):
            if self._disk_bytes <= self.limit_bytes or mtime > time.time() - _RECENT_S:
                break
            with suppress(OSError):
                os.unlink(path)
                self._disk_bytes -= size

    def _path(self, kind: RowKind, key: str) -> str:
        # Packed images take about half the space; features would hardly shrink.
        ending = ".npy.gz" if kind.dtype == "uint8" else ".npy"
        return f"{self.folder}/{kind.folder}/{key.replace(':', '-')}{ending}"

    def _write(self, path: str, save: Callable[[BinaryIO], None]) -> bool:
        """Whether the file was written."""
        if not self._is_writable:
            return False
        draft = f"{path}.{uuid.uuid4().hex}.tmp"
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(draft, "wb") as file:
                packed: Any = gzip.GzipFile("", "wb", 1, file, mtime=0) if path.endswith(".gz") else nullcontext(file)
                with packed as content:
                    save(content)
                size = file.tell()
            os.replace(draft, path)
        except OSError as error:
            self._is_writable = False
            log.warning("cache: cannot write to %s (%s); new results are kept in memory only", self.folder, error)
            with suppress(OSError):
                os.unlink(draft)
            return False
        self._disk_bytes = None if self._disk_bytes is None else self._disk_bytes + size
        return True

    def _use(self, path: str) -> bool:
        """Whether there is a file, which is marked as used."""
        if self.folder is None:
            return False
        try:
            if os.stat(path).st_mtime < time.time() - _RECENT_S:
                with suppress(OSError):  # a cache may be read-only
                    os.utime(path)
        except OSError:
            return False
        return True

    def _load(self, path: str) -> Any:
        """The array or arrays of a file; None without one. A damaged file is deleted."""
        if not self._use(path):
            return None
        try:
            # numpy does not close a file that it cannot read.
            with open(path, "rb") as file:
                unpacked = io.BytesIO(gzip.decompress(file.read())) if path.endswith(".gz") else file
                content = np.load(unpacked, allow_pickle=False)
                return content if isinstance(content, np.ndarray) else dict(content)
        except Exception as error:
            # What a damaged file raises depends on where the damage is.
            log.warning("cache: %s is damaged (%s); it is made again", path, error)
            with suppress(OSError):
                os.unlink(path)
            return None


def _n_bytes(arrays: Arrays) -> int:
    return sum(array.nbytes for array in arrays.values())


# The process's one cache for a folder, so that its jobs share memory.
row_cache = cache(RowCache)

"""Cache of computed results under what they were made from: one immutable file each on disk, or in memory.

A file is written under a temporary name and renamed when it is whole. Several processes may write at once and any of
them may be killed: at worst a file is written twice. Nothing is locked.
"""

import hashlib
import io
import json
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

log = logging.getLogger("spectro")

Arrays = Mapping[str, np.ndarray]
# Missing keys -> chunks of (the keys that gave a row, their rows).
Compute = Callable[[Sequence[str]], Iterable[tuple[Sequence[str], np.ndarray]]]

# Files used more recently are neither deleted nor marked as used again.
_RECENT_S = 3600


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

    @cached_property
    def header(self) -> bytes:
        """How the ``.npy`` file of each row begins."""
        file = io.BytesIO()
        np.save(file, np.empty(self.shape, self.dtype))
        return file.getvalue()[: -self.row_bytes]

    @cached_property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


class RowCache:
    """Rows of fixed shapes (images, feature vectors), one ``.npy`` file each, and results of a few arrays each.

    Args:
        folder: Made when the first file is written. None: everything stays in memory.
        limit_bytes: Past this the files that were used longest ago are deleted, but none of the last hour.
        arrays_in_memory_bytes: Past this the `arrays` that were used longest ago are read from disk again.
    """

    def __init__(
        self, folder: Path | None, limit_bytes: float = float("inf"), *, arrays_in_memory_bytes: float = 256e6
    ):
        self.folder, self.limit_bytes, self._arrays_in_memory_bytes = folder, limit_bytes, arrays_in_memory_bytes
        self._rows: dict[tuple[str, str], np.ndarray] = {}
        self._arrays: dict[str, Arrays] = {}
        self._disk_bytes: int | None = None
        self._warned: set[str] = set()

    def missing(self, kind: RowKind, keys: Iterable[str]) -> list[str]:
        """The keys without a row, each once, in order."""
        return [key for key in dict.fromkeys(keys) if not self._has(kind, key)]

    def rows(self, kind: RowKind, keys: Sequence[str], compute: Compute | None = None) -> np.ndarray:
        """Rows for ``keys``, computed where they are not there yet.

        Args:
            kind: What rows.
            keys: One key for each row; keys may repeat.
            compute: Called with the missing keys; yields chunks of (keys, rows). May be None if nothing is missing.

        Returns:
            A new array ``(len(keys), *shape)``, in the order of ``keys``.

        Raises:
            KeyError: A key has no row even after ``compute``.
        """
        out = np.empty((len(keys), *kind.shape), kind.dtype)
        positions: dict[str, list[int]] = {}
        for position, key in enumerate(keys):
            positions.setdefault(key, []).append(position)
        for key in list(positions):
            row = self._read(kind, key)
            if row is not None:
                out[positions.pop(key)] = row
        if positions and compute is not None:
            for computed_keys, rows in compute(list(positions)):
                self.write(kind, computed_keys, rows)
                for key, row in zip(computed_keys, rows, strict=True):
                    out[positions.pop(key)] = row
            self.shrink()
        if positions:
            raise KeyError(next(iter(positions)))
        return out

    def write(self, kind: RowKind, keys: Sequence[str], rows: np.ndarray) -> None:
        """Stores rows ``(len(keys), *shape)``; `shrink` is to be called after the last of them."""
        for key, row in zip(keys, np.ascontiguousarray(rows, dtype=kind.dtype), strict=True):
            if not self._write(self._path(kind, key), kind.header + row.tobytes()):
                self._rows[kind.folder, key] = row.copy()

    def arrays(self, key: str, compute: Callable[[], Arrays]) -> Arrays:
        """A few named arrays: from memory, from disk, or computed. They must not be changed.

        Args:
            key: Names everything that the arrays were made from; letters and digits.
            compute: Makes them.
        """
        arrays = self._arrays.pop(key, None)
        path = None if self.folder is None else self.folder / "arrays" / f"{key}.npz"
        if arrays is None and path is not None:
            arrays = _load(path)
        if arrays is None:
            arrays = dict(compute())
            if path is not None:
                file = io.BytesIO()
                np.savez(file, allow_pickle=False, **arrays)
                self._write(path, file.getbuffer())
                self.shrink()
        # The most recent one is the last.
        self._arrays[key] = arrays
        while len(self._arrays) > 1 and sum(map(_size, self._arrays.values())) > self._arrays_in_memory_bytes:
            del self._arrays[next(iter(self._arrays))]
        return arrays

    def shrink(self) -> None:
        """Deletes what was used longest ago if the folder holds more than its limit."""
        if self.folder is None or self.limit_bytes == float("inf"):
            return
        if self._disk_bytes is not None and self._disk_bytes <= self.limit_bytes:
            return
        files, now = [], time.time()
        for folder, _, names in os.walk(self.folder):
            for path in (os.path.join(folder, name) for name in names):
                with suppress(OSError):
                    status = os.stat(path)
                    files.append((status.st_mtime, status.st_size, path))
        self._disk_bytes = sum(size for _, size, _ in files)
        for mtime, size, path in sorted(files):
            # A temporary file of this age was left by a process that died.
            if mtime < now - _RECENT_S and (self._disk_bytes > self.limit_bytes or path.endswith(".tmp")):
                with suppress(OSError):
                    os.unlink(path)
                    self._disk_bytes -= size
        if self._disk_bytes > self.limit_bytes:
            self._warn(f"{self.folder} needs {self._disk_bytes / 1e9:.1f} GB, more than data.cache_limit_gb allows")

    def _path(self, kind: RowKind, key: str) -> str | None:
        name = key.replace(":", "-")
        return None if self.folder is None else f"{self.folder}/{kind.folder}/{name[:2]}/{name}.npy"

    def _has(self, kind: RowKind, key: str) -> bool:
        path = self._path(kind, key)
        if (kind.folder, key) in self._rows:
            return True
        try:
            return path is not None and _touch(path) == len(kind.header) + kind.row_bytes
        except OSError:
            return False

    def _read(self, kind: RowKind, key: str) -> np.ndarray | None:
        if (kind.folder, key) in self._rows:
            return self._rows[kind.folder, key]
        path = self._path(kind, key)
        try:
            if path is None:
                return None
            with open(path, "rb", buffering=0) as file:
                content = file.read()
            _touch(path)
        except OSError:
            return None
        if not content.startswith(kind.header) or len(content) != len(kind.header) + kind.row_bytes:
            log.warning("cache: %s is damaged; it is made again", path)
            return None
        return np.frombuffer(content, kind.dtype, offset=len(kind.header)).reshape(kind.shape)

    def _write(self, path: str | Path | None, content: bytes | memoryview) -> bool:
        """Whether the file could be written."""
        if path is None:
            return False
        draft = f"{path}.{uuid.uuid4().hex}.tmp"
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(draft, "wb") as file:
                file.write(content)
            os.replace(draft, path)
        except OSError as error:
            self._warn(f"cannot write to {self.folder} ({error}); new results are kept in memory only")
            with suppress(OSError):
                os.unlink(draft)
            return False
        if self._disk_bytes is not None:
            self._disk_bytes += len(content)
        return True

    def _warn(self, text: str) -> None:
        """Once in each cache."""
        if text[:10] not in self._warned:
            self._warned.add(text[:10])
            log.warning("cache: %s", text)


def _touch(path: str | Path) -> int:
    """Marks a file as used; returns its size in bytes."""
    status = os.stat(path)
    if status.st_mtime < time.time() - _RECENT_S:
        with suppress(OSError):  # somebody else's cache may be read, not touched
            os.utime(path)
    return status.st_size


def _load(path: Path) -> Arrays | None:
    try:
        # numpy does not close a file that it cannot read.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        _touch(path)
        return arrays
    except OSError:
        return None
    except (ValueError, KeyError, EOFError, BadZipFile) as error:
        log.warning("cache: %s is damaged (%s); it is made again", path, error)
        return None


def _size(arrays: Arrays) -> int:
    return sum(array.nbytes for array in arrays.values())


_caches: dict[tuple[Path | None, float], RowCache] = {}


def row_cache(folder: Path | None, limit_bytes: float = float("inf")) -> RowCache:
    """The process's one cache for ``folder``, so that jobs of one process share its memory."""
    key = (folder.resolve() if folder else None, limit_bytes)
    return _caches.setdefault(key, RowCache(key[0], limit_bytes))

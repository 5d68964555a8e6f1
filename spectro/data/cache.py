"""Rows of one fixed shape (images, feature vectors) kept on disk under what they were made from.

A *pack* is one immutable file of rows and one JSON file that says which rows they are. Every process that has something
new writes packs of its own, under a temporary name, and renames them when they are whole: several writers at once and a
kill half-way harm nobody, at worst a row is kept twice. Packs are memory-mapped when read, so that a data set may be
far larger than memory.
"""

import json
import logging
import os
import time
import uuid
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np

from spectro.data.arrays import ArrayCache
from spectro.data.rows import Pack, RowKind, Rows
from spectro.errors import SpectroError

log = logging.getLogger("spectro")

# A temporary file of this age was left by a process that died.
_LEFTOVER_S = 24 * 3600


# Missing keys -> chunks of (the keys that gave a row, their rows).
Compute = Callable[[Sequence[str]], Iterable[tuple[Sequence[str], np.ndarray]]]


class RowCache:
    """All rows of a process, kept in memory and, with a folder, on disk between processes.

    The disk holds at most ``limit_bytes``: past that the packs that were used longest ago are deleted, never those that
    this process uses.

    Attributes:
        arrays: Results made from rows, such as the components of a fold, under the same limit.
    """

    def __init__(self, folder: Path | None, limit_bytes: float = float("inf")):
        """``folder`` is made when the first row is written; None keeps rows in memory only."""
        self.folder, self.limit_bytes = folder, limit_bytes
        self.arrays = ArrayCache(None if folder is None else folder / "arrays", self._shrink)
        self._packs: dict[str, list[Pack]] = {}
        self._where: dict[str, dict[str, tuple[int, int]]] = {}
        self._read: set[Path] = set()
        self._crc32: dict[Path, int] = {}

    def missing(self, kind: RowKind, keys: Iterable[str]) -> list[str]:
        """The keys without a row, each once, in order. A pack that rows would come from is checked first."""
        self._look(kind)
        known, wanted = self._where[kind.folder], list(dict.fromkeys(keys))
        packs = self._packs[kind.folder]
        for number in sorted({known[key][0] for key in wanted if key in known}):
            if not self._is_good(packs[number]):
                self._where[kind.folder] = known = {k: where for k, where in known.items() if where[0] != number}
        return [key for key in wanted if key not in known]

    def rows(self, kind: RowKind, keys: Sequence[str], compute: Compute | None = None) -> Rows:
        """Rows for ``keys``, computed where they are not kept yet.

        Args:
            kind: What rows.
            keys: One key for each row wanted; keys may repeat.
            compute: Called with the missing keys; yields chunks of (keys, rows). May be None if nothing is missing.

        Returns:
            The rows, in the order of ``keys``.

        Raises:
            KeyError: A key has no row even after ``compute``.
        """
        missing = self.missing(kind, keys)
        if missing and compute is not None:
            with self.writer(kind) as write:
                for done, rows in compute(missing):
                    write(done, rows)
        known = self._where[kind.folder]
        where = np.array([known[key] for key in keys], dtype=np.int64).reshape(-1, 2)
        return Rows(kind.shape, np.dtype(kind.dtype), self._packs[kind.folder], where)

    def writer(self, kind: RowKind) -> "_Writer":
        """A context in which rows are written: ``write(keys, rows)``; they are kept when it ends without an error."""
        return _Writer(self, kind)

    def _look(self, kind: RowKind) -> None:
        """Reads the indexes of packs that were not there before."""
        self._packs.setdefault(kind.folder, [])
        self._where.setdefault(kind.folder, {})
        if self.folder is None:
            return
        for index in sorted((self.folder / kind.folder).glob("*.json")):
            if index in self._read:
                continue
            self._read.add(index)
            path = index.with_suffix(".rows")
            try:
                said = json.loads(index.read_text())
                keys, crc32 = [str(key) for key in said["keys"]], int(said["crc32"])
            except OSError:  # gone, or not ours to read
                continue
            except (ValueError, TypeError, KeyError) as error:
                self._give_up(path, error)
                continue
            self._keep(kind, keys, Pack(None, kind, len(keys), path))
            self._crc32[path] = crc32

    def _is_good(self, pack: Pack) -> bool:
        """Whether a pack's rows can be used; its first use in this process checks and marks it."""
        if pack.is_used or pack.path is None:
            return True
        try:
            pack.check(self._crc32[pack.path])
        except OSError:  # gone, not ours to read, too many files open: no sign of damage
            return False
        except ValueError as error:
            self._give_up(pack.path, error)
            return False
        pack.is_used = True
        with suppress(OSError):  # somebody else's cache may be read, not touched
            os.utime(pack.path)
        return True

    def _give_up(self, path: Path, error: Exception) -> None:
        log.warning("cache: %s is damaged (%s); its rows are made again", path, error)
        self._delete(path)

    def _keep(self, kind: RowKind, keys: Sequence[str], pack: Pack) -> None:
        packs = self._packs.setdefault(kind.folder, [])
        known = self._where.setdefault(kind.folder, {})
        packs.append(pack)
        for position, key in enumerate(keys):
            known.setdefault(key, (len(packs) - 1, position))

    @staticmethod
    def _delete(path: Path) -> None:
        # The index goes first: a pack without one is invisible.
        for part in (path.with_suffix(".json"), path):
            with suppress(OSError):
                part.unlink()

    def _shrink(self) -> None:
        """Deletes what was used longest ago until the folder is within its limit."""
        if self.folder is None or self.limit_bytes == float("inf"):
            return
        for leftover in self.folder.glob("*/*.tmp"):
            with suppress(OSError):
                if time.time() - leftover.stat().st_mtime > _LEFTOVER_S:
                    leftover.unlink()
        used = {pack.path for packs in self._packs.values() for pack in packs if pack.is_used}
        found = []
        for path in chain(self.folder.glob("*/*.rows"), self.folder.glob("arrays/*.npz")):
            with suppress(OSError):
                stat = path.stat()
                found.append((stat.st_mtime, stat.st_size, path))
        excess = sum(size for _, size, _ in found) - self.limit_bytes
        for _, size, path in sorted(found):
            if excess > 0 and path not in used:
                self._delete(path)
                excess -= size
        if excess > 0:
            log.warning("cache: %s needs %.1f GB more than data.cache_limit_gb allows", self.folder, excess / 1e9)


class _Writer:
    """One pack in the making: streamed to a temporary file, or gathered in memory where there is no disk."""

    def __init__(self, cache: RowCache, kind: RowKind):
        self._cache, self._kind = cache, kind
        self._keys: list[str] = []
        self._parts: list[np.ndarray] = []
        self._crc = 0
        self._path: Path | None = None
        self._file: BinaryIO | None = None

    def __enter__(self) -> Callable[[Sequence[str], np.ndarray], None]:
        if self._cache.folder is not None:
            folder = self._cache.folder / self._kind.folder
            try:
                folder.mkdir(parents=True, exist_ok=True)
                self._path = folder / f"{uuid.uuid4().hex}.rows"
                self._file = self._path.with_suffix(".tmp").open("wb")
            except OSError as error:
                log.warning("cache: cannot write to %s (%s); rows are kept in memory only", folder, error)
                self._path = None
        return self._write

    def _write(self, keys: Sequence[str], rows: np.ndarray) -> None:
        rows = np.ascontiguousarray(rows, dtype=self._kind.dtype)
        self._keys += keys
        if self._file is None:
            self._parts.append(rows.copy())
        else:
            try:
                self._file.write(rows.data)
            except OSError as error:
                raise self._full(error) from error
            self._crc = zlib.crc32(rows.data, self._crc)

    def _full(self, error: OSError) -> SpectroError:
        return SpectroError(f"data.cache_dir: cannot write to {self._path}: {error}")

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        temporary = self._path.with_suffix(".tmp") if self._path else None
        unwritten = None
        if self._file is not None:
            try:
                self._file.close()
            except OSError as error:  # the last bytes go out only now
                unwritten = error
        if failed or unwritten or not self._keys:
            if temporary is not None:
                temporary.unlink(missing_ok=True)
            if unwritten and not failed:
                raise self._full(unwritten) from unwritten
            return
        if self._path is None or temporary is None:
            rows = np.concatenate(self._parts)
            self._cache._keep(self._kind, self._keys, Pack(rows, self._kind, len(rows)))
            return
        index = self._path.with_suffix(".json")
        draft = index.with_suffix(".tmp")
        self._cache._read.add(index)
        try:
            temporary.rename(self._path)
            draft.write_text(json.dumps({"crc32": self._crc, "keys": self._keys}))
            draft.rename(index)
            pack = Pack(None, self._kind, len(self._keys), self._path)
            pack.is_used = True
        except OSError as error:
            log.warning("cache: cannot write to %s (%s); its rows serve this process only", index, error)
            made = self._path if self._path.exists() else temporary
            rows = np.fromfile(made, dtype=self._kind.dtype).reshape(len(self._keys), *self._kind.shape)
            pack = Pack(rows, self._kind, len(rows))
            for part in (temporary, self._path, draft):
                with suppress(OSError):
                    part.unlink()
        self._cache._keep(self._kind, self._keys, pack)
        self._cache._shrink()


_caches: dict[tuple[Path | None, float], RowCache] = {}


def row_cache(folder: Path | None, limit_bytes: float = float("inf")) -> RowCache:
    """The process's one cache for ``folder``, so that jobs of one process share what they have read."""
    key = (folder.resolve() if folder else None, limit_bytes)
    return _caches.setdefault(key, RowCache(key[0], limit_bytes))

"""Rows of one fixed shape, in memory or mapped from immutable files."""

import hashlib
import json
import mmap
import zlib
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Reading maps file pages into the process, up to 2 MB around each row; past this many bytes read they are handed back.
_RELEASE_BYTES = 8 << 20
_MAX_OPEN = 128


@dataclass(frozen=True)
class RowKind:
    """What rows are, apart from what they were made from.

    Attributes:
        name: Folder name: ``pixels``, ``hog``.
        settings: Everything that changes a row's values besides its key, code version included; JSON values.
        shape: Shape of one row.
        dtype: Its type.
    """

    name: str
    settings: dict
    shape: tuple[int, ...]
    dtype: str

    @property
    def folder(self) -> str:
        """A name that two kinds share only if they are the same."""
        text = json.dumps([self.settings, self.shape, self.dtype], sort_keys=True)
        return f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


class Pack:
    """Rows that lie together: in memory, or in a file that is mapped while it is among the last ones used.

    Attributes:
        path: The file; None in memory.
        is_used: Whether this process has had rows from it: then it was checked, and must not be deleted.
    """

    def __init__(self, rows: np.ndarray | None, kind: RowKind, n: int, path: Path | None = None):
        self.path = path
        self.is_used = rows is not None
        self._kind, self._n, self._rows = kind, n, rows
        self._mapped: mmap.mmap | None = None
        self._bytes_read = 0

    def check(self, crc32: int) -> None:
        """Opens the file and compares it with what its index says.

        Raises:
            OSError: It cannot be opened.
            ValueError: It holds other bytes.
        """
        self._open()
        if self.path is not None and checksum(self.path) != crc32:
            raise ValueError("its checksum is wrong")

    def take(self, index: np.ndarray) -> np.ndarray:
        """Copies of some rows."""
        rows = self._rows if self._rows is not None else self._open()
        taken = rows[index]
        mapped = self._mapped
        if mapped is not None:
            self._bytes_read += taken.nbytes
            if self._bytes_read > _RELEASE_BYTES and hasattr(mmap, "MADV_DONTNEED"):
                mapped.madvise(mmap.MADV_DONTNEED)
                self._bytes_read = 0
        return taken

    def _open(self) -> np.ndarray:
        """Maps the file; of many mapped packs the one that was mapped first is given up, it can be mapped again."""
        if self.path is None:
            raise ValueError("a pack in memory has no file")
        with self.path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if len(mapped) != self._n * self._kind.row_bytes:
            raise ValueError(f"{len(mapped)} bytes for {self._n} rows of {self._kind.row_bytes} bytes")
        rows = np.frombuffer(mapped, dtype=self._kind.dtype).reshape(self._n, *self._kind.shape)
        self._mapped, self._rows = mapped, rows
        _opened.append(self)
        if len(_opened) > _MAX_OPEN:
            first = _opened.popleft()
            first._mapped = first._rows = None
        return rows


# Packs that are mapped: each holds a file descriptor, of which a process may have as few as 256.
_opened: deque[Pack] = deque()


def checksum(path: Path) -> int:
    """CRC-32 of a file, read piece by piece: through the mapping, all of it would stay in memory."""
    crc = 0
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            crc = zlib.crc32(piece, crc)
    return crc


class Rows:
    """Rows by position: ``rows[index]`` for an integer array gives ``(len(index), *shape)``, copied from packs."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, packs: list[Pack], where: np.ndarray):
        """``where`` is ``(n, 2)``: for each row its pack and its position there."""
        self.shape, self.dtype = (len(where), *shape), dtype
        self._packs, self._where = packs, where

    def __len__(self) -> int:
        return len(self._where)

    def __getitem__(self, index: np.ndarray | slice) -> np.ndarray:
        where = self._where[index]
        out = np.empty((len(where), *self.shape[1:]), self.dtype)
        for p in np.unique(where[:, 0]):
            of_pack = where[:, 0] == p
            out[of_pack] = self._packs[p].take(where[of_pack, 1])
        return out

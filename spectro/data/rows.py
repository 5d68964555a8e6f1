"""Rows of one fixed shape, in memory or mapped from immutable files."""

import hashlib
import json
import mmap
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Reading maps file pages into the process, up to 2 MB around each row; past this many bytes read they are handed back.
_RELEASE_BYTES = 8 << 20


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


@dataclass
class Pack:
    """Rows that lie together: in memory, or mapped from a file.

    Attributes:
        rows: ``(n, *shape)``.
        mapped: The mapping behind them.
        path: The file behind it.
        bytes_read: Since pages were last handed back.
    """

    rows: np.ndarray
    mapped: mmap.mmap | None = None
    path: Path | None = None
    bytes_read: int = 0

    def take(self, index: np.ndarray) -> np.ndarray:
        """Copies of some rows."""
        taken = self.rows[index]
        if self.mapped is not None:
            self.bytes_read += taken.nbytes
            if self.bytes_read > _RELEASE_BYTES and hasattr(mmap, "MADV_DONTNEED"):
                self.mapped.madvise(mmap.MADV_DONTNEED)
                self.bytes_read = 0
        return taken


def map_pack(kind: RowKind, path: Path, n: int) -> Pack:
    """The pack in a file.

    Args:
        kind: What rows.
        path: The file.
        n: How many rows it should hold.

    Raises:
        OSError: It cannot be opened.
        ValueError: It holds more or less.
    """
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if len(mapped) != n * kind.row_bytes:
        raise ValueError(f"{len(mapped)} bytes for {n} rows of {kind.row_bytes} bytes")
    return Pack(np.frombuffer(mapped, dtype=kind.dtype).reshape(n, *kind.shape), mapped, path)


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

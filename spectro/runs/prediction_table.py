"""The table of predictions: it grows in a draft beside its final name, and a killed one goes on from there."""

import itertools
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from spectro.data.inputs import ImageInput
from spectro.errors import DataError
from spectro.files import as_csv, csv_rows, drafted

ENDINGS = (".csv", ".jsonl", ".parquet")
# How far probabilities of one image may lie apart in two batches of a network.
_ROUNDING = 1e-3
# Rows that are made a part of a Parquet file together.
_ROW_GROUP = 10_000


class PredictionTable:
    """Rows of CSV, JSON lines or Parquet, by the ending of the file; None is an empty cell.

    They grow in ``NAME.part``, a batch at a time, which gets its name at the end. A Parquet file cannot be read before
    its end: its draft has JSON lines.

    Args:
        out: The file; None: CSV on the terminal.
        columns: ``path``, ``prediction``, numbers, ``review``, ``reason``.
        resume: Go on with the draft of a killed process; without a draft from the beginning.

    Attributes:
        done: Path -> prediction and its probability for the rows that a draft has; a bad image has "" and 1.
        is_whole: Whether the table is whole already.

    Raises:
        DataError: The file exists, or its draft does and ``resume`` is not set, or the draft is of another table.
    """

    def __init__(self, out: Path | None, columns: Sequence[str], *, resume: bool = False):
        self._out, self._columns, self.done = out, list(columns), dict[str, tuple[str, float]]()
        self._is_csv = out is None or out.suffix.lower() == ".csv"
        self._last: dict[str, Any] | None = None
        self._open = ExitStack()
        # Not later: a progress bar puts itself in the place of stdout.
        self._file: Any = sys.stdout if out is None else None
        self._has_header = not self._is_csv
        self.is_whole = out is not None and resume and out.exists()
        if out is None or self.is_whole:
            return
        self._draft = out.with_name(f"{out.name}.part")
        if out.exists():
            raise DataError(f"--out: got {out}, which exists already; allowed: a new file")
        if self._draft.exists():
            if not resume:
                raise DataError(f"--out: {self._draft} is the draft of a killed command; allowed: --resume")
            try:
                self._read_draft()
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise DataError(f"{self._draft}: not a draft of this table, or damaged ({error})") from error

    def remaining(self, inputs: Sequence[ImageInput]) -> list[ImageInput]:
        """The inputs without a row, after the one of the last row, by which `append` sees that the model is the same.

        Raises:
            DataError: The image of the last row is not there.
        """
        if self._last is None:
            return list(inputs)
        path = self._last["path"]
        last = [item for item in inputs if item.name == path]
        if not last:
            raise DataError(f"--resume: {self._draft} has {path}, which is not among the images")
        return last + [item for item in inputs if item.name not in self.done]

    def append(self, rows: Sequence[Sequence[Any]]) -> int:
        """Writes rows in the order of the columns; returns how many are new.

        Raises:
            DataError: The draft is of another model.
            OSError: The disk is full.
        """
        if self._last is not None:
            if not _is_same(self._last, dict(zip(self._columns, rows[0], strict=True))):
                raise DataError(f"--resume: {self._draft} is of another model, or {self._last['path']} has changed")
            self._last, rows = None, rows[1:]
        if self._is_csv:
            text = "" if self._has_header else as_csv(self._columns, [])
            self._has_header = True
            cells = [[_cell(value) for value in row] for row in rows]
            text += as_csv(cells[0], cells[1:]) if cells else ""
        else:
            lines = (dict(zip(self._columns, row, strict=True)) for row in rows)
            text = "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines)
        if self._file is None:
            self._file = self._open.enter_context(_locked_draft(self._draft))
        try:
            self._file.write(text)
            self._file.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._out and self._draft)) from error
        return len(rows)

    def finish(self) -> None:
        """Gives the whole table its name.

        Raises:
            DataError: Another process has made the file meanwhile.
        """
        if self._out is None:
            return
        self._open.close()
        if self._out.exists():
            raise DataError(f"--out: {self._out} was made by another process; the table is {self._draft}")
        if self._out.suffix.lower() == ".parquet":
            self._write_parquet(self._out)
            self._draft.unlink()
        else:
            self._draft.rename(self._out)

    def _read_draft(self) -> None:
        """Cuts a half last row off, and reads the others."""
        start = as_csv(self._columns, []).encode() if self._is_csv else b'{"path": '
        with self._draft.open("rb") as file:
            if not start.startswith(file.read(len(start))):
                raise ValueError("other columns")
            file.seek(0)
            size = whole = quotes = 0
            for line in file:
                size, quotes = size + len(line), quotes + line.count(b'"')
                # A cell of CSV may hold a line break, between quotes; a line of JSON holds none.
                if line.endswith(b"\n") and not (self._is_csv and quotes % 2):
                    whole = size
        rows = self._rows(whole)
        for row in rows:
            if list(row) != self._columns:
                raise ValueError("other columns")
            best = max((value for name, value in row.items() if name.startswith("p_") and value is not None), default=1)
            self.done[row["path"]] = row["prediction"] or "", best
            self._last = row
        self._has_header |= bool(self.done)
        os.truncate(self._draft, whole if self.done else 0)

    def _rows(self, size: int) -> Iterator[dict[str, Any]]:
        """The rows in the first ``size`` bytes of the draft."""
        with self._draft.open(newline="", encoding="utf-8") as file:
            left = [size]

            def lines() -> Iterator[str]:
                for line in file:
                    left[0] -= len(line.encode())
                    if left[0] < 0:
                        return
                    yield line

            yield from map(_values, csv_rows(lines())) if self._is_csv else map(json.loads, lines())

    def _write_parquet(self, out: Path) -> None:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter

        types = {"path": pa.string(), "prediction": pa.string(), "review": pa.bool_(), "reason": pa.string()}
        schema = pa.schema([(name, types.get(name, pa.float64())) for name in self._columns])
        rows = self._rows(self._draft.stat().st_size)
        with drafted(out) as draft, ParquetWriter(draft, schema) as writer:
            while group := list(itertools.islice(rows, _ROW_GROUP)):
                writer.write_batch(pa.RecordBatch.from_pylist(group, schema=schema))


def _locked_draft(path: Path) -> Any:
    """The draft, open to be added to by one process only; Windows has no such lock."""
    file = path.open("a", encoding="utf-8", newline="")
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        pass
    except OSError as error:
        file.close()
        raise DataError(f"{path}: another process writes this table") from error
    return file


def _cell(value: Any) -> Any:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else value


def _values(row: dict[str, str]) -> dict[str, Any]:
    """A row of CSV with the values that the row of JSON has."""
    text = {name: row[name] for name in ("path", "reason")}
    rest = {name: float(cell) if cell else None for name, cell in row.items() if "p_" in name}
    flags = {"prediction": row["prediction"] or None, "review": {"": None}.get(row["review"], row["review"] == "true")}
    return {name: (text | rest | flags)[name] for name in row}


def _is_same(row: dict[str, Any], again: dict[str, Any]) -> bool:
    """Whether two rows of one image are of one model."""
    for name, value in row.items():
        if isinstance(value, float) and again[name] is not None:
            if abs(value - again[name]) > _ROUNDING:
                return False
        elif name not in ("review", "reason") and value != again[name]:
            return False
    return True

"""The table of predictions: it grows in a draft beside its final name, and a killed one goes on from there."""

import itertools
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
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
        resume: Go on with the draft of a killed process, or compare with the whole table; else from the beginning.

    Attributes:
        done: Path -> prediction and its probability for the rows that are there; a bad image has "" and 1.
        is_whole: Whether the table is whole already.

    Raises:
        DataError: The file exists, or its draft does and ``resume`` is not set, or it is of another table, another
            process writes it, or pyarrow is not there.
    """

    def __init__(self, out: Path | None, columns: Sequence[str], *, resume: bool = False):
        self._out, self._columns, self.done = out, list(columns), dict[str, tuple[str, float]]()
        self._is_csv = out is None or out.suffix.lower() == ".csv"
        self._last: dict[str, Any] | None = None
        # Not later: a progress bar puts itself in the place of stdout.
        self._file: Any = sys.stdout if out is None else None
        self._has_header = not self._is_csv
        self.is_whole = out is not None and out.exists()
        if out is None:
            return
        if out.suffix.lower() == ".parquet":
            try:
                import pyarrow.parquet  # noqa: F401
            except ImportError as error:
                raise DataError(f"--out: got {out}; allowed without the package pyarrow: .csv, .jsonl") from error
        self._draft = out.with_name(f"{out.name}.part")
        # The lock comes before a look at the draft: what another process writes must not be read or cut.
        if not self.is_whole:
            self._file = _locked_draft(self._draft)
            self.is_whole = out.exists()
        self._source = out if self.is_whole else self._draft
        try:
            if self.is_whole and not resume:
                raise DataError(f"--out: got {out}, which exists already; allowed: a new file")
            if self._source.stat().st_size:
                if not resume:
                    raise DataError(f"--out: {self._draft} is the draft of a killed command; allowed: --resume")
                self._read()
        except BaseException as error:
            self.close()
            if isinstance(error, ValueError | KeyError | TypeError | RecursionError):
                raise DataError(f"{self._source}: not a table of this model, or damaged ({error})") from error
            raise

    def remaining(self, inputs: Sequence[ImageInput]) -> list[ImageInput]:
        """The inputs without a row, after the one of the last row, by which `append` sees that the model is the same.

        Raises:
            DataError: The image of a row is not there, or a whole table has no row of an image.
        """
        names = {item.name for item in inputs}
        for path in self.done:
            if path not in names:
                raise DataError(f"--resume: {self._source} has {path}, which is not among the images")
        new = [item for item in inputs if item.name not in self.done]
        if new and self.is_whole:
            raise DataError(f"--resume: {self._source} is whole and has no {new[0].name}; allowed: a new --out")
        return [item for item in inputs if self._last is not None and item.name == self._last["path"]] + new

    def append(self, rows: Sequence[Sequence[Any]]) -> int:
        """Writes rows in the order of the columns; returns how many are new.

        Raises:
            DataError: The draft is of another model.
            OSError: The disk is full.
        """
        if self._last is not None:
            if not _is_same(self._last, dict(zip(self._columns, rows[0], strict=True))):
                raise DataError(f"--resume: {self._source} is of another model, or {self._last['path']} has changed")
            self._last, rows = None, rows[1:]
        if self.is_whole:
            return 0
        if self._is_csv:
            text = "" if self._has_header else as_csv(self._columns, [])
            self._has_header = True
            cells = [[_cell(value) for value in row] for row in rows]
            text += as_csv(cells[0], cells[1:]) if cells else ""
        else:
            lines = (dict(zip(self._columns, row, strict=True)) for row in rows)
            text = "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines)
        try:
            self._file.write(text)
            self._file.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._draft if self._out else "stdout")) from error
        return len(rows)

    def finish(self) -> None:
        """Gives the whole table its name.

        Raises:
            DataError: Another process has made the file meanwhile.
        """
        if self._out is None or self.is_whole:
            return
        if self._out.exists():
            raise DataError(f"--out: {self._out} was made by another process; the table is {self._draft}")
        if self._out.suffix.lower() == ".parquet":
            self._write_parquet(self._out)
        if os.name == "nt":
            self._file.close()  # Windows renames and removes no open file
        if self._out.suffix.lower() == ".parquet":
            self._draft.unlink()
        else:
            self._draft.rename(self._out)
        self._file.close()

    def close(self) -> None:
        """Leaves the draft to the next process; an empty one is removed."""
        if self._out is None or self._file is None or self._file.closed:
            return
        with suppress(OSError):  # the disk may be full
            if os.fstat(self._file.fileno()).st_size == 0:
                self._draft.unlink()
        with suppress(OSError):
            self._file.close()

    def _read(self) -> None:
        """Reads the rows that are there; a half last row of a draft is cut off."""
        is_text = self._source.suffix.lower() != ".parquet"
        whole, n_lines = self._whole() if is_text else (0, 0)
        for row in self._rows(n_lines):
            if list(row) != self._columns:
                raise ValueError("other columns")
            best = max((value for name, value in row.items() if name.startswith("p_") and value is not None), default=1)
            self.done[row["path"]] = row["prediction"] or "", best
            self._last = row
        self._has_header |= bool(self.done)
        if not self.is_whole:
            os.truncate(self._draft, whole if self.done else 0)

    def _whole(self) -> tuple[int, int]:
        """How many bytes the whole rows and their header take, and how many lines."""
        start = as_csv(self._columns, []).encode() if self._is_csv else b'{"path": '
        with self._source.open("rb") as file:
            if not start.startswith(file.read(len(start))):
                raise ValueError("other columns")
            file.seek(0)
            size = whole = n_lines = quotes = 0
            for number, line in enumerate(file, 1):
                size, quotes = size + len(line), quotes + line.count(b'"')
                # A cell of CSV may hold a line break, between quotes; a line of JSON holds none.
                if line.endswith(b"\n") and not (self._is_csv and quotes % 2):
                    whole, n_lines = size, number
        if self.is_whole and whole < size:
            raise ValueError("half a row")
        return whole, n_lines

    def _rows(self, n_lines: int | None = None) -> Iterator[dict[str, Any]]:
        """The rows in the first lines of the text that is there, or all of it or of a Parquet file."""
        if self._source.suffix.lower() == ".parquet":
            from pyarrow.parquet import ParquetFile

            with ParquetFile(self._source) as table:
                for batch in table.iter_batches(_ROW_GROUP):
                    yield from batch.to_pylist()
            return
        with self._source.open(newline="\n", encoding="utf-8") as file:
            lines = itertools.islice(file, n_lines)
            yield from map(_values, csv_rows(lines)) if self._is_csv else map(json.loads, lines)

    def _write_parquet(self, out: Path) -> None:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter

        types = {"path": pa.string(), "prediction": pa.string(), "review": pa.bool_(), "reason": pa.string()}
        schema = pa.schema([(name, types.get(name, pa.float64())) for name in self._columns])
        rows = self._rows()
        with drafted(out) as draft, ParquetWriter(draft, schema) as writer:
            while group := list(itertools.islice(rows, _ROW_GROUP)):
                writer.write_batch(pa.RecordBatch.from_pylist(group, schema=schema))


def _locked_draft(path: Path) -> Any:
    """The draft, open to be added to by one process only; Windows has no such lock."""
    file = path.open("a", encoding="utf-8", newline="")
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Between the two lines above another process may have renamed or removed it.
        if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            raise OSError
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

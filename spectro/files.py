"""Text, JSON and CSV files, each written whole or not at all."""

import csv
import errno
import hashlib
import io
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from spectro.progress import say

# Text that a spreadsheet would run, with any apostrophes that are put before such text.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?[0-9.]+(e[+-]?[0-9]+)?|[+-](inf|nan)")


# A draft of another machine, or one whose process number is in use again, is left alone for so long.
_DRAFT_S = 3600
# Seconds after which waiting for another process has a message, or ends.
WAIT_S = 10


@contextmanager
def drafted(path: Path) -> Iterator[Path]:
    """Yields a temporary name for a file, which is renamed when it is whole, and removed where an error ends it.

    Raises:
        OSError: It cannot be written; ``filename`` is the file.
    """
    draft = draft_of(path)
    draft.unlink(missing_ok=True)
    try:
        yield draft
        draft.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        draft.unlink(missing_ok=True)


def draft_of(path: Path) -> Path:
    """The temporary name of a file or folder."""
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")


def is_draft(path: Path) -> bool:
    """Whether a name is one that `drafted` gives."""
    return re.fullmatch(r"\..+\.\d+\.tmp", path.name) is not None


def remove_drafts(folder: Path, pattern: str = "**/.*.tmp", *, has_others: bool = False) -> None:
    """Removes what killed processes have left under temporary names in a folder and below it: files and folders.

    Args:
        pattern: Of the names.
        has_others: Whether other threads of this process may write there.
    """
    for path in filter(is_draft, list(folder.glob(pattern))):
        host, pid = socket.gethostname(), int(path.name.split(".")[-2])
        may_live = not path.name.endswith(f".{host}.{pid}.tmp") or ((has_others or pid != os.getpid()) and _exists(pid))
        try:
            if not may_live or path.stat().st_mtime < time.time() - _DRAFT_S:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        except OSError:
            continue  # it has been renamed meanwhile


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, is that of a full disk; libraries have errors of many types for it."""
    while error is not None:
        full = ("No space left on device", "Disk quota exceeded", "database or disk is full")
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or any(text in str(error) for text in full):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def locked(path: Path, timeout_s: float = -1) -> Iterator[None]:
    """Holds a lock between processes; waiting for more than 10 s has a message.

    Args:
        path: The file of the lock.
        timeout_s: The longest wait; -1: for ever.

    Raises:
        OSError: The file cannot be made, or another process has held the lock for the whole time.
    """
    from filelock import FileLock, Timeout

    path.open("a").close()  # where it is not allowed, a lock would be asked for again and again
    lock = FileLock(path)
    try:
        lock.acquire(timeout=WAIT_S if timeout_s < 0 else timeout_s)
    except Timeout as error:
        if timeout_s >= 0:
            raise TimeoutError(f"{path} has been held by another process for {timeout_s:g} s") from error
        say(f"waiting for another process, which holds {path}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def write_text(path: Path, text: str) -> None:
    """Writes text under a temporary name and renames it."""
    with drafted(path) as draft:
        draft.write_text(text, encoding="utf-8")


def link(path: Path, target: Path) -> None:
    """Gives a file a second name, so that its bytes are on the disk once; a copy where the disk has no such links."""
    if target.exists() and target.samefile(path):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with drafted(target) as draft:
        try:
            os.link(path.resolve(), draft)
        except OSError:
            shutil.copyfile(path, draft)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def as_json(content: Any) -> str:
    """JSON text as it stands in files.

    Raises:
        ValueError: A number is NaN or infinite.
    """
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, content: Any) -> None:
    """Writes JSON under a temporary name and renames it; see `as_json`."""
    write_text(path, as_json(content))


def read_json(path: Path) -> Any:
    """The content of a JSON file; None where there is no file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def as_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as it stands in files: floats with all their digits, and no text that a spreadsheet takes for a formula.

    Text that begins with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return gets an apostrophe before it, which
    `read_csv` takes off again.
    """
    table = io.StringIO()
    plain, quoted = (csv.writer(table, lineterminator="\n", quoting=q) for q in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    for row in (header, *rows):
        cells = [_cell(value) for value in row]
        # Before Python 3.13 a carriage return gets no quotes, and then it ends the row.
        (quoted if any(isinstance(cell, str) and "\r" in cell for cell in cells) else plain).writerow(cells)
    return table.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return f"'{value}" if _FORMULA.match(value) and not _NUMBER.fullmatch(value) else value
    return repr(float(value)) if isinstance(value, np.floating) else value


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a table under a temporary name and renames it; see `as_csv`."""
    write_text(path, as_csv(header, rows))


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], header: Sequence[str] = ()) -> None:
    """Writes a table of rows, column -> value; ``header`` is that of a table without rows. See `write_csv`."""
    write_csv(path, list(rows[0]) if rows else header, [list(row.values()) for row in rows])


def read_csv(path: Path, separator: str = ",") -> list[dict[str, str]]:
    """The rows of a table as `as_csv` has them; spreadsheets may have put a byte order mark before its header.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not a table in UTF-8, or its rows differ in length.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv_rows(file, separator))


def csv_rows(lines: Iterable[str], separator: str = ",") -> Iterator[dict[str, str]]:
    """The rows of a table as `as_csv` has them, of its lines.

    Raises:
        ValueError: Rows differ in length, or quotes are wrong.
    """
    reader = csv.DictReader(lines, delimiter=separator, strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                raise ValueError(
                    f"line {reader.line_num}: other cells than the header has; a {separator!r} needs quotes"
                )
            yield {_plain(name): _plain(cell) for name, cell in row.items()}
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from error


def _plain(text: str) -> str:
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def _exists(pid: int) -> bool:
    """Whether there is a process of this number; on Windows asking would end it."""
    if os.name == "nt":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another user's
    return True

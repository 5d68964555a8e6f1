"""Text, JSON and CSV files, each written whole or not at all."""

import csv
import hashlib
import io
import json
import os
import re
import shutil
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# Text that a spreadsheet would run, with any apostrophes that are put before such text.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?[0-9.]+(e[+-]?[0-9]+)?|[+-](inf|nan)")


def write_text(path: Path, text: str) -> None:
    """Writes text under a temporary name and renames it."""
    draft = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def link(path: Path, target: Path) -> None:
    """Gives a file a second name, so that its bytes are on the disk once; a copy where the disk has no such links."""
    if target.exists() and target.samefile(path):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{socket.gethostname()}.{os.getpid()}")
    try:
        os.link(path.resolve(), draft)
    except OSError:
        shutil.copyfile(path, draft)
    draft.replace(target)


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
    csv.writer(table, lineterminator="\n").writerows([[_cell(value) for value in row] for row in (header, *rows)])
    return table.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return f"'{value}" if _FORMULA.match(value) and not _NUMBER.fullmatch(value) else value
    return repr(float(value)) if isinstance(value, np.floating) else value


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a table under a temporary name and renames it; see `as_csv`."""
    write_text(path, as_csv(header, rows))


def read_csv(path: Path, separator: str = ",") -> list[dict[str, str]]:
    """The rows of a table as `as_csv` has them; spreadsheets may have put a byte order mark before its header.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not a table in UTF-8, or its rows differ in length.
    """
    rows = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, delimiter=separator, strict=True)
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise ValueError(
                        f"line {reader.line_num}: other cells than the header has; a {separator!r} needs quotes"
                    )
                rows.append({_plain(name): _plain(cell) for name, cell in row.items()})
        except csv.Error as error:
            raise ValueError(f"line {reader.line_num}: {error}") from error
    return rows


def _plain(text: str) -> str:
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text

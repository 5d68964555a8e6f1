"""File locations, addresses, and how both are written for people."""

import itertools
import json
import os
import re
import shlex
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).parent
# The configuration groups: ``spectro/conf/`` in an installed package, beside ``spectro/`` in a checkout.
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"


def new_folder(path: Path) -> Path:
    """Makes a folder that no other process has: ``path``, or ``path_2``, ``path_3`` ... where that exists already."""
    for number in itertools.count(1):
        folder = path if number == 1 else path.with_name(f"{path.name}_{number}")
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
    raise AssertionError


def short(path: Path) -> str:
    """A path relative to the current folder, if it lies below it."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def cut(text: str, length: int) -> str:
    """The text with its middle left out if it is longer, as names often differ at their ends."""
    return text if len(text) <= length else f"{text[: (length - 1) // 2]}…{text[-(length // 2) :]}"


def typed(value: Any) -> str:
    """A value as it is typed on a command line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def setting(key: str, value: Any) -> str:
    """A setting by its short name, such as ``C=3`` of ``svm.C``, ``easy.svm.C=3`` of a stage, ``validation=kfold``."""
    name = key.removeprefix("stages.") if key.startswith("stages.") else key.removesuffix(".name").split(".")[-1]
    return f"{name}={cut(typed(value), 20)}"


def in_shell(words: Iterable[str]) -> str:
    """Words as they are typed in a shell; double quotes around those with single quotes in them, which Hydra reads."""
    hard = re.compile(r"[\"$`\\!]")
    return " ".join(f'"{word}"' if "'" in word and not hard.search(word) else shlex.quote(word) for word in words)


def override(key: str, text: str) -> str:
    """``KEY=TEXT`` for Hydra, in quotes where its grammar or an interpolation would read the text otherwise."""
    if re.fullmatch(r"[\w./-]+", text, re.ASCII):
        return f"{key}={text}"
    # Backslashes are doubled before a quote only.
    text = re.sub(r"(\\*)('|\Z)", lambda match: match[1] * 2 + match[2].replace("'", "\\'"), text.replace("${", "\\${"))
    return f"{key}='{text}'"


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def redact(text: str) -> str:
    """Text without the users and passwords of the addresses in it."""
    text = re.sub(r"://[^\s'\"]*@", "://***@", text)
    return re.sub(r"([?&](?:user|password)=)[^&\s'\"]+", r"\1***", text)


def sqlite_path(uri: str | None) -> Path | None:
    """The absolute file of a ``sqlite:///FILE`` address; None for any other address and for one in memory.

    A driver (``sqlite+pysqlite:``) and a query (``?timeout=9``) may stand in the address; ``~`` is the home folder.
    """
    match = re.fullmatch(r"sqlite(?:\+\w+)?:///([^?]+)(?:\?.*)?", uri or "")
    return None if match is None or ":memory:" in match[1] else Path(match[1]).expanduser().absolute()


def mlflow_database(outputs: Path) -> str:
    """The address of the MLflow database in a folder of results."""
    return f"sqlite:///{(outputs / 'mlflow.db').absolute()}"


def flatten(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Sections as dotted keys: ``{"svm": {"C": 1}}`` gives ``{"svm.C": 1}``.

    An empty section below the top is a value. A key that holds a dot is quoted: ``{"a.b": 1}`` gives ``{'"a.b"': 1}``.
    """
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        name = json.dumps(key, ensure_ascii=False) if not key or re.search(r'[."]', key) else key
        if isinstance(value, Mapping) and value:
            flat |= {f"{name}.{inner}": leaf for inner, leaf in flatten(value).items()}
        else:
            flat[name] = value
    return flat

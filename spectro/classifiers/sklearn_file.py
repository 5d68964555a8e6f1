"""Fitted scikit-learn parts on disk: skops files whose bytes depend on the content alone."""

import io
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spectro.errors import ModelError
from spectro.imports import quick_imports

# The date of every file in an archive.
_DATE = (1980, 1, 1, 0, 0, 0)


def _skops_io() -> Any:
    """``skops.io``, imported without torch.

    For its list of trusted types it imports every module of scikit-learn, one of which imports torch where it is there:
    two seconds and half a gigabyte for types that no model here has.
    """
    with quick_imports("torch"):
        import skops.io
    return skops.io


def save(estimator: Any, path: Path) -> None:
    """Writes a fitted scikit-learn estimator; the same model gives the same file.

    skops names everything after addresses in memory and writes the time; both are replaced.
    """
    archive = zipfile.ZipFile(io.BytesIO(_skops_io().dumps(estimator)))
    schema = archive.read("schema.json").decode()
    number: dict[str, str] = {}
    schema = re.sub(
        r'("__id__": |"file": ")(\d+)',
        lambda match: match[1] + number.setdefault(match[2], str(len(number) + 1)),
        schema,
    )
    with zipfile.ZipFile(path, "w") as out:
        for name in sorted(archive.namelist(), key=lambda n: int(number.get(n.split(".")[0], 0))):
            stem, _, ending = name.partition(".")
            content = schema.encode() if name == "schema.json" else archive.read(name)
            out.writestr(zipfile.ZipInfo(f"{number.get(stem, stem)}.{ending}", _DATE), content)


def load(path: Path, trusted: Sequence[str] = ()) -> Any:
    """Reads what `save` wrote, without running code from the file.

    Args:
        trusted: Types that are allowed besides those that skops trusts by default, such as ``sklearn.tree._tree.Tree``.

    Raises:
        ModelError: Damaged, or holds a type that is not trusted.
    """
    skops_io = _skops_io()
    from skops.io.exceptions import UntrustedTypesFoundException

    try:
        return skops_io.loads(path.read_bytes(), trusted=list(trusted))
    except UntrustedTypesFoundException as error:
        raise ModelError(f"{path}: holds types that are not trusted ({str(error).splitlines()[0]})") from error
    except Exception as error:
        # Damaged archives, and arrays whose headers state more than the memory holds: all types of errors.
        raise ModelError(f"{path}: damaged or not a skops file ({type(error).__name__}: {error})") from error

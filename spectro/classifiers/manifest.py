"""``manifest.json`` of a saved model: the SHA-256 of each of its files, by which a damaged one is found."""

import json
from pathlib import Path

from spectro.errors import ModelError
from spectro.files import sha256_of

MANIFEST = "manifest.json"
# A part of a model lies at most so many folders below it: member of a stage of a run of several.
_DEPTH = 4


def write_manifest(folder: Path) -> None:
    """Lists the files of a model's folder, those of its parts too; the parts then have no list of their own."""
    for path in folder.glob(f"*/{MANIFEST}"):
        path.unlink()
    files = sorted(path for path in folder.rglob("[!.]*") if path.is_file() and path.name != MANIFEST)
    content = {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}
    (folder / MANIFEST).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def check_manifest(folder: Path) -> None:
    """Compares the files of a model's folder with its list; of a part of a model those of the whole.

    Raises:
        FileNotFoundError: There is no list, or a file of it is missing.
        ModelError: The list is damaged, or a file differs from it or is not on it.
    """
    folder = next(
        (place for place in (folder, *folder.absolute().parents[:_DEPTH]) if (place / MANIFEST).is_file()), folder
    )
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        expected = {str(name): str(digest) for name, digest in content.items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path}: damaged ({type(error).__name__})") from error
    present = (file for file in folder.rglob("*") if file.is_file() and file != path)
    # File browsers leave hidden files, which nothing here reads.
    names = {file.relative_to(folder).as_posix() for file in present if not file.name.startswith(".")}
    if added := sorted(names - expected.keys()):
        raise ModelError(f"{folder / added[0]}: not a file of this model; allowed: those of {MANIFEST}")
    for name, digest in expected.items():
        if name not in names:
            raise FileNotFoundError(None, None, str(folder / name))
        if sha256_of(folder / name) != digest:
            raise ModelError(f"{folder / name}: damaged: its SHA-256 is not the one in {MANIFEST}")

"""The files of a saved model: ``manifest.json``, the SHA-256 of each of them, and weights that its parts share."""

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from spectro.errors import ModelError
from spectro.files import drafted, sha256_of

if TYPE_CHECKING:
    from torch import Tensor

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
    path = _nearest(folder, MANIFEST)
    folder = path.parent
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


def save_frozen(tensors: "dict[str, Tensor]", folder: Path) -> str:
    """Writes weights that training left as they were, and returns the file's name, which holds its SHA-256.

    They are often published in float16: what that holds exactly is written so, in half the space.
    """
    from safetensors.torch import save

    content = save({name: _smallest(t.detach().cpu()).contiguous() for name, t in tensors.items()})
    name = f"frozen_{hashlib.sha256(content).hexdigest()}.safetensors"
    with drafted(folder / name) as draft:  # other runs may share a file of this name, which must not change
        draft.write_bytes(content)
    return name


def _smallest(tensor: "Tensor") -> "Tensor":
    """The tensor in float16 where that holds it exactly, else the tensor."""
    half = tensor.half()
    return half if tensor.is_floating_point() and bool((half.to(tensor.dtype) == tensor).all()) else tensor


def share_frozen(folder: Path) -> None:
    """Moves the files of the parts of a model, one folder down, into its own; files of one content become one."""
    for path in folder.glob("*/frozen_*.safetensors"):
        path.replace(folder / path.name)


def load_frozen(name: str, folder: Path) -> "dict[str, Tensor]":
    """The tensors of a file that `save_frozen` wrote, of a part of a model or of the whole.

    Raises:
        FileNotFoundError: Neither the folder nor one of those above has the file.
        ModelError: It is damaged, or the name is none of `save_frozen`.
    """
    from safetensors.torch import load

    if not re.fullmatch(r"frozen_[0-9a-f]{64}\.safetensors", name):
        raise ModelError(f"{folder / 'model.json'}: got frozen {name!r}; allowed: frozen_<SHA-256>.safetensors")
    path = _nearest(folder, name)
    content = path.read_bytes()
    if f"frozen_{hashlib.sha256(content).hexdigest()}.safetensors" != name:
        raise ModelError(f"{path}: damaged: its content is not the one that its name is the SHA-256 of")
    return load(content)


def _nearest(folder: Path, name: str) -> Path:
    """A file in a folder or in the nearest one above that has it; where none has it, in the folder."""
    places = (folder, *folder.absolute().parents[:_DEPTH])
    return next((place for place in places if (place / name).is_file()), folder) / name

"""Weights that training left as they were: one file of a model, however many stages and members share them."""

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from spectro.errors import ModelError
from spectro.files import drafted

if TYPE_CHECKING:
    from torch import Tensor

# A part of a model lies at most so many folders below it: member of a stage of a run of several.
_DEPTH = 4


def save_frozen(tensors: "dict[str, Tensor]", folder: Path) -> str:
    """Writes tensors into ``folder``, and returns the file's name, which holds the SHA-256 of its content."""
    from safetensors.torch import save

    content = save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
    name = f"frozen_{hashlib.sha256(content).hexdigest()}.safetensors"
    with drafted(folder / name) as draft:  # other runs may share a file of this name, which must not change
        draft.write_bytes(content)
    return name


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
    paths = [place / name for place in (folder, *folder.absolute().parents[:_DEPTH])]
    path = next((path for path in paths if path.is_file()), paths[0])
    content = path.read_bytes()
    if f"frozen_{hashlib.sha256(content).hexdigest()}.safetensors" != name:
        raise ModelError(f"{path}: damaged: its content is not the one that its name is the SHA-256 of")
    return load(content)

"""The state of a training after each epoch, on disk: written whole or not at all, and never believed unchecked."""

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

log = logging.getLogger("spectro")

# The newest may be damaged by the machine's own death, so that the one before it is kept.
_KEPT = 2
_NAME = re.compile(r"^epoch_(\d{6})\.ckpt$")


class Checkpoints:
    """The checkpoints of one training.

    A file is the SHA-256 of the rest in hexadecimal, a line feed, and a safetensors file whose metadata hold the facts.
    It is written under a temporary name, brought to the disk and renamed.

    Args:
        folder: Where they lie; None: nothing is kept.
        identity: Names the training: settings and data. A checkpoint of another one is passed over.
    """

    def __init__(self, folder: Path | None, identity: str):
        self._folder = folder
        self._identity = identity

    def write(self, epoch: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Keeps the state after an epoch.

        Args:
            epoch: Its number, from 1.
            tensors: Copied as they are, to the bit.
            facts: JSON values.
        """
        if self._folder is None:
            return
        from safetensors.torch import save

        self._folder.mkdir(parents=True, exist_ok=True)
        metadata = {"identity": self._identity, "facts": json.dumps(facts)}
        content = save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, metadata)
        draft = self._folder / f".draft.{os.getpid()}"
        with draft.open("wb") as file:
            file.write(hashlib.sha256(content).hexdigest().encode() + b"\n")
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._folder / f"epoch_{epoch:06d}.ckpt")
        for path in self._paths()[_KEPT:]:
            path.unlink(missing_ok=True)

    def latest(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and facts of the newest checkpoint that is whole and of this training; None if there is none."""
        for path in self._paths():
            found = self._read(path)
            if found is not None:
                return found
        return None

    def _paths(self) -> list[Path]:
        """Newest first."""
        if self._folder is None or not self._folder.is_dir():
            return []
        return sorted((p for p in self._folder.iterdir() if _NAME.match(p.name)), reverse=True)

    def _read(self, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        from safetensors.torch import load

        checksum, _, content = path.read_bytes().partition(b"\n")
        if hashlib.sha256(content).hexdigest().encode() != checksum:
            log.warning("checkpoint %s is damaged; the one before it is used", path)
            return None
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
        if header["identity"] != self._identity:
            log.warning("checkpoint %s is of other settings or data; it is not used", path)
            return None
        return load(content), json.loads(header["facts"])

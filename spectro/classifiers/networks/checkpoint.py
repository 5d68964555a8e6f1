"""The state of a training after each epoch, on disk: written whole or not at all, and verified when it is read."""

import hashlib
import io
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from spectro.files import drafted

log = logging.getLogger("spectro")

# The newest may be damaged by the machine's own failure, so that the one before it is kept.
_KEPT = 2


class Checkpoints:
    """The checkpoints of one training.

    A file is the SHA-256 of the rest in hexadecimal, a line feed, and what `torch.save` makes of the state. It is
    written under a temporary name, flushed to the disk and renamed.

    Args:
        folder: Where they are; None: nothing is written.
        identity: A hash of settings and data. A checkpoint of another training is passed over.
    """

    def __init__(self, folder: Path | None, identity: str, device: torch.device):
        self._folder, self._identity, self._device = folder, identity, device

    def write(self, epoch: int, state: Mapping[str, Any]) -> None:
        """Writes the state after an epoch, counted from 1: tensors, numbers and texts in dictionaries and lists."""
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        torch.save({"identity": self._identity, **state}, buffer)
        path = self._folder / f"epoch_{epoch:06d}.ckpt"
        with drafted(path) as draft, draft.open("wb") as file:
            file.write(hashlib.sha256(buffer.getbuffer()).hexdigest().encode() + b"\n")
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        for path in self._paths()[_KEPT:]:
            path.unlink(missing_ok=True)

    def latest(self) -> dict[str, Any] | None:
        """The state in the newest checkpoint that is whole and of this training; None if there is none."""
        for path in self._paths():
            checksum, _, content = path.read_bytes().partition(b"\n")
            if hashlib.sha256(content).hexdigest().encode() != checksum:
                log.warning("checkpoint %s is damaged; the one before it is used", path)
                continue
            state = torch.load(io.BytesIO(content), map_location=self._device, weights_only=True)
            if state["identity"] == self._identity:
                return state
            log.warning("checkpoint %s is of other settings or data; it is not used", path)
        return None

    def _paths(self) -> list[Path]:
        """Newest first."""
        return [] if self._folder is None else sorted(self._folder.glob("epoch_*.ckpt"), reverse=True)

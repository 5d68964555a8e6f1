"""Records as batches of normalised tensors, read by row number and augmented where they are used."""

import copy
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from spectro.classifiers.networks.module import Network
from spectro.data import transforms
from spectro.data.augmentation import NOT_DRAWN
from spectro.data.cache import RowKind
from spectro.data.decode import ImageSpec
from spectro.data.images import Images, pixels_of

_CHUNK = 256


class Batches:
    """The images of some records; each file is kept once on the device, whatever number of its views there are.

    Args:
        X: Records.
        spec: Their geometry, RGB.
        network: On its device; what is frozen in it is computed here.

    Attributes:
        held: What frozen parts of networks gave in this process, for all stages, folds and members: by kind and device,
            and by the key of a row ``(d,)``.
        resident_bytes: Images of more bytes are read from the cache for each batch, and of what a network's frozen part
            gives no more is held in memory. On a GPU it is half of the memory that is free.
    """

    resident_bytes: ClassVar[int] = 1 << 30
    held: ClassVar[dict[tuple[str, torch.device], dict[str, Tensor]]] = {}

    def __init__(self, X: Images | np.ndarray, spec: ImageSpec, network: Network):
        self._X, self._spec, self._network, self._device = X, spec, network, (device := network.place.device)
        mean, std = network.normalisation
        self._files: Images | np.ndarray = X
        self._file_of = np.arange(len(X))
        if isinstance(X, Images):
            _, first, self._file_of = np.unique(X.digests.astype(str), return_index=True, return_inverse=True)
            self._files = Images(X.store, X.digests[first])
        self._scale = torch.tensor([1 / (255 * s) for s in std], device=device).view(1, 3, 1, 1)
        self._shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device).view(1, 3, 1, 1)
        self._resident: Tensor | None = None
        shape = (len(self._files), *spec.shape)
        self._room = torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else self.resident_bytes
        self._kind: RowKind | None = None
        if network.frozen_shape is not None and len(X):
            pixels = X.store.kind(spec).folder if isinstance(X, Images) else asdict(spec)
            settings = {"code": transforms.CODE_VERSION, "pixels": pixels, "network": network.frozen_identity}
            d = math.prod(network.frozen_shape) + math.prod(network.pixels or [0])
            self._kind = RowKind("frozen", settings, (d,), "float32")
            if not isinstance(X, Images):
                self._keys = [hashlib.sha256(x).hexdigest() for x in np.ascontiguousarray(X)]
        # Images of which what is frozen is held are read once.
        is_random = isinstance(X, Images) and X.choices is not None and X.augmentation.transforms
        if np.prod(shape) <= self._room and (self._kind is None or is_random):
            self._resident = torch.empty(shape, dtype=torch.uint8, device=device)
            for start in range(0, len(self._files), _CHUNK):
                files = np.arange(start, min(start + _CHUNK, len(self._files)))
                self._resident[start : start + _CHUNK] = self._read(files)

    def __len__(self) -> int:
        return len(self._X)

    def drawn(self, rng: np.random.Generator) -> "Batches":
        """The images of one epoch, with views and random transforms drawn anew where they are to be drawn."""
        epoch = copy.copy(self)
        if isinstance(self._X, Images):
            epoch._X = self._X.drawn(rng)
        return epoch

    def __call__(self, rows: np.ndarray) -> Tensor:
        """What the network's frozen part gives for rows ``(b,)``, on the device: the input of its ``forward_from``."""
        X = self._X
        if self._kind is None or (isinstance(X, Images) and (X.seeds[rows] != NOT_DRAWN).any()):
            return self._network.frozen(self.images(rows))
        keys = X[rows].keys if isinstance(X, Images) else [self._keys[row] for row in rows]
        row_of = dict(zip(keys, rows, strict=True))
        held = self.held.setdefault((self._kind.folder, self._device), {})
        found = {key: held[key] for key in row_of if key in held}
        if missing := [key for key in row_of if key not in found]:
            found |= (fresh := dict(zip(missing, self._from_disk(missing, row_of), strict=True)))
            if self._makes_room(held, len(fresh)):
                held.update(fresh)
        return torch.stack([found[key] for key in keys])

    def _from_disk(self, keys: Sequence[str], row_of: Mapping[str, int]) -> Tensor:
        """What is frozen of the rows with these keys ``(len(keys), d)``, from the disk cache where it has them."""

        def compute(keys: Sequence[str]) -> Tensor:
            return self._network.frozen(self.images(np.array([row_of[key] for key in keys])))

        cache = self._X.store.cache if isinstance(self._X, Images) else None
        if cache is None or cache.folder is None or self._kind is None:
            return compute(keys)
        rows = cache.rows(self._kind, keys, lambda keys: [(keys, compute(keys).cpu().numpy())])
        return torch.from_numpy(rows).to(self._device)

    def images(self, rows: np.ndarray) -> Tensor:
        """The images of rows ``(b,)``: fp32 ``(b, 3, size, size)`` in channels-last order, on the device."""
        files = self._file_of[rows]
        if self._resident is None:
            pixels = self._read(files)
        else:
            pixels = self._resident[torch.from_numpy(files).to(self._device)]
        if isinstance(self._X, Images):
            pixels = self._X.augment(pixels, rows)
        return pixels.permute(0, 3, 1, 2).float() * self._scale + self._shift

    def _read(self, files: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(pixels_of(self._files[files], self._spec))).to(self._device)

    def _makes_room(self, held: dict[str, Tensor], n: int) -> bool:
        """Whether n further rows may be held in memory; what other networks gave makes way for them."""
        row_bytes = 4 * self._kind.shape[0] if self._kind else 0
        while sum(row.nbytes for rows in self.held.values() for row in rows.values()) + n * row_bytes > self._room:
            if (oldest := next(iter(self.held))) == (self._kind and self._kind.folder, self._device):
                return False
            del self.held[oldest]
        return True

"""Records as batches of normalised tensors, read by row number and augmented where they are used."""

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from spectro.classifiers.networks.module import Network
from spectro.data import transforms
from spectro.data.augmentation import NOT_DRAWN
from spectro.data.cache import RowCache, RowKind
from spectro.data.decode import ImageSpec
from spectro.data.images import Images, groups_of_rows, pixels_of

_CHUNK = 256


class Batches:
    """The images of some records; each file is kept once on the device, whatever number of its views there are.

    Args:
        X: Records.
        spec: Their geometry, RGB.
        network: On its device; what its frozen part gives for an image is computed once, and kept in the
            cache of the records, for all epochs, folds, stages and processes; not where images change at random.

    Attributes:
        resident_bytes: Images of more bytes are read from the cache for each batch. On a GPU it is half of the memory
            that is free.
    """

    resident_bytes: ClassVar[int] = 1 << 30

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
        room = torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else self.resident_bytes
        self._kind: RowKind | None = None
        if network.frozen_shape is not None:
            pixels = X.store.kind(spec).folder if isinstance(X, Images) else asdict(spec)
            settings = {"code": transforms.CODE_VERSION, "pixels": pixels, "network": network.frozen_identity}
            d = math.prod(network.frozen_shape) + math.prod(network.pixels or [0])
            self._kind = RowKind("frozen", settings, (d,), "float32")
            self._cache = X.store.cache if isinstance(X, Images) else RowCache(None)
        # Images of which what is frozen is cached are read once.
        is_random = isinstance(X, Images) and X.choices is not None and X.augmentation.transforms
        if np.prod(shape) <= room and (self._kind is None or is_random):
            self._resident = torch.empty(shape, dtype=torch.uint8, device=device)
            for start in range(0, len(self._files), _CHUNK):
                files = np.arange(start, min(start + _CHUNK, len(self._files)))
                self._resident[start : start + _CHUNK] = self._read(files)

    def __len__(self) -> int:
        return len(self._X)

    @property
    def groups(self) -> np.ndarray:
        """What stays together where the records are divided, ``(n,)``."""
        return groups_of_rows(self._X)

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
        keys = X[rows].keys if isinstance(X, Images) else [str(row) for row in rows]
        row_of = dict(zip(keys, rows, strict=True))

        def compute(missing: Sequence[str]) -> list[tuple[Sequence[str], np.ndarray]]:
            images = self.images(np.array([row_of[key] for key in missing]))
            return [(missing, self._network.frozen(images).cpu().numpy())]

        return torch.from_numpy(self._cache.rows(self._kind, keys, compute)).to(self._device)

    def images(self, rows: np.ndarray) -> Tensor:
        """The images of rows ``(b,)``: fp32 ``(b, 3, height, width)`` in channels-last order, on the device."""
        files = self._file_of[rows]
        if self._resident is None:
            pixels = self._read(files)
        else:
            pixels = self._resident[torch.from_numpy(files).to(self._device)]
        if isinstance(self._X, Images):
            pixels = self._X.augment(pixels, rows)
        # In place: each new block of this size is fetched from the system, page by page.
        return pixels.permute(0, 3, 1, 2).float().mul_(self._scale).add_(self._shift)

    def _read(self, files: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(pixels_of(self._files[files], self._spec))).to(self._device)

"""Records as batches of normalised tensors, read by row number and augmented where they are used."""

import copy
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from spectro.classifiers.networks.module import Network
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
        if np.prod(shape) <= room:
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
        return self._network.frozen(self.images(rows))

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

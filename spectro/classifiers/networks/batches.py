"""Records as batches of normalised tensors, read by row number and augmented where they are used."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from spectro.data.augmentation import VARIANTS, source_columns
from spectro.data.decode import ImageSpec
from spectro.data.images import Images, pixels_of

_CODES = {variant: code for code, variant in enumerate(VARIANTS["mirror_halves"])}
# More pixels than this are read from the cache for each batch; on a GPU, half of the memory that is free.
_RESIDENT_BYTES = 1 << 30
_CHUNK = 256


class Batches:
    """The images of some records; each original is kept once, whatever number of its variants there are.

    Args:
        X: Records.
        spec: Their geometry, RGB.
        mean: Of each channel in the backbone's training, of pixels from 0 to 1.
        std: Likewise.
        device: Where batches are wanted.
    """

    def __init__(
        self,
        X: Images | np.ndarray,
        spec: ImageSpec,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
    ):
        self._X, self._spec, self._device = X, spec, device
        if isinstance(X, Images):
            _, first, where = np.unique(X.digests.astype(str), return_index=True, return_inverse=True)
            self._originals: Images | np.ndarray = Images(X.store, X.digests[first])
        else:
            self._originals, where = X, np.arange(len(X))
        self._where = torch.from_numpy(where)
        self._scale = torch.tensor([1 / (255 * s) for s in std], device=device).view(1, 3, 1, 1)
        self._shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device).view(1, 3, 1, 1)
        self._columns = torch.from_numpy(source_columns(spec.size_px)).to(device)
        self._resident = self._read_all() if self._fits() else None
        if self._resident is not None:
            self._where = self._where.to(device)

    def __len__(self) -> int:
        return len(self._X)

    @property
    def is_resident(self) -> bool:
        """Whether all pixels lie on the device."""
        return self._resident is not None

    def codes(self, rng: np.random.Generator) -> Tensor:
        """The variant of each row for one epoch, as a number: ``(n,)``."""
        if not isinstance(self._X, Images):
            return torch.zeros(len(self), dtype=torch.long)
        return torch.tensor([_CODES[variant] for variant in self._X.draw(rng)])

    def __call__(self, rows: Tensor, codes: Tensor) -> Tensor:
        """A batch.

        Args:
            rows: Row numbers ``(b,)``.
            codes: The variant of each of these rows, ``(b,)``.

        Returns:
            fp32 ``(b, 3, size, size)`` in channels-last order, on the device.
        """
        where = self._where[rows.to(self._where.device)]
        pixels = self._read(where) if self._resident is None else self._resident[where]
        # On a processor nothing is gained where nothing is mirrored; a GPU's captured step must not ask.
        if self._device.type != "cpu" or bool(codes.any()):
            columns = self._columns[codes.to(self._device)]
            pixels = pixels.gather(2, columns[:, None, :, None].expand_as(pixels))
        return pixels.permute(0, 3, 1, 2).float() * self._scale + self._shift

    def _fits(self) -> bool:
        room = _RESIDENT_BYTES
        if self._device.type == "cuda":
            room = torch.cuda.mem_get_info(self._device)[0] // 2
        return len(self._originals) * int(np.prod(self._spec.shape)) <= room

    def _read_all(self) -> Tensor:
        pixels = torch.empty((len(self._originals), *self._spec.shape), dtype=torch.uint8, device=self._device)
        for start in range(0, len(pixels), _CHUNK):
            part = torch.arange(start, min(start + _CHUNK, len(pixels)))
            pixels[start : start + _CHUNK] = self._read(part)
        return pixels

    def _read(self, where: Tensor) -> Tensor:
        found = pixels_of(self._originals[where.cpu().numpy()], self._spec)
        return torch.from_numpy(np.ascontiguousarray(found)).to(self._device)

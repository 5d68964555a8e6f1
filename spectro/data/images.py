"""Records as a lazy array of images: decoded once, kept in the cache, read in batches."""

import hashlib
import os
import stat
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from spectro.data.augmentation import ORIGINAL, vary
from spectro.data.cache import RowCache
from spectro.data.decode import CODE_VERSION, BadImageError, Crop, ImageSpec, decode, fit
from spectro.data.rows import RowKind, Rows
from spectro.progress import progress

# Images that are decoded together: bounds memory, and is the step of the progress bar.
_CHUNK = 64

_digests: dict[tuple[str, int, int], str] = {}


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes; read again in one process only if size or time of change differ.

    Raises:
        OSError: The file cannot be read, or is none: a pipe or a device would be read for ever.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError("not a regular file")
    key = (str(path), found.st_size, found.st_mtime_ns)
    if key not in _digests:
        with path.open("rb") as file:
            _digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _digests[key]


class ImageStore:
    """Decoded, cropped and resized images of one data set, by digest of their files.

    Attributes:
        crop: Margins cut off every image, in pixels.
        cache: Where pixels and what is made from them are kept.
    """

    def __init__(self, cache: RowCache | None = None, crop: Crop | None = None, max_megapixels: float = 100.0):
        self.cache = cache or RowCache(None)
        self.crop = crop or Crop()
        self._max_megapixels = max_megapixels
        self._paths: dict[str, Path] = {}

    @property
    def max_file_bytes(self) -> int:
        """More than the largest image allowed can fill: 16-bit RGBA without compression, and as much for the rest."""
        return int(self._max_megapixels * 16e6) + (1 << 20)

    def kind(self, spec: ImageSpec) -> RowKind:
        """The cache's name for images of this crop and geometry."""
        settings = {
            "code": CODE_VERSION,
            "pillow": PIL.__version__,
            "max_megapixels": self._max_megapixels,
            "crop": [self.crop.left, self.crop.top, self.crop.right, self.crop.bottom],
            # Squashed images have been kept under these two values alone.
            "spec": [spec.size_px, spec.mode, *([] if spec.fit == "squash" else [spec.fit])],
        }
        return RowKind("pixels", settings, spec.shape, "uint8")

    def add(self, paths: Sequence[Path], digests: Sequence[str], specs: Sequence[ImageSpec]) -> dict[Path, str]:
        """Decodes what is not in the cache yet, each file once for all geometries, on all cores.

        Args:
            paths: Image files.
            digests: Their digests.
            specs: The geometries that will be asked for. None: every file is decoded, only to see that it can be.

        Returns:
            The files that give no image, with the reason.
        """
        by_digest = dict(zip(digests, paths, strict=True))
        self._paths.update(by_digest)
        kinds = {spec: self.kind(spec) for spec in specs}
        missing = {spec: set(self.cache.missing(kind, by_digest)) for spec, kind in kinds.items()}
        wanted = [digest for digest in by_digest if not specs or any(digest in keys for keys in missing.values())]
        bad: dict[str, str] = {}
        if wanted:
            self._decode(wanted, missing, kinds, bad)
        return {path: bad[digest] for path, digest in zip(paths, digests, strict=True) if digest in bad}

    def _decode(
        self,
        wanted: Sequence[str],
        missing: dict[ImageSpec, set[str]],
        kinds: dict[ImageSpec, RowKind],
        bad: dict[str, str],
    ) -> None:
        """Streams decoded chunks into one pack for each geometry."""

        read_here = set(_digests.values())

        def one(digest: str) -> dict[ImageSpec, np.ndarray] | str:
            try:
                data = self._paths[digest].read_bytes()
                # A digest from `file_digest` names bytes: what was written since must not be kept under it.
                if digest in read_here and hashlib.sha256(data).hexdigest() != digest:
                    return "changed while it was read"
                image = decode(data, self.crop, self._max_megapixels)
            except (BadImageError, OSError) as error:
                return str(error)
            return {spec: fit(image, spec) for spec, keys in missing.items() if digest in keys}

        with ExitStack() as stack:
            # Pillow warns of large images and of odd metadata; the size is checked before a pixel is decoded. Not in
            # `decode`: the filters are one for all threads, and the last of them to leave would leave them ignoring.
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            writes = {spec: stack.enter_context(self.cache.writer(kind)) for spec, kind in kinds.items()}
            advance = stack.enter_context(progress("reading images", len(wanted)))
            pool = stack.enter_context(_pool())
            for chunk in _chunks(wanted):
                done = dict(zip(chunk, pool.map(one, chunk), strict=True))
                bad.update({digest: result for digest, result in done.items() if isinstance(result, str)})
                for spec, write in writes.items():
                    rows = {d: r[spec] for d, r in done.items() if not isinstance(r, str) and spec in r}
                    if rows:
                        write(list(rows), np.stack(list(rows.values())))
                advance(len(chunk))

    def rows(self, spec: ImageSpec, digests: Sequence[str]) -> Rows:
        """The images with these digests.

        Raises:
            BadImageError: An image that was not decoded by `add` cannot be decoded.
        """
        kind = self.kind(spec)
        missing = self.cache.missing(kind, digests)
        if missing:
            bad = self.add([self._paths[d] for d in missing], missing, [spec])
            if bad:
                path, reason = next(iter(bad.items()))
                raise BadImageError(f"{path}: {reason}")
        return self.cache.rows(kind, digests)


class Images:
    """A lazy array of records, or of variants of records: the ``X`` of an estimator.

    ``X[index]`` with a slice, an integer array or a mask is a `Images` again; nothing is read until `pixels`.

    Attributes:
        variants: The variant that each row is, ``(n,)``.
        choices: For each row the variants of which a network draws one in every epoch, ``(n,)``; None: it is always
            the one in ``variants``.
    """

    def __init__(
        self,
        store: ImageStore,
        digests: Sequence[str] | np.ndarray,
        variants: Sequence[str] | np.ndarray | None = None,
        choices: Sequence[Sequence[str]] | np.ndarray | None = None,
    ):
        self.store = store
        self.digests = np.asarray(digests, dtype=object)
        self.variants = np.asarray([ORIGINAL] * len(self.digests) if variants is None else variants, dtype=object)
        self.choices: np.ndarray | None = None
        if choices is not None:
            # An array of tuples: numpy would take tuples of one length for a second axis.
            self.choices = np.empty(len(self.digests), dtype=object)
            self.choices[:] = [tuple(names) for names in choices]

    def __len__(self) -> int:
        return len(self.digests)

    @property
    def shape(self) -> tuple[int]:
        """``(n,)``: how high and wide an image is depends on the geometry asked for."""
        return (len(self),)

    def __getitem__(self, index: np.ndarray | slice) -> "Images":
        choices = None if self.choices is None else self.choices[index]
        return Images(self.store, self.digests[index], self.variants[index], choices)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """A variant for each row, ``(n,)``: drawn from its choices where it has them."""
        if self.choices is None:
            return self.variants
        return np.array([names[rng.integers(len(names))] for names in self.choices], dtype=object)

    @property
    def keys(self) -> list[str]:
        """What each row is made from, for caches of features: digest and variant."""
        return [f"{d}:{v}" for d, v in zip(self.digests, self.variants, strict=True)]

    def pixels(self, spec: ImageSpec) -> np.ndarray:
        """All images at once: uint8 ``(n, size, size)`` or ``(n, size, size, 3)``."""
        rows = self.store.rows(spec, list(self.digests))
        out = rows[:]
        for variant in set(self.variants) - {ORIGINAL}:
            chosen = np.flatnonzero(self.variants == variant)
            out[chosen] = vary(out[chosen], variant)
        return out


def pixels_of(X: Images | np.ndarray, spec: ImageSpec) -> np.ndarray:
    """Images in the geometry of a family.

    Args:
        X: Records, or uint8 images ``(n, height, width)`` or ``(n, height, width, 3)`` of any size.
        spec: The geometry.

    Returns:
        uint8 ``(n, *spec.shape)``.

    Raises:
        ValueError: An array of another shape or type.
    """
    if isinstance(X, Images):
        return X.pixels(spec)
    X = np.asarray(X)
    if X.dtype != np.uint8 or X.ndim not in (3, 4) or (X.ndim == 4 and X.shape[3] != 3):
        raise ValueError(f"X: got {X.dtype} {X.shape}; allowed: uint8 (n, height, width) or (n, height, width, 3)")
    return np.stack([fit(Image.fromarray(x), spec) for x in X]) if len(X) else np.empty((0, *spec.shape), np.uint8)


def map_chunks(function: Callable[[np.ndarray], np.ndarray], items: np.ndarray, chunk: int) -> Iterator[np.ndarray]:
    """``function`` over chunks of ``items``, in order, in as many threads as there are cores.

    No more chunks are under way than threads can chew, so that results which are consumed in time need little memory.
    """
    with _pool() as pool:
        chunks = iter([items[i : i + chunk] for i in range(0, len(items), chunk)])
        waiting = [pool.submit(function, c) for c in islice(chunks, 2 * pool._max_workers)]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [pool.submit(function, c) for c in islice(chunks, 1)]


def _pool() -> ThreadPoolExecutor:
    # Decoding, resizing and numpy release the interpreter lock, so that threads do as well as processes here.
    return ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())


def _chunks(items: Sequence[str]) -> Iterator[Sequence[str]]:
    return (items[i : i + _CHUNK] for i in range(0, len(items), _CHUNK))

"""Records as a lazy array of images: decoded once, kept in the cache, read in batches."""

import copy
import hashlib
import stat
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image

from spectro.data.augmentation import NOT_DRAWN, ORIGINAL, Augmentation
from spectro.data.cache import RowCache, RowKind
from spectro.data.decode import CODE_VERSION, BadImageError, Crop, ImageSpec, decode, fit
from spectro.paths import cores
from spectro.progress import progress


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes; read again in one process only if size or time of change differ.

    Raises:
        OSError: The file cannot be read, or is none: a pipe or a device would be read for ever.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError("not a regular file")
    return _digest(path, status.st_size, status.st_mtime_ns)


@cache
def _digest(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Threads that predict may find images missing at once, and `ImageStore.add` changes the filters of warnings for all.
_ADDING = threading.Lock()


class ImageStore:
    """Decoded, cropped and resized images of one data set, by digest of their files.

    Attributes:
        cache: Of pixels, and of what is made from them; None: in memory.
        crop: Margins cut off every image, in pixels.
        max_megapixels: A larger image is refused.
    """

    def __init__(self, cache: RowCache | None = None, crop: Crop | None = None, max_megapixels: float = 100.0):
        self.cache, self.crop, self.max_megapixels = cache or RowCache(None), crop or Crop(), max_megapixels
        self._paths: dict[str, Path] = {}

    def kind(self, spec: ImageSpec) -> RowKind:
        """The cache's name for images of this crop and geometry."""
        versions = {"code": CODE_VERSION, "pillow": PIL.__version__, "max_megapixels": self.max_megapixels}
        return RowKind("pixels", {**versions, "crop": asdict(self.crop), "spec": asdict(spec)}, spec.shape, "uint8")

    def add(self, paths: Sequence[Path], digests: Sequence[str], specs: Sequence[ImageSpec]) -> dict[Path, str]:
        """Decodes what is not in the cache yet, each file once for all geometries, on all cores.

        Args:
            paths: Image files.
            digests: Their digests.
            specs: The geometries in which images will be read. None: every file is decoded, only to see that it can be.

        Returns:
            The files that give no image, with the reason.
        """
        by_digest = dict(zip(digests, paths, strict=True))
        self._paths.update(by_digest)
        kinds = {spec: self.kind(spec) for spec in specs}
        missing = {digest for kind in kinds.values() for digest in self.cache.missing(kind, by_digest)}
        to_decode = [digest for digest in by_digest if digest in missing or not kinds]

        def add_one(digest: str) -> str | None:
            try:
                data = by_digest[digest].read_bytes()
                # Bytes written since the digest was taken must not be cached under it.
                if hashlib.sha256(data).hexdigest() != digest:
                    return "changed while it was read"
                self.put(digest, data, specs)
            except (BadImageError, OSError) as error:
                return str(error)
            return None

        # Pillow warns of large images and of odd metadata; the size is checked before a pixel is decoded. Not in
        # `decode`: the filters are one for all threads, and the last of them to leave would leave them ignoring.
        with warnings.catch_warnings(), progress("reading images", len(to_decode)) as advance, _pool() as pool:
            warnings.simplefilter("ignore")
            reasons = {}
            for digest, reason in zip(to_decode, pool.map(add_one, to_decode), strict=True):
                reasons[digest] = reason
                advance(1)
        if to_decode:
            self.cache.shrink()
        return {path: reason for path, digest in zip(paths, digests, strict=True) if (reason := reasons.get(digest))}

    def put(self, digest: str, data: bytes, specs: Sequence[ImageSpec]) -> Image.Image:
        """Decodes the bytes of one image file, and returns the whole image as well.

        Raises:
            BadImageError: They give no image.
        """
        image = decode(data, self.crop, self.max_megapixels)
        for spec in specs:
            self.cache.write(self.kind(spec), [digest], fit(image, spec)[None])
        return image

    def pixels(self, spec: ImageSpec, digests: Sequence[str]) -> np.ndarray:
        """The images with these digests: uint8 ``(n, *spec.shape)``, a copy.

        Raises:
            BadImageError: An image that was not decoded by `add` cannot be decoded.
        """
        kind = self.kind(spec)
        try:
            return self.cache.rows(kind, digests)
        except KeyError:
            with _ADDING:
                missing = self.cache.missing(kind, digests)
                bad = self.add([self._paths[digest] for digest in missing], missing, [spec])
        for path, reason in bad.items():
            raise BadImageError(f"{path}: {reason}")
        return self.cache.rows(kind, digests)

    def thumbnail(self, digest: str, most_px: int) -> np.ndarray:
        """An image in colour and in its shape, no side longer than ``most_px``: uint8 (h, w, 3); it is not cached.

        Raises:
            BadImageError: It cannot be decoded.
            OSError: It cannot be read.
        """
        image = decode(self._paths[digest].read_bytes(), self.crop, self.max_megapixels).convert("RGB")
        image.thumbnail((most_px, most_px), Image.Resampling.LANCZOS)
        return np.asarray(image)


class Images:
    """A lazy array of records, or of augmented records: the ``X`` of an estimator.

    ``X[index]`` with a slice, an integer array or a mask is an `Images` again; nothing is read until `pixels`.

    Attributes:
        store: Where pixels come from.
        digests: The file that each row is made from, ``(n,)``.
        augmentation: The transforms that `views` and `seeds` refer to.
        views: The view that each row is, ``(n,)``.
        seeds: Of the random transforms of each row, ``(n,)``; `NOT_DRAWN` for none.
        groups: What stays together where these records are divided once more, ``(n,)``; the digests unless it is set.
        choices: For each row the views of which one is drawn in every epoch, together with a seed, ``(n,)``; None:
            nothing is drawn.
    """

    def __init__(self, store: ImageStore, digests: Sequence[str] | np.ndarray):
        self.store, self.digests = store, np.asarray(digests, dtype=object)
        self.augmentation, self.groups = Augmentation(), self.digests
        self.views = np.full(len(self), ORIGINAL, dtype=object)
        self.seeds = np.full(len(self), NOT_DRAWN)
        self.choices: np.ndarray | None = None

    def replace(self, **attributes: Any) -> "Images":
        """The same rows with other attributes."""
        images = copy.copy(self)
        vars(images).update(attributes)
        return images

    def __len__(self) -> int:
        return len(self.digests)

    @property
    def shape(self) -> tuple[int]:
        """``(n,)``: height and width depend on the geometry in which pixels are read."""
        return (len(self),)

    def __getitem__(self, index: np.ndarray | slice) -> "Images":
        return self.replace(**{k: v[index] for k, v in vars(self).items() if isinstance(v, np.ndarray)})

    def augmented(
        self, augmentation: Augmentation, sources: Sequence[str], *, per_epoch: bool
    ) -> tuple["Images", np.ndarray]:
        """The augmented training set of these records, ``n`` of them, as they are.

        Args:
            augmentation: What is done to them.
            sources: Their sources, ``(n,)``.
            per_epoch: Whether the family has epochs, for each of which views and random transforms are drawn anew.

        Returns:
            The images, and for each of their rows the index of its record: all rows of the first record come first.
        """
        sampled = augmentation.mode == "sample" and per_epoch
        n_draws = augmentation.draws if augmentation.transforms and not per_epoch else 0
        rows: list[tuple[int, str, int, tuple[str, ...]]] = []
        for i, (digest, source) in enumerate(zip(self.digests, sources, strict=True)):
            excluded = augmentation.exclude.get(source, ())
            names = tuple(view for view in (ORIGINAL, *augmentation.views) if view not in excluded)
            for view in names[:1] if sampled else names:
                # A random copy is the same in every fold, and whatever other records there are.
                texts = (f"{augmentation.seed}:{digest}:{view}:{draw}" for draw in range(n_draws))
                seeds = (int.from_bytes(hashlib.sha256(text.encode()).digest()[:7]) for text in texts)
                rows += [(i, view, seed, names if sampled else (view,)) for seed in (NOT_DRAWN, *seeds)]
        index = np.array([row[0] for row in rows], dtype=int)
        views, choices = np.empty((2, len(rows)), dtype=object)
        views[:], choices[:] = [row[1] for row in rows], [row[3] for row in rows]
        seeds_of_rows = np.array([row[2] for row in rows], int)
        images = self[index].replace(augmentation=augmentation, views=views, seeds=seeds_of_rows)
        is_drawn = per_epoch and (sampled or augmentation.transforms)
        return images.replace(choices=choices) if is_drawn else images, index

    def drawn(self, rng: np.random.Generator) -> "Images":
        """The images of one epoch: of each row one of its choices, with new seeds; itself where nothing is drawn."""
        if self.choices is None:
            return self
        views = np.array([names[rng.integers(len(names))] for names in self.choices], dtype=object)
        seeds = rng.integers(2**62, size=len(self)) if self.augmentation.transforms else self.seeds
        return self.replace(views=views, seeds=seeds, choices=None)

    @property
    def keys(self) -> list[str]:
        """What each row is made from, for caches of features: digest and augmentation."""
        rows = zip(self.digests, self.views, self.seeds, strict=True)
        return [f"{digest}:{self.augmentation.key(view, seed)}" for digest, view, seed in rows]

    def augment(self, originals: Any, index: np.ndarray | slice = slice(None)) -> Any:
        """Turns the originals of some rows into what the rows are.

        Args:
            originals: uint8 ``(b, height, width)`` or ``(b, height, width, 3)``, numpy or PyTorch; it is changed.
            index: The rows, ``(b,)``.
        """
        return self.augmentation(originals, self.views[index], self.seeds[index])

    def pixels(self, spec: ImageSpec) -> np.ndarray:
        """All images at once: uint8 ``(n, height, width)`` or ``(n, height, width, 3)``."""
        return self.augment(self.store.pixels(spec, list(self.digests)))

    def thumbnails(self, most_px: int) -> list[np.ndarray]:
        """Each image for a person, in colour and in its shape: uint8 (h, w, 3), no side longer than ``most_px``.

        Raises:
            BadImageError: An image cannot be decoded.
            OSError: It cannot be read.
        """
        originals = [self.store.thumbnail(digest, most_px) for digest in self.digests]
        return [self.augment(pixels[None].copy(), slice(i, i + 1))[0] for i, pixels in enumerate(originals)]


def groups_of_rows(X: Images | np.ndarray) -> np.ndarray:
    """What stays together where training rows are divided once more: group numbers ``(n,)``, of an array one a row."""
    return np.unique(X.groups.astype(str), return_inverse=True)[1] if isinstance(X, Images) else np.arange(len(X))


def cached_rows(
    X: Images,
    kind: RowKind,
    function: Callable[[Images], np.ndarray],
    what: str,
    chunk: int,
    threads: int | None = None,
) -> np.ndarray:
    """What a function makes of each record and view ``(n, *kind.shape)``, from the cache where it has them.

    Args:
        X: Records.
        kind: The cache's name for the results.
        function: At most ``chunk`` records -> their rows.
        what: What is computed, for the progress bar.
        chunk: Number of records that are computed together.
        threads: How many chunks at a time; None: as many as there are cores.
    """
    row_of = {key: i for i, key in enumerate(X.keys)}

    def compute(keys: Sequence[str]) -> Iterator[tuple[Sequence[str], np.ndarray]]:
        index = np.array([row_of[key] for key in keys])
        with progress(what, len(keys)) as advance:
            for number, rows in enumerate(map_chunks(lambda i: function(X[i]), index, chunk, threads)):
                yield keys[number * chunk : (number + 1) * chunk], rows
                advance(len(rows))

    return X.store.cache.rows(kind, X.keys, compute)


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


def map_chunks(
    function: Callable[[np.ndarray], np.ndarray], items: np.ndarray, chunk: int, threads: int | None = None
) -> Iterator[np.ndarray]:
    """``function`` over chunks of ``items``, in order, in so many threads; None: as many as there are cores.

    No more chunks are under way than threads can chew, so that results which are consumed in time need little memory.
    """
    with _pool(threads) as pool:
        chunks = iter([items[i : i + chunk] for i in range(0, len(items), chunk)])
        waiting = [pool.submit(function, c) for c in islice(chunks, 2 * pool._max_workers)]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [pool.submit(function, c) for c in islice(chunks, 1)]


def _pool(threads: int | None = None) -> ThreadPoolExecutor:
    # Decoding, resizing and numpy release the interpreter lock, so that threads do as well as processes here.
    return ThreadPoolExecutor(threads or cores())

"""Where new images lie: files, folders, globs and zip archives, which are read in place."""

import functools
import glob
import os
import stat
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from spectro.data.decode import BadImageError
from spectro.data.manifest import IMAGE_ENDINGS
from spectro.errors import DataError

# Bytes of a pixel at most: 16 bits of red, green, blue and alpha. A megabyte more is for what stands around pixels.
_PIXEL_BYTES, _AROUND_BYTES = 8, 10**6
# An entry of an archive may unpack to so many bytes, or else to so many times what it takes there.
_UNPACKED_BYTES, _UNPACKED_RATIO = 16 * 10**6, 200


@dataclass(frozen=True, slots=True)
class ImageInput:
    """A file, or an entry of an archive, that should hold an image.

    Attributes:
        path: The file, or the archive.
        archive: The open archive; None: the file itself.
        entry: The name in the archive.
    """

    path: Path
    archive: zipfile.ZipFile | None = None
    entry: str = ""

    @property
    def name(self) -> str:
        """What it is called in a table: ``folder/file.png``, ``archive.zip/entry.png``; no UTF-8 as ``\\xff``."""
        text = self.path.as_posix() + (f"/{self.entry}" if self.archive else "")
        return os.fsencode(text).decode("utf-8", "backslashreplace")

    def read(self, max_megapixels: float) -> bytes:
        """The bytes of the image file; nothing of an archive is written to the disk.

        Args:
            max_megapixels: The largest image that will be decoded: no more bytes are read than it can have.

        Raises:
            BadImageError: It cannot be read, or is too large; the message is the reason.
        """
        most = int(max_megapixels * 1e6 * _PIXEL_BYTES) + _AROUND_BYTES
        try:
            if self.archive is None:
                status = self.path.stat()
                if not stat.S_ISREG(status.st_mode):
                    raise BadImageError("cannot be opened (not a regular file)")
                size = status.st_size
            else:
                info = self.archive.getinfo(self.entry)
                size, most = info.file_size, min(most, max(_UNPACKED_BYTES, _UNPACKED_RATIO * info.compress_size))
                if stat.S_ISLNK(info.external_attr >> 16):
                    raise BadImageError("a link in an archive; allowed: files")
                if ".." in Path(self.entry).parts or self.entry.startswith("/"):
                    raise BadImageError("its name leads out of the archive")
            if size > most:
                raise BadImageError(f"absurdly large ({size / 1e6:,.0f} MB); allowed: {most / 1e6:,.0f} MB")
            return self.path.read_bytes() if self.archive is None else self.archive.read(self.entry)
        except OSError as error:
            raise BadImageError(f"cannot be opened ({error.strerror or error})") from error
        except BadImageError:
            raise
        except Exception as error:  # zipfile: BadZipFile, zlib.error, RuntimeError of a password, NotImplementedError
            raise BadImageError(f"cannot be unpacked ({error})") from error


def find_inputs(paths: Iterable[Path]) -> list[ImageInput]:
    """Image files, those in folders and below, those that a glob matches, and those in zip archives, sorted; each once.

    Links to folders are followed, each folder once. Hidden files, and an archive inside a folder, are passed over.

    Raises:
        DataError: A path that is not there, a damaged archive, a folder that cannot be read, or no images at all.
    """
    paths, found = list(paths), dict[tuple[Path, str], ImageInput]()
    resolved = functools.cache(Path.resolve)

    def add(path: Path, archive: zipfile.ZipFile | None = None, entry: str = "") -> None:
        # A folder may be given as its name and as a whole path; a link to a file is an image beside that file.
        found.setdefault((resolved(path.parent) / path.name, entry), ImageInput(path, archive, entry))

    for path in (match for given in paths for match in _matches(given)):
        if path.is_dir():
            for file in _inside(path):
                add(file)
        elif path.is_file() and path.suffix.lower() == ".zip":
            try:
                archive = _opened(path)
            except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
                raise DataError(f"{path}: not a zip archive ({error})") from error
            for entry in archive.NameToInfo:
                if _is_image(Path(entry)) and not entry.startswith("__MACOSX/") and not entry.endswith("/"):
                    add(path, archive, entry)
        elif os.path.lexists(path):
            add(path)
        else:
            raise DataError(f"{path}: no such file or folder")
    if not found:
        raise DataError(f"no images found in {', '.join(map(str, paths))}")
    return sorted(found.values(), key=lambda item: (item.path, item.entry))


def _matches(path: Path) -> list[Path]:
    """The path itself, or what it matches as a glob; a shell without globs leaves them to the program."""
    if path.exists() or not glob.has_magic(str(path)):
        return [path]
    return [Path(name) for name in sorted(glob.glob(str(path), recursive=True))] or [path]


def _opened(path: Path) -> zipfile.ZipFile:
    """An archive; names without a mark of their encoding are read as UTF-8, as most programs write them."""
    try:
        return zipfile.ZipFile(path, metadata_encoding="utf-8")
    except UnicodeDecodeError:
        return zipfile.ZipFile(path)  # as cp437, the format's own


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_ENDINGS and not path.name.startswith(".")


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from error


def _inside(top: Path) -> Iterator[Path]:
    visited: set[tuple[int, int]] = set()
    for folder, folders, names in os.walk(top, followlinks=True, onerror=_refuse):
        # A link to a folder above would give its images again and again.
        place = os.stat(folder)
        is_new = (place.st_dev, place.st_ino) not in visited
        visited.add((place.st_dev, place.st_ino))
        folders[:] = sorted(name for name in folders if is_new and not name.startswith("."))
        yield from (path for path in (Path(folder, name) for name in names if is_new) if _is_image(path))

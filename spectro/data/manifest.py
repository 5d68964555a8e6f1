"""Folder tree -> manifest: which records there are, before any image is opened."""

import hashlib
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

SPLITS = ("train", "val", "test")
IMAGE_ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"})
SourceKey = Literal["name", "class_name", "path"]

# The names of augmented copies on disk: `a_double_l.png` is a copy of `a.png`,
# and so is a copy of a copy. A name that is nothing but a suffix is a name.
_COPY_SUFFIX = re.compile(r"(?<!^)(_(mirrored|double_l|double_r))+\Z")


@dataclass(frozen=True, slots=True)
class Record:
    """One image file.

    Attributes:
        path: The file.
        split: ``train``, ``val``, ``test``, or empty while the data set is not split yet.
        folder: Name of the folder that it lies in: its label before the mapping.
        source: The original recording; copies of one recording share it.
        digest: SHA-256 of the file's bytes, hexadecimal; empty while it is not read yet.
        label: Its class by the mapping; empty before.
    """

    path: Path
    split: str
    folder: str
    source: str
    digest: str = ""
    label: str = ""

    @property
    def is_copy(self) -> bool:
        """Whether the file's name says that it is a mirrored or doubled copy of another record."""
        return _COPY_SUFFIX.search(nfc(self.path.stem)) is not None


@dataclass
class Scan:
    """What lies in a data set's folder.

    Attributes:
        records: Every image file, ordered by path.
        is_split: Whether the tree has split folders.
        ignored: How many hidden or non-image files, and folders too deep in the tree, are not used.
        empty_folders: ``split/class`` of folders without an image.
        missing_splits: Which of train, val and test are not there, where at least one is.
        unreadable: Folders that cannot be listed -> reason.
    """

    records: list[Record] = field(default_factory=list)
    is_split: bool = False
    ignored: int = 0
    empty_folders: list[str] = field(default_factory=list)
    missing_splits: list[str] = field(default_factory=list)
    unreadable: dict[Path, str] = field(default_factory=dict)


def nfc(name: str) -> str:
    """The same text on every system: macOS spells names decomposed, Linux and Windows mostly composed."""
    return unicodedata.normalize("NFC", name)


def source_of(path: Path, split: str, folder: str, key: SourceKey = "name") -> str:
    """The source of an image file.

    Args:
        path: The file; the ending and the suffix of a copy (``_mirrored``, ``_double_l``, ``_double_r``) do not count.
        split: Its split folder, or empty.
        folder: Its class folder.
        key: ``name``: files of one name are one recording, wherever they lie. ``class_name``: names are unique in a
            class only. ``path``: names are unique in one folder only.

    Returns:
        The source's name.
    """
    stem = _COPY_SUFFIX.sub("", nfc(path.stem))
    if key == "name":
        return stem
    return f"{folder}/{stem}" if key == "class_name" else f"{split}/{folder}/{stem}"


def scan(root: Path, source_key: SourceKey = "name") -> Scan:
    """Lists ``root/{train,val,test}/<class>/*`` or, where none of the three is there, ``root/<class>/*``.

    Symbolic links are followed. Hidden files, files that are no images by their ending, and anything deeper are
    counted in ``ignored``.

    Args:
        root: The data set's folder.
        source_key: See `source_of`.

    Returns:
        What is there; no file is opened.

    Raises:
        OSError: ``root`` cannot be listed.
    """
    listing = Scan()
    top_folders, listing.ignored = _visible(root, folders=True)
    present = {name: path for name, path in top_folders if name in SPLITS}
    listing.is_split = bool(present)
    if listing.is_split:
        listing.missing_splits = [split for split in SPLITS if split not in present]
        listing.ignored += len(top_folders) - len(present)
    for split, top in present.items() if listing.is_split else [("", root)]:
        classes, ignored = _listed(top, listing, folders=True) if listing.is_split else (top_folders, 0)
        listing.ignored += ignored
        for folder, path in classes:
            files, ignored = _listed(path, listing, folders=False)
            images = [image for _, image in files if image.suffix.lower() in IMAGE_ENDINGS]
            listing.ignored += ignored + len(files) - len(images)
            if not images and path not in listing.unreadable:
                listing.empty_folders.append(f"{split}/{folder}" if split else folder)
            listing.records += [Record(p, split, folder, source_of(p, split, folder, source_key)) for p in images]
    return listing


def _visible(folder: Path, *, folders: bool) -> tuple[list[tuple[str, Path]], int]:
    """Folders or files in ``folder`` by name, and how many other entries there are."""
    entries_by_name, ignored = [], 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or _is_folder(entry) != folders:
                ignored += 1
            else:
                entries_by_name.append((nfc(entry.name), folder / entry.name))
    return sorted(entries_by_name), ignored


def _listed(folder: Path, listing: Scan, *, folders: bool) -> tuple[list[tuple[str, Path]], int]:
    """`_visible`, but a folder that cannot be listed is noted in ``unreadable`` and has no entries."""
    try:
        return _visible(folder, folders=folders)
    except OSError as error:
        listing.unreadable[folder] = error.strerror or str(error)
        return [], 0


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself: opened as a file, it is an error that names it
        return False


def without_copies(records: Iterable[Record]) -> tuple[list[Record], int]:
    """Leaves out copies that a data set arrives with, where the original lies in the same split and class.

    Copies would count one recording several times, in val and test above all; augmentation makes them anew, from
    training records only.

    Returns:
        The records that stay, and how many copies were left out.
    """
    records = list(records)
    originals = {(r.split, r.folder, r.source) for r in records if not r.is_copy}
    remaining = [r for r in records if not (r.is_copy and (r.split, r.folder, r.source) in originals)]
    return remaining, len(records) - len(remaining)


def leaks(records: Iterable[Record]) -> list[str]:
    """One line for each source or image (same bytes) that is in more than one split."""
    lines = []
    by_source: dict[str, list[Record]] = defaultdict(list)
    by_digest: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_source[record.source].append(record)
        by_digest[record.digest].append(record)
    reported: set[Path] = set()
    for digest, group in by_digest.items():
        if digest and len({r.split for r in group}) > 1:
            lines.append(f"one image in two splits (same bytes): {_places(group)}")
            reported.update(r.path for r in group)
    for source, group in by_source.items():
        if len({r.split for r in group}) > 1 and not all(r.path in reported for r in group):
            lines.append(f"one source in two splits (source {source!r}): {_places(group)}")
    return lines


def _places(group: Sequence[Record]) -> str:
    """Up to four places of a group, the ones that differ in split first."""
    first = {r.split: r for r in reversed(group)}
    ordered = [*first.values(), *(r for r in group if r is not first[r.split])]
    shown = ", ".join("/".join(filter(None, (r.split, r.folder, r.path.name))) for r in ordered[:4])
    return shown + (f" and {len(group) - 4} more" if len(group) > 4 else "")


def fingerprint(records: Iterable[Record]) -> str:
    """16 hexadecimal digits that name exactly these images with these labels in these splits, in any order."""
    lines = sorted(f"{r.split}\t{r.label}\t{r.source}\t{r.digest}" for r in records)
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()[:16]

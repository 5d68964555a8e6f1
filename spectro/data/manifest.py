"""Folder tree -> manifest: which records there are, before any image is opened."""

import hashlib
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
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

    def entries(self, folder: Path, *, folders: bool) -> list[tuple[str, Path]]:
        """Folders or files in ``folder`` by name; others are counted, and a folder that cannot be listed is noted."""
        entries = []
        try:
            with os.scandir(folder) as listed:
                for entry in listed:
                    if entry.name.startswith(".") or os.path.isdir(entry) != folders:
                        self.ignored += 1
                    else:
                        entries.append((nfc(entry.name), folder / entry.name))
        except OSError as error:
            self.unreadable[folder] = error.strerror or str(error)
        return sorted(entries)


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


def grouped(
    records: Sequence[Record], root: Path, pattern: str, folders: Collection[str]
) -> tuple[list[Record], list[str]]:
    """Records whose source is the group that a regular expression finds in their path below ``root``, and problems.

    Args:
        records: Records of any order.
        root: The data set's folder.
        pattern: With one group, over paths with forward slashes, split and class folder included.
        folders: Class folders in which every record must have a group; elsewhere its source remains.
    """
    found = [re.search(pattern, nfc(r.path.relative_to(root).as_posix())) for r in records]
    names = ["" if match is None else match[1] or "" for match in found]
    lines = []
    if missing := [r for r, name in zip(records, names, strict=True) if not name and r.folder in folders]:
        example, n = missing[0].path.relative_to(root).as_posix(), sum(r.folder in folders for r in records)
        lines.append(f"data.group: {pattern!r} finds no group in {len(missing)} of {n} paths, e.g. {example}")
    groups_of: dict[str, set[str]] = defaultdict(set)
    for record, name in zip(records, names, strict=True):
        groups_of[record.source] |= {name} - {""}
    if not missing and (divided := sorted(source for source, groups in groups_of.items() if len(groups) > 1)):
        in_groups = ", ".join(sorted(groups_of[divided[0]]))
        lines.append(
            f"data.group: {pattern!r} divides {len(divided)} sources, e.g. {divided[0]} (groups {in_groups}); allowed: "
            "groups of whole sources (data.source_key=path makes each file a source)"
        )
    return [replace(r, source=name or r.source) for r, name in zip(records, names, strict=True)], lines


def scan(root: Path, source_key: SourceKey = "name") -> Scan:
    """Lists ``root/{train,val,test}/<class>/*`` or, where none of the three is there, ``root/<class>/*``.

    Symbolic links are followed. Hidden files, files that are no images by their ending, and anything deeper are
    counted in ``ignored``. No file is opened.
    """
    listing = Scan()
    top = listing.entries(root, folders=True)
    splits = [(name, path) for name, path in top if name in SPLITS]
    listing.is_split = bool(splits)
    if splits:
        listing.missing_splits = sorted(set(SPLITS) - dict(splits).keys(), key=SPLITS.index)
        listing.ignored += len(top) - len(splits)
        classes = [(split, *entry) for split, path in splits for entry in listing.entries(path, folders=True)]
    else:
        classes = [("", *entry) for entry in top]
    for split, folder, path in classes:
        files = listing.entries(path, folders=False)
        images = [image for _, image in files if image.suffix.lower() in IMAGE_ENDINGS]
        listing.ignored += len(files) - len(images)
        if not images and path not in listing.unreadable:
            listing.empty_folders.append(f"{split}/{folder}".lstrip("/"))
        listing.records += [Record(p, split, folder, source_of(p, split, folder, source_key)) for p in images]
    return listing


def without_copies(records: Iterable[Record]) -> list[Record]:
    """Leaves out copies that a data set arrives with, where the original lies in the same split and class.

    Copies would count one recording several times, in val and test above all; augmentation makes them anew, from
    training records only.
    """
    records = list(records)
    originals = {(r.split, r.folder, r.source) for r in records if not r.is_copy}
    return [r for r in records if not (r.is_copy and (r.split, r.folder, r.source) in originals)]


def leaks(records: Iterable[Record], kind: str = "source") -> list[str]:
    """One line for each image (same bytes) or source, a ``kind``, that is in more than one split."""
    by_digest: dict[str, list[Record]] = defaultdict(list)
    by_source: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_source[record.source].append(record)
        if record.digest:
            by_digest[record.digest].append(record)
    images, sources = ({k: g for k, g in d.items() if len({r.split for r in g}) > 1} for d in (by_digest, by_source))
    reported = {record.path for group in images.values() for record in group}
    return [
        *(f"one image in two splits (same bytes): {_places(group)}" for group in images.values()),
        *(
            f"one {kind} in two splits ({kind} {source!r}): {_places(group)}"
            for source, group in sources.items()
            if not reported.issuperset(record.path for record in group)
        ),
    ]


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

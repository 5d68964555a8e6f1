"""Folder tree -> manifest: which records there are, before any image is opened; see `table` for another way."""

import hashlib
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
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
        split: ``train``, ``val``, ``test``, or empty while the data set is not split yet.
        folder: Name of the folder that it lies in, or its label in a table: its label before the mapping.
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
    """What lies in a data set's folder, or stands in its table.

    Attributes:
        records: Every image file, ordered by path.
        is_split: Whether the tree has split folders, or the table splits.
        has_sources: Whether a table has sources.
        groups: File -> its cell in the column of a table that ``data.group`` names; None without such a column.
        ignored: Hidden or non-image files, and folders too deep in the tree, which are not used.
        empty_folders: ``split/class`` of folders without an image.
        missing_splits: Which of train, val and test are not there, where at least one is.
        problems: A line for everything else that is wrong.
    """

    root: Path
    records: list[Record] = field(default_factory=list)
    is_split: bool = False
    has_sources: bool = False
    groups: Mapping[Path, str] | None = None
    ignored: list[str] = field(default_factory=list)
    empty_folders: list[str] = field(default_factory=list)
    missing_splits: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def entries(self, folder: Path, *, folders: bool) -> list[tuple[str, Path]]:
        """Folders or files in ``folder`` by name; notes what is ignored, and a folder that cannot be listed."""
        entries = []
        try:
            with os.scandir(folder) as listed:
                for entry in listed:
                    is_folder = os.path.isdir(entry)
                    if entry.name.startswith(".") or is_folder != folders:
                        self.ignore(folder / entry.name, is_folder)
                    else:
                        entries.append((nfc(entry.name), folder / entry.name))
        except OSError as error:
            self.problems.append(f"folder cannot be listed: {folder} ({error.strerror or error})")
        return sorted(entries)

    def ignore(self, path: Path, is_folder: bool) -> None:
        """Notes a file or folder that is not used."""
        self.ignored.append(path.relative_to(self.root).as_posix() + "/" * is_folder)


def nfc(name: str) -> str:
    """The same text on every system: macOS spells names decomposed, Linux and Windows mostly composed."""
    return unicodedata.normalize("NFC", name)


def first_of(names: Sequence[str]) -> str:
    """Up to five names, and the number of the others."""
    return ", ".join(names[:5]) + f" and {len(names) - 5} more" * (len(names) > 5)


def source_of(path: Path, folder: str, key: SourceKey = "name") -> str:
    """The source of an image file.

    Args:
        path: The file, relative to the data set's folder; the ending and the suffix of a copy (``_mirrored``,
            ``_double_l``, ``_double_r``) do not count.
        folder: Its class folder.
        key: ``name``: files of one name are one recording, wherever they lie. ``class_name``: names are unique in a
            class only. ``path``: names are unique in one folder only.

    Returns:
        The source's name.
    """
    stem = _original(path)
    if key == "name":
        return stem
    return f"{folder}/{stem}" if key == "class_name" else nfc((path.parent / stem).as_posix())


def _original(path: Path) -> str:
    """The name of a file without ending and without the suffix of a copy."""
    return _COPY_SUFFIX.sub("", nfc(path.stem))


def is_group_pattern(text: str) -> bool:
    """Whether a text is a regular expression with exactly one group."""
    with suppress(re.error):
        return re.compile(text).groups == 1
    return False


def grouped(
    records: Sequence[Record], listing: Scan, group: str, folders: Collection[str]
) -> tuple[list[Record], list[str]]:
    """Records whose source is their group: the cell of a table, or what a regular expression finds; and problems.

    Args:
        records: Records of any order.
        listing: The data set that they are from.
        group: The name of the column; else an expression with one group, over paths below the data set's folder with
            forward slashes, in a tree with split and class folder.
        folders: Class folders in which every record must have a group; elsewhere its source remains.
    """
    paths = [r.path.relative_to(listing.root).as_posix() for r in records]
    if listing.groups is not None:
        names = [listing.groups[r.path] for r in records]
    else:
        found = [re.search(group, nfc(path)) for path in paths]
        names = ["" if match is None else match[1] or "" for match in found]
    lines = []
    if missing := [
        path for path, r, name in zip(paths, records, names, strict=True) if not name and r.folder in folders
    ]:
        n = sum(r.folder in folders for r in records)
        lines.append(f"data.group: {group!r} gives no group to {len(missing)} of {n} files, e.g. {missing[0]}")
    groups_of: dict[str, set[str]] = defaultdict(set)
    for record, name in zip(records, names, strict=True):
        groups_of[record.source] |= {name} - {""}
    if not missing and (divided := sorted(source for source, groups in groups_of.items() if len(groups) > 1)):
        in_groups = ", ".join(sorted(groups_of[divided[0]]))
        way_out = "" if listing.has_sources else " (data.source_key=path makes each file a source)"
        lines.append(
            f"data.group: {group!r} divides {len(divided)} sources, e.g. {divided[0]} (groups {in_groups}); allowed: "
            f"groups of whole sources{way_out}"
        )
    return [replace(r, source=name or r.source) for r, name in zip(records, names, strict=True)], lines


def scan(root: Path, source_key: SourceKey = "name") -> Scan:
    """Lists ``root/{train,val,test}/<class>/*`` or, where none of the three is there, ``root/<class>/*``.

    Symbolic links are followed. Hidden files, files that are no images by their ending, and anything deeper are
    ``ignored``. No file is opened.
    """
    listing = Scan(root)
    top = listing.entries(root, folders=True)
    splits = [(name, path) for name, path in top if name in SPLITS]
    listing.is_split = bool(splits)
    if splits:
        listing.missing_splits = sorted(set(SPLITS) - dict(splits).keys(), key=SPLITS.index)
        for name, path in top:
            if name not in SPLITS:
                listing.ignore(path, is_folder=True)
        classes = [(split, *entry) for split, path in splits for entry in listing.entries(path, folders=True)]
    else:
        classes = [("", *entry) for entry in top]
    for split, folder, path in classes:
        n_problems, images = len(listing.problems), list[Path]()
        for _, file in listing.entries(path, folders=False):
            if _is_image(file):
                images.append(file)
            else:
                listing.ignore(file, is_folder=False)
        if not images and len(listing.problems) == n_problems:
            listing.empty_folders.append(f"{split}/{folder}".lstrip("/"))
        sources = [source_of(file.relative_to(root), folder, source_key) for file in images]
        listing.records += [Record(p, split, folder, source) for p, source in zip(images, sources, strict=True)]
    # Folders and images first: they may have been meant.
    listing.ignored.sort(
        key=lambda name: (Path(name).name[0] == ".", not name.endswith("/") and not _is_image(Path(name)), name)
    )
    if not listing.records:
        listing.problems.append(
            f"no images found (ignored: {first_of(listing.ignored) or 'nothing'}); allowed: DIR/<class>/* or "
            "DIR/{train,val,test}/<class>/* with PNG, JPEG, TIFF, BMP or WebP files"
        )
    return listing


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_ENDINGS


def without_copies(records: Iterable[Record]) -> list[Record]:
    """Leaves out copies that a data set arrives with, where the original lies in the same split and class.

    Copies would count one recording several times, in val and test above all; augmentation makes them anew, from
    training records only.
    """
    records = list(records)
    # A source of a table may have several records: a copy is that of one name.
    keys = [(r.split, r.folder, r.source, _original(r.path)) for r in records]
    originals = {key for key, r in zip(keys, records, strict=True) if not r.is_copy}
    return [r for key, r in zip(keys, records, strict=True) if not (r.is_copy and key in originals)]


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

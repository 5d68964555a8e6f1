"""A folder of images -> a checked, mapped, split data set, or one report of everything that is wrong with it."""

from collections import Counter
from collections.abc import Mapping as MappingType
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import ConfigDict, Field

from spectro.data.decode import ImageSpec
from spectro.data.images import Images, ImageStore, file_digest
from spectro.data.manifest import SPLITS, Record, SourceKey, fingerprint, leaks, scan, without_copies
from spectro.data.mapping import Mapping
from spectro.data.splits import split_records, with_training
from spectro.errors import DataError


@dataclass(frozen=True)
class Split:
    """Shares of sources for a data set that comes without splits; the rest is train."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    val: Annotated[float, Field(gt=0, lt=1, strict=True)] = 0.2
    test: Annotated[float, Field(gt=0, lt=1, strict=True)] = 0.2
    seed: Annotated[int, Field(ge=0, strict=True)] = 0


@dataclass(frozen=True)
class Dataset:
    """Checked records with their images.

    Attributes:
        root: The folder.
        records: Every record used, with its class and split.
        store: Their images.
        split_here: Whether the splits were drawn, and not given by folders.
        ignored: How many hidden, non-image or too deep entries were passed over.
        copies: How many mirrored or doubled copies on disk were left out because their original is there.
        left_out: Bad files that were left out on request: path -> reason.
        warnings: Things that are no error but should be read.
        fingerprint: Names exactly these images, labels and splits.
    """

    root: Path
    records: Sequence[Record]
    store: ImageStore
    split_here: bool
    ignored: int
    copies: int
    left_out: MappingType[str, str]
    warnings: Sequence[str]
    fingerprint: str

    @property
    def classes(self) -> list[str]:
        """The classes, sorted."""
        return sorted({record.label for record in self.records})

    def of(self, split: str) -> list[Record]:
        """The records of one split, ordered by path."""
        return [record for record in self.records if record.split == split]

    def counts(self) -> dict[str, dict[str, int]]:
        """Split -> class -> number of records, every class in every split."""
        counts = Counter((record.split, record.label) for record in self.records)
        return {split: {label: counts[split, label] for label in self.classes} for split in SPLITS}

    def name_of(self, record: Record) -> str:
        """A record's path below the root, with forward slashes."""
        return record.path.relative_to(self.root).as_posix()

    def images(self, records: Sequence[Record]) -> Images:
        """The images of some records, as the ``X`` of an estimator."""
        return Images(self.store, [record.digest for record in records])


def labels_of(records: Sequence[Record]) -> np.ndarray:
    """The ``y`` of an estimator: the class of each record, as text."""
    return np.array([record.label for record in records], dtype=object)


def load_folder(
    root: Path,
    mapping: Mapping,
    *,
    store: ImageStore,
    specs: Sequence[ImageSpec] = (),
    split: Split | None = None,
    source_key: SourceKey = "name",
    skip_bad_files: bool = False,
) -> Dataset:
    """Reads and checks ``root/{train,val,test}/<class>/*`` or ``root/<class>/*``.

    Args:
        root: The data set's folder.
        mapping: Folders -> classes.
        store: Where the images go.
        specs: The geometries in which images will be read; all are made from one decoding.
        split: How to split a data set that has no splits.
        source_key: What makes two files one recording, see `spectro.data.manifest.source_of`.
        skip_bad_files: Leave out files that give no image and list them, instead of refusing the data set.

    Returns:
        The data set.

    Raises:
        DataError: Lists every problem: no such folder, missing splits, folders that the mapping does not know, classes
            without images, files that give no image, one image or one source in two splits.
    """
    if not root.is_dir():
        raise DataError(f"data.root: got {str(root)!r}; allowed: a folder that exists")
    try:
        listing = scan(root, source_key)
    except OSError as error:
        raise DataError(f"data.root={root}: cannot be listed ({error.strerror or error})") from error
    if not listing.records:
        raise DataError(
            f"data.root={root}: no images found ({listing.ignored} other entries); allowed: "
            "DIR/{train,val,test}/<class>/* or DIR/<class>/* with PNG, JPEG, TIFF, BMP or WebP files"
        )
    problems = [f"split folder missing: {root / name}" for name in listing.missing_splits]
    problems += [f"folder cannot be listed: {path} ({reason})" for path, reason in listing.unreadable.items()]
    label_of, unmapped = mapping.label_of({record.folder for record in listing.records})
    problems += unmapped
    # A class without images in val or test alone is normal.
    filled_folders = {record.folder for record in listing.records} | set(mapping.left_out)
    empty = [folder for folder in listing.empty_folders if folder.rsplit("/", 1)[-1] not in filled_folders]
    problems += [f"folder without images: {folder}" for folder in empty]

    records, bad = _read_digests(listing.records, root, store.max_file_bytes)
    used = {record.path for record in listing.records if record.folder in label_of}
    bad = [(path, reason) for path, reason in bad if path in used]
    records, copies = without_copies(records)
    if not listing.is_split:
        split = split or Split()
        records = split_records(records, val=split.val, test=split.test, seed=split.seed)
    # Splitting comes before leaving folders out: the same data are split the same way under every mapping.
    records = [replace(r, label=label_of[r.folder]) for r in records if r.folder in label_of]
    bad += sorted(store.add([r.path for r in records], [r.digest for r in records], specs).items())
    bad_paths = {path for path, _ in bad}
    left_out = {_printable(path.relative_to(root)): reason for path, reason in bad}
    if not skip_bad_files:
        problems += [f"bad file: {name}: {reason}" for name, reason in left_out.items()]
        # Two files of zero bytes are no image in two splits, but their names may still give a leak away.
        problems += leaks(replace(r, digest="") if r.path in bad_paths else r for r in records)
    records = [record for record in records if record.path not in bad_paths]
    if skip_bad_files:
        problems += leaks(records)
    if not listing.is_split:
        records = with_training(records)
    elif records:
        filled = {record.split for record in records} | set(listing.missing_splits)
        problems += [f"split without images: {root / name}" for name in SPLITS if name not in filled]
    problems += _untrainable(records, set(label_of.values()), mapping)
    if problems:
        raise DataError(_report(root, problems, bad_files=0 if skip_bad_files else len(bad)))
    return Dataset(
        root=root,
        records=records,
        store=store,
        split_here=not listing.is_split,
        ignored=listing.ignored,
        copies=copies,
        left_out=left_out,
        warnings=[
            *_oddities(records, listing.ignored, copies, left_out),
            *([] if listing.is_split else _split_here(records)),
        ],
        fingerprint=fingerprint(records),
    )


def _printable(path: Path) -> str:
    """A path as text that every terminal and file takes: one line, valid UTF-8."""
    text = path.as_posix().encode(errors="backslashreplace").decode()
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _read_digests(
    records: Sequence[Record], root: Path, max_file_bytes: int
) -> tuple[list[Record], list[tuple[Path, str]]]:
    readable, bad = [], []
    for record in records:
        try:
            str(record.path.relative_to(root)).encode()
            size = record.path.stat().st_size
            if size == 0 and record.path.is_file():
                # Before splitting: all empty files have the same bytes and would stay together in one split.
                bad.append((record.path, "zero bytes"))
                continue
            if size > max_file_bytes:
                bad.append((record.path, f"absurdly large ({size / 1e6:.0f} MB, see data.max_megapixels)"))
                continue
            readable.append(replace(record, digest=file_digest(record.path)))
        except OSError as error:
            bad.append((record.path, f"cannot be opened ({error.strerror or error})"))
        except UnicodeEncodeError:
            bad.append((record.path, "its name is not valid UTF-8; rename it"))
    return readable, bad


def _untrainable(records: Sequence[Record], labels: set[str], mapping: Mapping) -> list[str]:
    """Classes without training records."""
    places: dict[str, set[str]] = {label: set() for label in labels}
    for record in records:
        places[record.label].add(record.split)
    missing = sorted(label for label, splits in places.items() if "train" not in splits)
    return [
        f"class {label!r} has no training images (found in: {', '.join(sorted(places[label])) or 'no split'}); "
        "name its folder in mapping.left_out to leave it out"
        for label in missing
    ]


def _oddities(records: Sequence[Record], ignored: int, copies: int, left_out: MappingType[str, str]) -> list[str]:
    lines = []
    if ignored:
        lines.append(f"{ignored} hidden, non-image or misplaced entries were ignored")
    if copies:
        lines.append(f"{copies} mirrored or doubled copies were left out: their originals are there")
    if left_out:
        lines.append(f"{len(left_out)} bad files were left out (listed in run.json)")
    by_digest: dict[str, list[Record]] = {}
    for record in records:
        by_digest.setdefault(record.digest, []).append(record)
    twins = [group for group in by_digest.values() if len(group) > 1]
    if twins:
        lines.append(f"{len(twins)} images lie in one split more than once, e.g. {twins[0][0].path.name}")
    conflicts = [group for group in twins if len({record.label for record in group}) > 1]
    if conflicts:
        labels = " and ".join(sorted({record.label for record in conflicts[0]}))
        lines.append(f"{len(conflicts)} images carry two labels, e.g. {conflicts[0][0].path.name}: {labels}")
    return lines


def _split_here(records: Sequence[Record]) -> list[str]:
    """How a set that came without splits was split, and a hint where its names may mislead.

    Files of one name in several classes may be no more than files that are numbered anew in each folder.
    """
    labels_of_source: dict[str, set[str]] = {}
    for record in records:
        labels_of_source.setdefault(record.source, set()).add(record.label)
    shared = [source for source, labels in labels_of_source.items() if len(labels) > 1]
    counts = Counter(record.split for record in records)
    sizes = ", ".join(f"{split} {counts[split]}" for split in SPLITS)
    lines = [f"the data came without train, val and test and were split here: {sizes} records"]
    if 2 * len(shared) < len(labels_of_source):
        return lines
    return [
        *lines,
        f"{len(shared)} of {len(labels_of_source)} sources have images in several classes, e.g. {shared[0]}, and "
        "were kept together; if they are different recordings of one name, set data.source_key=class_name",
    ]


def _report(root: Path, problems: Sequence[str], bad_files: int) -> str:
    lines = [f"data.root={root}: {len(problems)} problem{'s' if len(problems) > 1 else ''}"]
    lines += [f"  - {problem}" for problem in problems]
    if bad_files:
        lines.append(f"data.on_bad_file=skip leaves the {bad_files} bad file{'s' if bad_files > 1 else ''} out.")
    if any(problem.startswith("one source") for problem in problems):
        lines.append("If names are unique in a class or folder only, set data.source_key=class_name or path.")
    return "\n".join(lines)

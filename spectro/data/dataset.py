"""Folder or table of images -> a checked, mapped, split data set, or one report of everything wrong with it."""

from collections import Counter, defaultdict
from collections.abc import Mapping as MappingType
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import ConfigDict, Field

from spectro.data.decode import ImageSpec
from spectro.data.images import Images, ImageStore, file_digest
from spectro.data.manifest import (
    SPLITS,
    Record,
    SourceKey,
    fingerprint,
    first_of,
    grouped,
    is_group_pattern,
    leaks,
    scan,
    without_copies,
)
from spectro.data.mapping import Mapping
from spectro.data.splits import split_records, with_training
from spectro.data.table import read_table
from spectro.errors import DataError

# Of fewer sources in a split next to nothing is known of others.
_FEW_SOURCES = 3


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
        records: Every record used, with its class and split.
        store: Their images.
        split_here: Whether the splits were drawn, and not given by folders.
        ignored: Hidden, non-image or too deep entries that were passed over.
        copies: How many mirrored or doubled copies on disk were left out because their original is there.
        left_out: Bad files that were left out on request: path -> reason.
        has_sources: Whether the sources are given, by a table or by ``data.group``, and not made from names.
        table: The table that lists the records; None for a folder tree.
    """

    root: Path
    records: Sequence[Record]
    store: ImageStore
    split_here: bool
    ignored: Sequence[str]
    copies: int
    left_out: MappingType[str, str]
    has_sources: bool = False
    table: Path | None = None

    @cached_property
    def fingerprint(self) -> str:
        """Names exactly these images, labels and splits."""
        return fingerprint(self.records)

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

    @property
    def warnings(self) -> list[str]:
        """Things that are no error but should be read."""
        lines = []
        if len(self.classes) == 1:
            lines.append(f"the data have one class, {self.classes[0]}: every model predicts it, and every score is 1")
        if self.ignored:
            names = first_of([_printable(name) for name in self.ignored])
            reasons = "hidden, no image by its ending, or not directly in a class folder"
            lines.append(f"ignored, as each is {reasons}: {names}")
        if self.copies:
            lines.append(f"mirrored or doubled copies left out, as their originals are there: {self.copies}")
        if self.left_out:
            lines.append(f"bad files left out: {len(self.left_out)} (listed in run.json)")
        by_digest, labels_of_source = defaultdict(list), defaultdict(set)
        for record in self.records:
            by_digest[record.digest].append(record)
            labels_of_source[record.source].add(record.label)
        twins = [group for group in by_digest.values() if len(group) > 1]
        if twins:
            lines.append(f"images that lie in one split more than once: {len(twins)}, e.g. {twins[0][0].path.name}")
        conflicts = [group for group in twins if len({record.label for record in group}) > 1]
        if conflicts:
            labels = " and ".join(sorted({record.label for record in conflicts[0]}))
            lines.append(f"images with two labels: {len(conflicts)}, e.g. {conflicts[0][0].path.name}: {labels}")
        sources = {split: len({record.source for record in self.of(split)}) for split in SPLITS}
        if few := [f"{split} {n}" for split, n in sources.items() if self.has_sources and 0 < n < _FEW_SOURCES]:
            lines.append(
                f"few sources: {', '.join(few)}; scores of so few say next to nothing of another one. "
                "validation=leave_one_group_out evaluates each in turn, with data.group, such as data.group=source"
            )
        if self.split_here:
            sizes = ", ".join(f"{split} {len(self.of(split))}" for split in SPLITS)
            lines.append(f"the data came without train, val and test and were split here: {sizes} records")
            # Files of one name in several classes may be no more than files that are numbered anew in each folder.
            shared = [source for source, labels in labels_of_source.items() if len(labels) > 1]
            if 2 * len(shared) >= len(labels_of_source) and not self.has_sources:
                lines.append(
                    f"{len(shared)} of {len(labels_of_source)} sources have images in several classes, e.g. "
                    f"{shared[0]}, and were kept together; if they are different recordings of one name, set "
                    "data.source_key=class_name"
                )
        return lines


def labels_of(records: Sequence[Record]) -> np.ndarray:
    """The ``y`` of an estimator: the class of each record, as text."""
    return np.array([record.label for record in records], dtype=object)


def load_dataset(
    root: Path,
    mapping: Mapping,
    *,
    store: ImageStore,
    table: Path | None = None,
    specs: Sequence[ImageSpec] = (),
    split: Split | None = None,
    source_key: SourceKey = "name",
    group: str | None = None,
    skip_bad_files: bool = False,
) -> Dataset:
    """Reads and checks ``root/{train,val,test}/<class>/*``, ``root/<class>/*`` or the files of a table.

    Args:
        table: Lists the files below ``root``, see `spectro.data.table.read_table`.
        specs: The geometries in which images will be read; all are made from one decoding.
        split: How to split a data set that has no splits.
        source_key: What makes two files one recording, see `spectro.data.manifest.source_of`.
        group: A regular expression whose one group names, in a file's path below the root, what must stay together
            beyond one recording, such as a station, or the column of a table with that name; it takes the place of the
            source in everything that follows.
        skip_bad_files: Leave out files that give no image and list them, instead of refusing the data set.

    Raises:
        DataError: Lists every problem: no such folder, missing splits, folders that are not mapped, classes without
            images, files that give no image, one image or one source in two splits.
    """
    if not root.is_dir():
        raise DataError(f"data.root: got {str(root)!r}; allowed: a folder that exists")
    listing = scan(root, source_key) if table is None else read_table(table, root, source_key, group)
    place = f"data.root={root}" if table is None else f"data.table={table}"
    problems = list(listing.problems)
    if not listing.records:
        raise DataError(_report(place, problems))
    problems += [f"split missing: {name}" for name in listing.missing_splits]
    folders = {record.folder for record in listing.records}
    label_of, unmapped = mapping.label_of(folders)
    # A class without images in val or test alone is normal.
    empty = [path for path in listing.empty_folders if path.split("/")[-1] not in folders | set(mapping.left_out)]
    problems += [*unmapped, *(f"folder without images: {path}" for path in empty)]

    digests, bad = _read_digests(listing.records, root, store.max_megapixels)
    readable = [replace(r, digest=digests[r.path]) for r in listing.records if r.path in digests]
    records = without_copies(readable)
    n_copies = len(readable) - len(records)
    # What is neither a column nor an expression is a problem already.
    if group is not None and (listing.groups is not None or is_group_pattern(group)):
        records, wrong = grouped(records, listing, group, label_of)
        problems += wrong
    if not listing.is_split:
        split = split or Split()
        records = split_records(records, val=split.val, test=split.test, seed=split.seed)
    # Splitting comes before leaving folders out: the same data are split the same way under every mapping.
    records = [replace(r, label=label_of[r.folder]) for r in records if r.folder in label_of]
    bad = {r.path: bad[r.path] for r in listing.records if r.path in bad and r.folder in label_of}
    bad |= sorted(store.add([r.path for r in records], [r.digest for r in records], specs).items())
    left_out = {_printable(path.relative_to(root).as_posix()): reason for path, reason in bad.items()}
    has_sources = listing.has_sources or group is not None
    good = [record for record in records if record.path not in bad]
    kind = "source" if group is None else "group"
    if skip_bad_files:
        problems += leaks(good, kind)
    else:
        problems += [f"bad file: {name}: {reason}" for name, reason in left_out.items()]
        # Two broken files of the same bytes are no image in two splits, but their names may still give a leak away.
        problems += leaks((replace(r, digest="") if r.path in bad else r for r in records), kind)
    if not listing.is_split:
        good = with_training(good)
    elif good:
        filled = {record.split for record in good} | set(listing.missing_splits)
        problems += [f"split without images: {name}" for name in SPLITS if name not in filled]
    for label in sorted(set(label_of.values()) - {record.label for record in good if record.split == "train"}):
        places = sorted({record.split for record in good if record.label == label})
        problems.append(
            f"class {label!r} has no training images (found in: {', '.join(places) or 'no split'}); mapping.left_out "
            "leaves it out"
        )
    if problems:
        raise DataError(_report(place, problems, has_sources))
    return Dataset(
        root,
        good,
        store,
        split_here=not listing.is_split,
        ignored=listing.ignored,
        copies=n_copies,
        left_out=left_out,
        has_sources=has_sources,
        table=table,
    )


def _read_digests(
    records: Sequence[Record], root: Path, max_megapixels: float
) -> tuple[dict[Path, str], dict[Path, str]]:
    """The digests of files, and for those that cannot be read the reason."""
    # More than the largest image allowed can fill: 16-bit RGBA without compression, and as much for the rest.
    max_bytes = max_megapixels * 16e6 + (1 << 20)
    digests, bad = {}, {}
    for path in (record.path for record in records):
        try:
            path.relative_to(root).as_posix().encode()
            size = path.stat().st_size
            if size == 0 and path.is_file():
                # Before splitting: all empty files have the same bytes and would stay together in one split.
                bad[path] = "zero bytes"
            elif size > max_bytes:
                bad[path] = f"absurdly large ({size / 1e6:.0f} MB, see data.max_megapixels)"
            else:
                digests[path] = file_digest(path)
        except OSError as error:
            bad[path] = f"cannot be opened ({error.strerror or error})"
        except UnicodeEncodeError:
            bad[path] = "its name is not valid UTF-8; rename it"
    return digests, bad


def _printable(text: str) -> str:
    """A path as text that every terminal and file takes: one line, valid UTF-8."""
    text = text.encode(errors="backslashreplace").decode()
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _report(place: str, problems: Sequence[str], has_sources: bool = True) -> str:
    lines = [f"{place}: {len(problems)} problem{'s' * (len(problems) > 1)}"]
    lines += [f"  - {problem}" for problem in problems]
    if n_bad := sum(problem.startswith("bad file") for problem in problems):
        lines.append(f"data.on_bad_file=skip leaves the {n_bad} bad file{'s' * (n_bad > 1)} out.")
    if not has_sources and any(problem.startswith("one source") for problem in problems):
        lines.append("If names are unique in a class or folder only, set data.source_key=class_name or path.")
    if any(problem.startswith("one group") for problem in problems):
        lines.append("Where the data have no splits (DIR/<class>/*, no column split) these are drawn by group.")
    return "\n".join(lines)

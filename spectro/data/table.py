"""A table of files and labels -> manifest: another way to list records than a folder tree."""

import os
from collections import Counter
from pathlib import Path

from spectro.data.manifest import SPLITS, Record, Scan, SourceKey, first_of, is_group_pattern, nfc, source_of
from spectro.files import read_csv
from spectro.knobs import did_you_mean

_NEEDED = ("path", "label")
_COLUMNS = (*_NEEDED, "split", "source")


def read_table(path: Path, root: Path, source_key: SourceKey = "name", group: str | None = None) -> Scan:
    """Lists the files of a table; none of them is opened.

    Args:
        path: CSV in UTF-8, with tabs in place of commas if its name ends in ``.tsv``. Columns: ``path``, ``label`` and,
            where known, ``split`` and ``source``; further ones are passed over.
        root: The folder that relative paths begin at, and that all files are below.
        source_key: What makes two files one recording where no sources are given, see `source_of`.
        group: A column whose cells take the place of the source; a regular expression is left to `grouped`.

    Returns:
        The records, ordered by path, and a problem for each kind of mistake.
    """
    listing = Scan(root)
    problem = listing.problems.append
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        cells = [{name.strip(): cell.strip() for name, cell in row.items()} for row in read_csv(path, separator)]
    except (OSError, ValueError) as error:
        is_text = not isinstance(error, UnicodeDecodeError)
        reason = (getattr(error, "strerror", None) or error) if is_text else "not text in UTF-8"
        problem(f"cannot be read ({reason}); allowed: CSV in UTF-8, or with tabs in a file NAME.tsv")
        return listing
    # Spreadsheets leave rows without any text.
    rows = [row for row in cells if any(row.values())]
    header = list(rows[0]) if rows else []
    if missing := [name for name in _NEEDED if name not in header]:
        got = f"no column {' and no column '.join(missing)} (columns: {', '.join(header)})" if header else "no rows"
        between = "commas" if separator == "," else "tabs"
        problem(f"{got}; allowed: path, label and, where known, split and source, with {between} between them")
        return listing
    given = [name for name in _COLUMNS if name in _NEEDED or any(row.get(name) for row in rows)]
    listing.is_split, listing.has_sources = "split" in given, "source" in given
    for name in given:
        if empty := [row["path"] or "?" for row in rows if not row[name]]:
            problem(f"{name} is empty in {len(empty)} of {len(rows)} rows: {first_of(empty)}")
    wrong = {row["split"] for row in rows if listing.is_split} - {"", *SPLITS}
    if wrong:
        problem(f"split: got {first_of(sorted(wrong))}; allowed: {', '.join(SPLITS)}")
    rows = [row for row in rows if all(row[name] for name in given) and row.get("split") not in wrong]
    places = [Path(os.path.normpath(root / Path(row["path"]).expanduser())) for row in rows]
    if outside := [row["path"] for row, place in zip(rows, places, strict=True) if root not in place.parents]:
        problem(f"not below {root}: {first_of(outside)}; data.root=DIR names a folder above all files")
    if twice := [os.path.relpath(place, root) for place, count in Counter(places).items() if count > 1]:
        problem(f"a path in several rows: {first_of(twice)}")
    row_of = dict(zip(reversed(places), reversed(rows), strict=True))  # the first row of each
    of_place = {place: row_of[place] for place in sorted(row_of) if root in place.parents}
    if of_place and not any(place.exists() for place in of_place):
        first = next(iter(of_place))
        problem(f"none of its {len(of_place)} files exists, e.g. {first}; data.root=DIR names where the paths begin")
        return listing
    if listing.is_split and not wrong:
        listing.missing_splits = [split for split in SPLITS if all(row["split"] != split for row in rows)]
    for place, row in of_place.items():
        label = nfc(row["label"])
        source = nfc(row["source"]) if listing.has_sources else source_of(place.relative_to(root), label, source_key)
        listing.records.append(Record(place, row["split"] if listing.is_split else "", label, source))
    if group in header:
        listing.groups = {place: nfc(row[group]) for place, row in of_place.items()}
    elif group is not None and not is_group_pattern(group):
        problem(
            f"data.group: got {group!r}; allowed: a column ({', '.join(header)}), or a regular expression with one "
            f"group in parentheses{did_you_mean(group, header)}"
        )
    return listing

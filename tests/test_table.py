"""A table of files and labels: the same records as folders give, or one report of everything that is wrong with it."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import make_tree, save_image
from hypothesis import given
from hypothesis import strategies as st

from spectro.data.dataset import Dataset, load_dataset
from spectro.data.images import ImageStore
from spectro.data.manifest import SPLITS
from spectro.data.mapping import Mapping
from spectro.data.table import read_table
from spectro.errors import DataError
from spectro.files import write_csv

UNSPLIT = {"a": 5, "b": 4}
SPLIT_TREE = {split: {"a": 3, "b": 2} for split in SPLITS}


def load(table: Path, mapping: Mapping | None = None, **options) -> Dataset:
    return load_dataset(
        options.pop("root", table.parent), mapping or Mapping(), store=ImageStore(), table=table, **options
    )


def report(table: Path, **options) -> list[str]:
    with pytest.raises(DataError) as caught:
        load(table, **options)
    return str(caught.value).splitlines()


def written(folder: Path, header: str, rows: Sequence[Sequence[str]], name: str = "labels.csv") -> Path:
    write_csv(folder / name, header.split(), rows)
    return folder / name


@pytest.mark.parametrize("tree", [UNSPLIT, SPLIT_TREE], ids=["unsplit", "split"])
def test_a_table_gives_the_records_that_folders_give(tmp_path: Path, tree) -> None:
    """A fingerprint or a split that depended on how the files are listed would make two data sets of one."""
    root = make_tree(tmp_path / "records", tree)
    by_folders = load_dataset(root, Mapping(), store=ImageStore())
    places = [path.relative_to(root).parts for path in root.rglob("*.png")]
    rows = [["/".join(parts), *reversed(parts[:-1])] for parts in reversed(places)]
    by_table = load(written(tmp_path, "path label split"[: 10 + 6 * (tree is SPLIT_TREE)], rows), root=root)
    assert by_table.records == by_folders.records
    assert by_table.split_here == (tree is UNSPLIT)
    # What a run leaves is such a table, and repeats a split that was drawn.
    names = [[r.split, by_table.name_of(r), r.source, r.label] for r in by_table.records]
    again = load(written(tmp_path, "split path source label", names, "records.csv"), root=root)
    assert (again.fingerprint, again.split_here) == (by_table.fingerprint, False)


def test_what_spreadsheets_write_is_read(tmp_path: Path) -> None:
    """A byte order mark, tabs, empty rows, spaces around cells and columns of other things."""
    root = make_tree(tmp_path / "records", {"a": 3, "b": 3})
    lines = [
        "\ufefflabel\t path \tremark",
        *(f"{p.parent.name} \t{p.relative_to(tmp_path)}\tx" for p in root.rglob("*.png")),
    ]
    table = tmp_path / "labels.tsv"
    table.write_text("\r\n".join([*lines, "\t\t", ""]), encoding="utf-8")
    assert load(table).counts()["train"].keys() == {"a", "b"}


def test_sources_and_groups_of_a_table(tmp_path: Path) -> None:
    """A source whose records lie in two splits is a leak; a column can name what else stays together."""
    for number in range(12):
        save_image(tmp_path / f"{number}_mirrored.png", seed=number)
    rows = [[f"{n}_mirrored.png", "xy"[n % 2], f"s{n // 2}", "NSE"[n // 4]] for n in range(12)]
    table = written(tmp_path, "path label source station", rows)
    data = load(table)
    # Records of one source are no copies of each other for their names.
    assert (len(data.records), {r.source for r in data.records}) == (12, {f"s{n}" for n in range(6)})
    grouped = load(table, group="station")
    assert {r.source for r in grouped.records} == set("NSE")
    assert all(len({r.split for r in grouped.records if r.source == name}) == 1 for name in "NSE")
    assert any(line.startswith("few sources: train 1, val 1, test 1; ") for line in grouped.warnings)
    assert "divides 6 sources" in report(table, group="^([0-9]+)")[1]
    assert "did you mean station?" in report(table, group="statoin")[1]
    split = written(tmp_path, "path label source split", [[*row[:3], SPLITS[n % 3]] for n, row in enumerate(rows)])
    head, *lines = report(split)
    assert head == f"data.table={split}: 6 problems"
    assert "one source in two splits (source 's0'): " in lines[0]
    assert not any("data.source_key" in line for line in lines)


def test_every_kind_of_problem_is_in_one_report(tmp_path: Path) -> None:
    """Who made several mistakes should not need several starts to learn of them."""
    root = make_tree(tmp_path / "records", {"a": 6})
    images = sorted(str(path.relative_to(tmp_path)) for path in root.rglob("*.png"))
    (tmp_path / "notes.png").write_text("no image")
    shutil.copy(tmp_path / images[0], tmp_path / "same.png")
    rows = [
        *([images[0], "a", "train"], [images[1], "", "train"], [images[2], "a", "dev"], [images[3], "a", ""]),
        *(["", "a", "val"], ["../out.png", "a", "test"], [images[0], "b", "val"], ["gone.png", "a", "train"]),
        *(["notes.png", "a", "train"], ["same.png", "a", "test"], [images[4], "a", "val"]),
    ]
    head, *lines = report(written(tmp_path, "path label split", rows))
    assert head.endswith("labels.csv: 9 problems")
    for part in (
        "path is empty in 1 of 11 rows: ?",
        f"label is empty in 1 of 11 rows: {images[1]}",
        f"split is empty in 1 of 11 rows: {images[3]}",
        "split: got dev; allowed: train, val, test",
        f"not below {tmp_path}: ../out.png; data.root=DIR",
        f"a path in several rows: {images[0]}",
        "bad file: gone.png: cannot be opened (No such file",
        "bad file: notes.png: not a PNG",
        "one image in two splits (same bytes): ",
    ):
        assert sum(line.startswith(f"  - {part}") for line in lines) == 1, part


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"path,class\na.png,x\n", ["no column label (columns: path, class)", "allowed: path, label"]),
        (b"path;label\na.png;x\n", ["no column path and no column label (columns: path;label)", "with commas"]),
        (b"", ["no rows", "allowed: path, label"]),
        (b"path,label\n", ["no rows", "allowed: path, label"]),
        (b"path,label\na.png,x,y\n", ["line 2: ", "needs quotes"]),
        (b"path,label\na.png,\xff\n", ["not text in UTF-8"]),
        (b"PK\x03\x04\xff\0", ["cannot be read (not text in UTF-8)", "allowed: CSV in UTF-8"]),
        (b"path,label\na.png,x\nb.png,y\n", ["none of its 2 files exists, e.g. ", "a.png", "data.root=DIR"]),
        (None, ["cannot be read (No such file", "allowed: CSV in UTF-8"]),
    ],
)
def test_a_table_that_lists_nothing_is_explained(tmp_path: Path, content: bytes | None, parts: list[str]) -> None:
    table = tmp_path / "labels.csv"
    if content is not None:
        table.write_bytes(content)
    head, line = report(table)
    assert head == f"data.table={table}: 1 problem"
    for part in parts:
        assert part in line


CELLS = {
    "path": st.sampled_from(["a.png", "./a.png", "b.png", "c.png", "../d.png", "", "\0"]),
    "label": st.sampled_from(["x", "y", ""]),
    "split": st.sampled_from(["train", "val", "test", "", "dev"]),
    "source": st.sampled_from(["s", "t", ""]),
}


@given(st.sets(st.sampled_from(["split", "source"])), st.data())
def test_every_row_is_a_record_or_in_a_problem(tmp_path_factory: pytest.TempPathFactory, optional, data) -> None:
    """A row that is silently passed over is a record that nobody misses."""
    folder = tmp_path_factory.getbasetemp() / "any"
    folder.mkdir(exist_ok=True)
    for name in ("a.png", "b.png"):
        (folder / name).touch()
    header = ["path", "label", *sorted(optional)]
    rows = data.draw(st.lists(st.tuples(*(CELLS[name] for name in header)), min_size=1, max_size=6))
    listing = read_table(written(folder, " ".join(header), rows), folder)
    assert listing.problems or len(listing.records) == sum(any(row) for row in rows)

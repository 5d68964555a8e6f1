"""Folder tree -> records: what is listed, what is passed over, what counts as one recording, what leaks."""

import os
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectro.data.manifest import Record, fingerprint, leaks, scan, source_of, without_copies

SPLIT_TREE = {"train": {"a": 2, "b": 1}, "val": {"a": 1}, "test": {"b": 1}}


def record(name: str, split: str = "train", folder: str = "a", digest: str = "") -> Record:
    path = Path("root", split, folder, name)
    return Record(path, split, folder, source_of(Path(split, folder, name), folder), digest)


def test_a_tree_without_splits_leaves_the_split_open(tree):
    root = tree({"a": 2, "b": 1, "c": 0})
    (root / "notes.txt").touch()
    listing = scan(root)
    assert {(r.split, r.folder) for r in listing.records} == {("", "a"), ("", "b")}
    assert (listing.is_split, listing.ignored, listing.empty_folders) == (False, ["notes.txt"], ["c"])


def test_what_is_missing_of_a_split_tree(tree):
    listing = scan(tree({"train": {"a": 1, "b": 0}, "others": 1, "test": {"a": 0}}))
    assert (listing.missing_splits, set(listing.empty_folders)) == (["val"], {"train/b", "test/a"})


def test_hidden_foreign_and_deep_entries_are_named_not_read(tree):
    """Folders and images come first: they may have been meant to be records, hidden files were not."""
    root = tree(SPLIT_TREE)
    (root / "notes.txt").touch()  # beside the splits
    (root / "extra").mkdir()  # a folder beside the splits
    (root / "train" / ".DS_Store").touch()
    (root / "train" / "loose.png").touch()  # in no class
    (root / "train" / "a" / "notes.csv").touch()
    (root / "train" / "a" / ".hidden.png").touch()
    (root / "train" / "a" / "train").mkdir()  # a class is no place for a split
    (root / "train" / "a" / "folder.PNG").mkdir()
    (root / "train" / "loop").symlink_to("loop")
    listing = scan(root)
    assert len(listing.records) == 5
    assert listing.ignored == [
        *("extra/", "train/a/folder.PNG/", "train/a/train/", "train/loose.png"),
        *("notes.txt", "train/a/notes.csv", "train/loop", "train/a/.hidden.png", "train/.DS_Store"),
    ]


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("a.png", "a"),
        ("a_mirrored.png", "a"),
        ("a_double_l.tif", "a"),
        ("a_double_r.JPG", "a"),
        ("a_mirrored_double_l.png", "a"),
        ("_mirrored.png", "_mirrored"),
        ("a_mirrored_.png", "a_mirrored_"),
        ("a_mirrored\n.png", "a_mirrored\n"),
        ("amirrored.png", "amirrored"),
        ("a.v2.png", "a.v2"),
    ],
)
def test_copies_share_the_source_of_their_original(name, source):
    assert source_of(Path(name), "x") == source
    assert record(name).is_copy == (source != Path(name).stem)


def test_copies_go_only_where_their_original_is():
    records = [
        record("a.png"),
        record("a_mirrored.png"),  # its original is there
        record("a_double_l.png", folder="b"),  # another class
        record("a_double_r.png", split="val"),  # another split: stays, so that the leak is seen
        record("c_mirrored.png"),  # no original at all
    ]
    names = [r.path.name for r in without_copies(records)]
    assert names == ["a.png", "a_double_l.png", "a_double_r.png", "c_mirrored.png"]


def test_the_same_bytes_in_two_splits_are_a_leak_told_once():
    (line,) = leaks([record("a.png", digest="d"), record("a.png", split="val", digest="d")])
    assert line.startswith("one image in two splits (same bytes): ")
    # Files that were not read have no bytes in common.
    assert leaks([record("a.png"), record("b.png", split="val")]) == []


def test_a_long_leak_shows_the_splits_first():
    group = [record(f"a{i}.png", digest="d") for i in range(5)] + [record("z.png", split="test", digest="d")]
    (line,) = leaks(group)
    assert "train/" in line
    assert "test/a/z.png" in line
    assert line.endswith("and 2 more")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["train", "val"])), max_size=12), st.integers(0, 9))
def test_fingerprint_depends_on_content_not_on_order(drawn, seed):
    records = [record(f"{i}{name}.png", split, digest=f"{i}") for i, (name, split) in enumerate(drawn)]
    shuffled = random.Random(seed).sample(records, len(records))
    assert fingerprint(shuffled) == fingerprint(records)
    if records:
        for change in ({"label": "other"}, {"digest": "other"}, {"split": "test"}):
            assert fingerprint([replace(records[0], **change), *records[1:]]) != fingerprint(records)


def test_fingerprint_takes_names_that_are_no_text():
    assert len(fingerprint([record(os.fsdecode(b"\xff.png"))])) == 16

"""A folder -> a checked data set, or one report of everything that is wrong with it."""

import os
import shutil
import time
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import make_tree, save_image
from PIL import Image

from spectro.data.dataset import Dataset, Split, labels_of, load_dataset
from spectro.data.decode import ImageSpec
from spectro.data.images import ImageStore
from spectro.data.mapping import Mapping
from spectro.errors import DataError

SPEC, SHOW = ImageSpec(4, "L"), ImageSpec(8, "RGB")
SPLIT_TREE = {split: {"a": 3, "b": 2} for split in ("train", "val", "test")}


def load(root: Path, mapping: Mapping | None = None, store: ImageStore | None = None, **options) -> Dataset:
    options.setdefault("specs", [SPEC])
    return load_dataset(root, mapping or Mapping(), store=store or ImageStore(), **options)


def report(root: Path, *args, **options) -> str:
    with pytest.raises(DataError) as caught:
        load(root, *args, **options)
    return str(caught.value)


def names(dataset: Dataset, split: str) -> list[str]:
    return [dataset.name_of(record) for record in dataset.of(split)]


def test_a_good_tree_is_loaded_as_it_lies(tree):
    root = tree(SPLIT_TREE)
    data = load(root)
    assert data.classes == ["a", "b"]
    assert data.counts() == SPLIT_TREE
    assert (data.split_here, data.ignored, data.copies, data.left_out, list(data.warnings)) == (False, [], 0, {}, [])
    assert names(data, "val") == sorted(p.relative_to(root).as_posix() for p in (root / "val").rglob("*.png"))
    assert labels_of(data.of("test")).tolist() == ["a"] * 3 + ["b"] * 2
    X = data.images(data.of("test"))
    assert X.pixels(SPEC).shape == (5, 4, 4)
    assert X.pixels(SHOW).shape == (5, 8, 8, 3)


def test_formats_depths_sizes_and_endings_lie_side_by_side(tmp_path):
    rng = np.random.default_rng(0)
    grey = Image.fromarray(rng.integers(0, 256, (11, 8), dtype=np.uint8))
    deep = Image.fromarray(rng.integers(0, 65536, (5, 30)).astype(np.uint16))
    colour = Image.fromarray(rng.integers(0, 256, (7, 7, 4), dtype=np.uint8))
    for number, split in enumerate(("train", "val", "test")):
        folder = tmp_path / split / "a"
        folder.mkdir(parents=True)
        images = {
            "1.png": grey, "2.PNG": deep, "3.jpg": colour.convert("RGB"), "4.JPEG": grey, "5.tif": deep,
            "6.TIFF": colour, "7.bmp": grey.convert("P"), "8.webp": colour, "9.png": grey.convert("1"),
        }  # fmt: skip
        for name, image in images.items():
            turned = image.transpose(Image.Transpose(number))
            turned.save(folder / f"{split}{name}")
    data = load(tmp_path)
    assert data.counts() == {split: {"a": 9} for split in ("train", "val", "test")}
    assert data.images(data.records).pixels(SPEC).shape == (27, 4, 4)


def test_labels_keep_their_spelling(tree):
    labels = ["two words", "v1.2", "[odd] (a)", "面波", "a,b;c", "train", "=1+1", unicodedata.normalize("NFD", "é")]
    data = load(tree({split: dict.fromkeys(labels, 1) for split in ("train", "val", "test")}))
    assert data.classes == sorted(unicodedata.normalize("NFC", label) for label in labels)


def spoil(root: Path) -> set[str]:
    """Puts one bad file of each kind into a tree and returns their names."""
    whole = next((root / "train" / "a").glob("*.png")).read_bytes()
    (root / "train" / "a" / "empty.png").touch()
    (root / "val" / "b" / "empty too.png").touch()  # the same bytes in another split are no leak
    (root / "train" / "a" / "cut.png").write_bytes(whole[:-40])
    (root / "train" / "b" / "words.jpg").write_text("not an image")
    (root / "test" / "a" / "dangling.png").symlink_to("nowhere.png")
    (root / "test" / "b" / "loop.png").symlink_to("loop.png")
    with (root / "test" / "b" / "sparse.bmp").open("wb") as file:
        file.truncate(1 << 34)
    os.mkfifo(root / "test" / "b" / "pipe.png")
    (root / "train" / "b" / "two\nlines.png").touch()
    Path(os.fsdecode(os.fsencode(root / "train" / "b") + b"/\xff.png")).write_bytes(whole[:-1])
    return {
        "train/a/empty.png", "val/b/empty too.png", "train/a/cut.png", "train/b/words.jpg",
        "test/a/dangling.png", "test/b/loop.png", "test/b/sparse.bmp", "test/b/pipe.png", "train/b/two\\nlines.png",
        "train/b/\\udcff.png",
    }  # fmt: skip


posix = pytest.mark.skipif(os.name != "posix" or os.uname().sysname != "Linux", reason="makes pipes and odd names")


@posix
def test_all_bad_files_are_in_one_report_or_left_out(tree):
    root = tree(SPLIT_TREE)
    bad = spoil(root)
    message = report(root)
    assert f"{len(bad)} problems" in message
    for name in bad:
        assert f"bad file: {name}: " in message
    for reason in ("zero bytes", "truncated", "not a PNG, JPEG", "absurdly large", "No such", "not a regular file"):
        assert reason in message
    assert "data.on_bad_file=skip leaves the 10 bad files out" in message
    assert "two splits" not in message
    message.encode()  # can be written anywhere
    data = load(root, skip_bad_files=True)
    assert set(data.left_out) == bad
    assert data.counts() == SPLIT_TREE
    assert any("bad files left out: 10" in line for line in data.warnings)


def test_every_kind_of_problem_is_in_the_same_report(tree):
    root = tree({"train": {"a": 3, "b": 2, "empty": 0, "stray": 1}, "test": {"a": 1, "b": 1, "late": 2}})
    first = next((root / "train" / "a").glob("*.png"))
    shutil.copy(first, root / "test" / "b" / "same bytes.png")
    save_image(root / "test" / "a" / f"{first.stem}_mirrored.png", seed=77)
    (root / "train" / "b" / "zero.png").touch()
    message = report(root, Mapping({"a": ["a"], "b": ["b"], "late": ["late"], "ghost": ["nowhere"]}))
    for part in (
        "split missing: val",
        "folder without images: train/empty",
        "'stray' is neither in mapping.classes nor in mapping.left_out",
        "class 'ghost' has no images",
        "one image in two splits (same bytes)",
        f"one source in two splits (source '{first.stem}')",
        "bad file: train/b/zero.png: zero bytes",
        "class 'late' has no training images (found in: test)",
        "data.source_key=class_name or path",
    ):
        assert part in message
    assert message.splitlines()[0].endswith(": 8 problems")


@pytest.mark.parametrize("empty", ["no such folder", "empty", "a file", "no images"])
def test_a_root_without_images_is_named(tmp_path, empty):
    root = tmp_path / "records"
    if empty == "a file":
        root.touch()
    elif empty != "no such folder":
        root.mkdir()
    if empty == "no images":
        (root / "train" / "a").mkdir(parents=True)
        (root / "train" / "a" / "notes.txt").touch()
    assert str(root) in report(root)


@pytest.mark.parametrize("blocked", ["records", "b"])
def test_a_folder_that_cannot_be_listed_is_a_report_not_a_crash(tree, monkeypatch, blocked):
    root, scandir = tree(SPLIT_TREE), os.scandir

    def guarded(path):
        if Path(path).name == blocked:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    message = report(root)
    assert "cannot be listed" in message
    assert "Permission denied" in message


def test_a_file_that_goes_between_listing_and_reading_is_a_bad_file(tree, monkeypatch):
    root = tree(SPLIT_TREE)
    victim = next((root / "val" / "a").glob("*.png"))
    add = ImageStore.add

    def late(store, *args):
        victim.unlink(missing_ok=True)
        return add(store, *args)

    monkeypatch.setattr(ImageStore, "add", late)
    assert f"bad file: val/a/{victim.name}: " in report(root)


def test_folders_left_out_are_neither_empty_nor_leaky_nor_bad(tree):
    root = tree({"train": {"a": 2, "junk": 1, "void": 0}, "val": {"a": 1}, "test": {"a": 1}})
    shutil.copy(next((root / "train" / "junk").iterdir()), root / "val" / "a")
    (root / "train" / "junk" / "zero.png").touch()
    data = load(root, Mapping(left_out=["junk", "void"]))
    assert data.counts()["train"] == {"a": 2}


def test_a_class_may_be_absent_from_val_and_test_and_a_split_may_not_be_empty(tree):
    root = tree({"train": {"a": 2, "b": 1}, "val": {"a": 1, "b": 0}, "test": {"a": 1}})
    assert load(root).counts()["val"] == {"a": 1, "b": 0}
    shutil.rmtree(root / "val" / "a")
    assert "split without images: " in report(root)


def test_copies_on_disk_are_left_out_and_counted(tree):
    root = tree(SPLIT_TREE)
    for seed, original in enumerate(list(root.glob("*/a/*.png"))):
        for kind in ("mirrored", "double_l", "double_r"):
            save_image(original.with_stem(f"{original.stem}_{kind}"), seed=1000 + 10 * seed + len(kind))
    data = load(root)
    assert data.copies == 27
    assert data.counts() == SPLIT_TREE
    assert not any(record.is_copy for record in data.records)


@pytest.mark.parametrize("key", ["name", "class_name", "path"])
def test_source_key_says_what_is_one_recording(tmp_path, key):
    for seed, place in enumerate(("train/a", "train/b", "val/a", "test/b")):
        save_image(tmp_path / place / "001.png", seed=seed)
    if key == "path":
        assert len(load(tmp_path, source_key=key).records) == 4
    else:
        assert report(tmp_path, source_key=key).count("one source in two splits") == (1 if key == "name" else 2)


UNSPLIT = {"a": 10, "b": 3, "c": 2, "d": 1}


def test_a_group_is_one_source(tmp_path):
    """A station on both sides of a split is recognised by its noise; a pattern that divides a recording is a leak."""
    seeds = iter(range(99))
    for split, station in (("train", "a"), ("train", "b"), ("val", "c"), ("test", "d")):
        for number in range(2):
            for label in ("x", "y"):
                save_image(tmp_path / split / label / f"{station}_{number}{label}.png", seed=next(seeds))
    dataset = load(tmp_path, group="/([a-z])_[0-9]")
    assert {record.source for record in dataset.records} == set("abcd")
    assert {record.source for record in dataset.of("train")} == {"a", "b"}
    assert "gives no group to 16 of 16 files, e.g. test/x/d_0x.png" in report(tmp_path, group="station_([A-Z])")
    assert "divides 16 sources" not in report(tmp_path, group="(.)_0|zz")
    lines = report(tmp_path, group="(x|y)/")
    assert "one group in two splits (group 'x')" in lines
    assert "data.source_key" not in lines
    assert "Where the data have no splits (DIR/<class>/*, no column split) these are drawn by group." in lines
    for split in ("train", "val"):
        save_image(tmp_path / split / "x" / "same.png", seed=next(seeds))
    assert "divides 1 sources, e.g. same (groups train, val)" in report(tmp_path, group="^([a-z]+)/")


def test_a_folder_that_is_left_out_needs_no_group(tree):
    root = tree({"a": 6, "b": 6, "unnamed": 2})
    pattern = "([ab]/.*)[.]"
    assert "gives no group to 2 of 14 files, e.g. unnamed/" in report(root, group=pattern)
    assert len(load(root, Mapping(left_out=("unnamed",)), group=pattern).records) == 12


def test_a_tree_without_splits_is_split_here(tree):
    root = tree(UNSPLIT)
    data = load(root, split=Split(val=0.2, test=0.2, seed=3))
    assert data.split_here
    assert data.counts() == {
        "train": {"a": 6, "b": 1, "c": 1, "d": 1},
        "val": {"a": 2, "b": 1, "c": 0, "d": 0},
        "test": {"a": 2, "b": 1, "c": 1, "d": 0},
    }
    prints = [load(root, split=Split(seed=seed)).fingerprint for seed in (3, 3, 1)]
    assert data.fingerprint == prints[0] == prints[1] != prints[2]


def test_the_split_is_the_same_under_every_mapping(tree):
    root = tree(UNSPLIT)
    plain = {r.path: r.split for r in load(root).records}
    folded = load(root, Mapping({"ab": ["a", "b"], "c": ["c"]}, left_out=["d"]))
    assert {r.path: r.split for r in folded.records}.items() <= plain.items()


def test_bad_files_do_not_take_the_place_of_training_images(tree):
    """Whichever image of a tiny class is bad, what is left of the class can be trained on."""
    root = tree({"a": 12, "tiny": 3})
    for victim in sorted((root / "tiny").iterdir()):
        whole = victim.read_bytes()
        victim.write_bytes(b"")
        for seed in range(4):
            data = load(root, split=Split(seed=seed), skip_bad_files=True)
            assert Counter(r.split for r in data.records if r.label == "tiny")["train"] >= 1
        victim.write_bytes(whole)


def test_what_is_odd_but_no_error_is_a_warning(tree):
    root = tree(SPLIT_TREE)
    shutil.copy(next((root / "train" / "a").glob("*.png")), root / "train" / "b")
    (root / "train" / "a" / "notes.txt").touch()
    (root / "train" / "a" / ".DS_Store").touch()
    ignored, twins, conflicts = load(root).warnings
    assert ignored.startswith("ignored, as each is hidden, no image")
    assert ignored.endswith(": train/a/notes.txt, train/a/.DS_Store")
    assert twins.startswith("images that lie in one split more than once: 1")
    assert "a and b" in conflicts


def test_linked_folders_are_read_and_named_below_the_root(tree, tmp_path):
    root = tree(SPLIT_TREE)
    (root / "train").rename(tmp_path / "elsewhere")
    (root / "train").symlink_to(tmp_path / "elsewhere")
    assert all(name.startswith("train/a/") or name.startswith("train/b/") for name in names(load(root), "train"))


def test_many_classes_are_no_work(tmp_path):
    made = make_tree(tmp_path / "one", {"a": 3})
    root = tmp_path / "records"
    pixels = [path.read_bytes() for path in sorted((made / "a").iterdir())]
    for i in range(800):
        for split, data in zip(("train", "val", "test"), pixels, strict=True):
            folder = root / split / f"c{i}"
            folder.mkdir(parents=True)
            (folder / f"{split}{i}.png").write_bytes(data + i.to_bytes(2, "big"))  # after the end: other bytes only
    start = time.perf_counter()
    assert len(load(root).classes) == 800
    assert time.perf_counter() - start < 8


def test_names_numbered_anew_in_each_class_get_a_hint(tmp_path):
    """Unsplit sets whose classes all count from 001 would be grouped across classes without a word."""
    for number, label in enumerate("ab"):
        for n in range(4):
            save_image(tmp_path / label / f"{n:03}.png", seed=10 * number + n)
    hints = load_dataset(tmp_path, Mapping(), store=ImageStore()).warnings
    assert "were split here: train 4, val 2, test 2 records" in hints[0]
    assert "4 of 4 sources" in hints[1]
    assert "data.source_key=class_name" in hints[1]
    assert load_dataset(tmp_path, Mapping(), store=ImageStore(), source_key="class_name").warnings == [hints[0]]

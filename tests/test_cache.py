"""The cache: never wrong, never lost to a kill, within its limit, and no heavier in memory than what is read."""

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from spectro.data.cache import RowCache, RowKind

KIND = RowKind("pixels", {"code": 1}, (2, 3), "int8")
IMAGE = RowKind("pixels", {"code": 1}, (2, 3), "uint8")
FILE_BYTES = 128 + 6


def rows_of(keys, kind: RowKind = KIND) -> np.ndarray:
    """What keys stand for: the same in every process."""
    rows = [np.random.default_rng(list(key.encode())).integers(0, 256, kind.shape) for key in keys]
    return np.array(rows).astype(kind.dtype).reshape(len(keys), *kind.shape)


class Maker:
    """Computes rows in chunks, or arrays, and counts for which keys."""

    def __init__(self, kind: RowKind = KIND):
        self.made, self._kind = [], kind

    def __call__(self, keys):
        for start in range(0, len(keys), 4):
            part = keys[start : start + 4]
            self.made += part
            yield part, rows_of(part, self._kind)

    def arrays(self):
        self.made.append("arrays")
        return {"a": np.arange(500.0), "b": np.ones((2, 3))}


def keys_of(n: int, first: int = 0) -> list[str]:
    return [f"k{i}:mirrored" for i in range(first, first + n)]


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def age(path: Path, hours: float) -> None:
    os.utime(path, (0, time.time() - hours * 3600))


@pytest.fixture(params=["disk", "memory"])
def cache(request, tmp_path) -> RowCache:
    return RowCache(tmp_path / "cache" if request.param == "disk" else None)


def test_each_row_is_made_once_and_comes_back_in_the_order_of_the_keys(cache):
    maker, keys = Maker(), ["b", "a", "b", "c", "a"]
    np.testing.assert_array_equal(cache.rows(KIND, keys, maker), rows_of(keys))
    np.testing.assert_array_equal(cache.rows(KIND, ["d", "c"], maker), rows_of("dc"))
    assert sorted(maker.made) == ["a", "b", "c", "d"]
    assert cache.missing(KIND, ["x", "a", "x"]) == ["x"]
    assert cache.rows(KIND, [], maker).shape == (0, 2, 3)
    cache.rows(KIND, keys)[...] = 0  # a copy
    np.testing.assert_array_equal(cache.rows(KIND, keys), rows_of(keys))
    with pytest.raises(KeyError, match="x"):
        cache.rows(KIND, ["a", "x"])


def test_whatever_changes_a_row_keeps_kinds_apart(cache):
    cache.rows(KIND, ["a"], Maker())
    for other in (
        RowKind("hog", {"code": 1}, (2, 3), "uint8"),
        RowKind("pixels", {"code": 2}, (2, 3), "uint8"),
        RowKind("pixels", {"code": 1}, (5,), "float32"),
        IMAGE,
    ):
        assert cache.missing(other, ["a"]) == ["a"]
        np.testing.assert_array_equal(cache.rows(other, ["a"], Maker(other)), rows_of("a", other))


def test_another_process_finds_what_was_written(tmp_path):
    mine, theirs, maker = RowCache(tmp_path), RowCache(tmp_path), Maker()
    mine.rows(KIND, keys_of(5), Maker())
    mine.arrays("k", maker.arrays)
    np.testing.assert_array_equal(theirs.rows(KIND, keys_of(7), maker), rows_of(keys_of(7)))
    np.testing.assert_array_equal(theirs.arrays("k", maker.arrays)["a"], np.arange(500.0))
    assert maker.made == ["arrays", *keys_of(2, first=5)]
    path = tmp_path / KIND.folder / "k0-mirrored.npy"
    np.testing.assert_array_equal(np.load(path), rows_of(keys_of(1))[0])


def _write_many(folder: str, first: int, start) -> None:
    cache = RowCache(Path(folder))
    start.wait()
    for i in range(12):
        keys = keys_of(6, first + 3 * i)
        np.testing.assert_array_equal(cache.rows(KIND, keys, Maker()), rows_of(keys))


def test_several_processes_write_at_once(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Barrier(3)
    writers = [spawn.Process(target=_write_many, args=(str(tmp_path), first, start)) for first in (0, 6, 12)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert RowCache(tmp_path).missing(KIND, keys_of(51)) == []
    assert [path for path in files(tmp_path) if path.suffix == ".tmp"] == []


@pytest.mark.parametrize("damage", ["cut", "empty", "first byte", "middle byte of an archive"])
def test_a_damaged_file_is_made_again(tmp_path, caplog, damage):
    RowCache(tmp_path).arrays("k", Maker().arrays)
    for kind in (KIND, IMAGE):
        RowCache(tmp_path).rows(kind, ["x", "b"], Maker(kind))
    for path in (*tmp_path.rglob("k.npz"), *tmp_path.rglob("x.npy"), *tmp_path.rglob("x.npy.gz")):
        content = bytearray(path.read_bytes())
        if "byte" in damage:
            content[0 if "first" in damage or path.suffix == ".npy" else len(content) // 2] ^= 0xFF
        path.write_bytes({"cut": content[:-3], "empty": b""}.get(damage, content))
    makers = [Maker(KIND), Maker(IMAGE)]
    for _ in range(2):
        for kind, maker in zip((KIND, IMAGE), makers, strict=True):
            np.testing.assert_array_equal(RowCache(tmp_path).rows(kind, ["x", "b"], maker), rows_of("xb", kind))
        np.testing.assert_array_equal(RowCache(tmp_path).arrays("k", makers[0].arrays)["a"], np.arange(500.0))
    assert [maker.made for maker in makers] == [["x", "arrays"], ["x"]]
    assert caplog.text.count("is damaged") == 3


def test_images_are_packed(tmp_path):
    """They are most of a cache, and an hour of trying must not leave hundreds of megabytes."""
    kind = RowKind("pixels", {}, (100, 100), "uint8")
    rows = np.full((1, 100, 100), 255, np.uint8)
    np.testing.assert_array_equal(RowCache(tmp_path).rows(kind, ["a"], lambda keys: [(keys, rows)]), rows)
    np.testing.assert_array_equal(RowCache(tmp_path).rows(kind, ["a"]), rows)
    assert sum(path.stat().st_size for path in files(tmp_path)) < 1000


def test_memory_keeps_the_arrays_that_were_used_last():
    """Trials of a search would otherwise fill the memory with the components of all folds."""
    cache, made = RowCache(None), []

    def get(key: str) -> None:
        cache.arrays(key, lambda: made.append(key) or {"a": np.zeros(2**24)})  # 134 MB, of which nothing is written

    for key in "abaab":
        get(key)
    assert made == ["a", "b", "a", "b"]


def test_an_error_while_computing_keeps_what_was_done(cache):
    def fails(keys):
        yield ["a"], rows_of("a")
        raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        cache.rows(KIND, ["a", "b"], fails)
    assert cache.missing(KIND, ["a", "b"]) == ["b"]


KILLED = """
import sys, numpy as np
from pathlib import Path
from spectro.data.cache import RowCache, RowKind
cache, kind = RowCache(Path(sys.argv[1])), RowKind("pixels", {}, (1 << 20,), "int8")
print("begun", flush=True)
for i in range(10_000):
    cache.write(kind, [str(i)], np.ones((1, 1 << 20), np.int8))
"""


def test_a_kill_leaves_no_half_row(tmp_path):
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"begun\n"
        time.sleep(0.1)
        writer.send_signal(signal.SIGKILL)
    whole = [path for path in files(tmp_path) if path.suffix == ".npy"]
    assert {path.stat().st_size for path in whole} <= {(1 << 20) + 128}
    assert len(files(tmp_path)) - len(whole) <= 1


def test_what_was_used_longest_ago_goes_first_and_nothing_of_the_last_hour(tmp_path):
    """A limit that deleted what a run is reading would make it decode for ever; other files may lie in the folder."""
    RowCache(tmp_path).rows(KIND, list("abc"), Maker())
    RowCache(tmp_path).arrays("old", Maker().arrays)
    for hours, path in enumerate(reversed(files(tmp_path)), start=2):  # arrays are the oldest, then a, b, c
        age(path, hours)
    RowCache(tmp_path).rows(KIND, ["a"])  # used again: young again
    RowCache(tmp_path, limit_bytes=3 * FILE_BYTES).rows(KIND, ["d"], Maker())
    assert [path.stem for path in files(tmp_path)] == ["a", "c", "d"]
    others = [tmp_path / name for name in ("data.npy", "records/a/a.npy", f"{KIND.folder}/a/a.png")]
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
        age(path, 99)
    RowCache(tmp_path, limit_bytes=1).rows(KIND, ["e"], Maker())
    assert [path.stem for path in files(tmp_path) if path not in others] == ["a", "d", "e"]
    assert all(path.exists() for path in others)


@pytest.mark.parametrize("in_kind", [False, True])
def test_a_folder_that_takes_nothing_leaves_rows_in_memory_with_a_warning(tmp_path, caplog, in_kind):
    folder = tmp_path / "cache"
    if in_kind:
        folder.mkdir()
        (folder / KIND.folder).touch()
    else:
        folder.touch()
    cache, maker = RowCache(folder, limit_bytes=1e6), Maker()
    with caplog.at_level(logging.WARNING, "spectro"):
        for _ in range(2):
            np.testing.assert_array_equal(cache.rows(KIND, keys_of(5), maker), rows_of(keys_of(5)))
            cache.arrays("k", maker.arrays)
    assert len(maker.made) == 5 + 1
    assert caplog.text.count("memory only") == 1


def test_a_cache_that_may_only_be_read_is_read(tmp_path, monkeypatch):
    """Somebody else's file cannot be marked as used; that is no damage."""
    RowCache(tmp_path).rows(KIND, keys_of(3), Maker())
    for path in files(tmp_path):
        age(path, 2)

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "utime", refuse)
    np.testing.assert_array_equal(RowCache(tmp_path).rows(KIND, keys_of(3)), rows_of(keys_of(3)))


FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from spectro.data.cache import RowCache, RowKind
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, 1 << 14))
kind = RowKind("pixels", {}, (1 << 15,), "int8")
rows = RowCache(Path(sys.argv[1])).rows(kind, ["a"], lambda keys: [(keys, np.ones((1, 1 << 15), np.int8))])
print(rows.sum())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")
def test_a_full_disk_costs_no_run_and_leaves_no_rubbish(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.stdout == f"{1 << 15}\n", done.stderr
    assert files(tmp_path) == []

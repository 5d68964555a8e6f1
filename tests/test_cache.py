"""Rows on disk: never wrong, never lost to a crash, within their limit, and no heavier in memory than what is read."""

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

from spectro.data.cache import RowCache, row_cache
from spectro.data.rows import RowKind

KIND = RowKind("pixels", {"code": 1}, (2, 3), "uint8")


def row(key: str, kind: RowKind = KIND) -> np.ndarray:
    """What ``key`` stands for: the same in every process."""
    return np.random.default_rng(list(key.encode())).integers(0, 256, kind.shape).astype(kind.dtype)


def rows_of(keys, kind: RowKind = KIND) -> np.ndarray:
    return np.stack([row(key, kind) for key in keys])


class Maker:
    """Computes rows in chunks and remembers for which keys."""

    def __init__(self, kind: RowKind = KIND, chunk: int = 4):
        self.made, self._kind, self._chunk = [], kind, chunk

    def __call__(self, keys):
        for start in range(0, len(keys), self._chunk):
            part = keys[start : start + self._chunk]
            self.made += part
            yield part, rows_of(part, self._kind)


def keys_of(n: int, first: int = 0) -> list[str]:
    return [f"k{i}" for i in range(first, first + n)]


def files(folder: Path, ending: str = "") -> list[Path]:
    return sorted(path for path in folder.rglob(f"*{ending}") if path.is_file())


@pytest.fixture(params=["disk", "memory"])
def cache(request, tmp_path) -> RowCache:
    return RowCache(tmp_path / "cache" if request.param == "disk" else None)


def test_each_row_is_made_once_and_comes_back_in_the_order_asked(cache):
    maker = Maker()
    asked = ["b", "a", "b", "c", "a"]
    np.testing.assert_array_equal(cache.rows(KIND, asked, maker)[:], rows_of(asked))
    assert sorted(maker.made) == ["a", "b", "c"]
    np.testing.assert_array_equal(cache.rows(KIND, ["d", "c"], maker)[:], rows_of("dc"))  # over two packs
    assert sorted(maker.made) == ["a", "b", "c", "d"]
    assert cache.missing(KIND, ["x", "a", "x"]) == ["x"]


def test_rows_are_read_by_slice_by_position_and_by_mask(cache):
    keys = keys_of(10)
    rows = cache.rows(KIND, keys, Maker())
    expected = rows_of(keys)
    assert (rows.shape, rows.dtype, len(rows)) == ((10, 2, 3), np.uint8, 10)
    for index in (slice(2, 7), np.array([9, 0, 9]), expected[:, 0, 0] > 99, np.array([], dtype=int)):
        np.testing.assert_array_equal(rows[index], expected[index])
    rows[:][...] = 0  # a copy: the cache itself is not touched
    np.testing.assert_array_equal(rows[:], expected)


def test_no_rows_at_all_are_no_error(cache):
    assert cache.rows(KIND, [], Maker())[:].shape == (0, 2, 3)


def test_a_key_without_a_row_is_an_error(cache):
    with pytest.raises(KeyError):
        cache.rows(KIND, ["a"])


def test_kinds_are_kept_apart(cache):
    other = RowKind("pixels", {"code": 2}, (2, 3), "uint8")
    cache.rows(KIND, ["a"], Maker())
    assert cache.missing(other, ["a"]) == ["a"]
    floats = RowKind("hog", {"code": 1}, (5,), "float32")
    np.testing.assert_array_equal(cache.rows(floats, ["a"], Maker(floats))[:], rows_of("a", floats))


@pytest.mark.parametrize(
    "changed",
    [
        RowKind("hog", {"code": 1}, (2, 3), "uint8"),
        RowKind("pixels", {"code": 2}, (2, 3), "uint8"),
        RowKind("pixels", {"code": 1}, (3, 2), "uint8"),
        RowKind("pixels", {"code": 1}, (2, 3), "int8"),
    ],
)
def test_whatever_changes_a_row_changes_its_folder(changed):
    assert changed.folder != KIND.folder
    assert RowKind("pixels", {"code": 1}, (2, 3), "uint8").folder == KIND.folder


def test_another_process_finds_what_was_written(tmp_path):
    RowCache(tmp_path).rows(KIND, keys_of(5), Maker())
    later, maker = RowCache(tmp_path), Maker()
    np.testing.assert_array_equal(later.rows(KIND, keys_of(7), maker)[:], rows_of(keys_of(7)))
    assert maker.made == ["k5", "k6"]


def test_rows_that_another_process_writes_meanwhile_are_seen(tmp_path):
    mine, theirs = RowCache(tmp_path), RowCache(tmp_path)
    assert mine.missing(KIND, ["a"]) == ["a"]
    theirs.rows(KIND, ["a"], Maker())
    assert mine.missing(KIND, ["a"]) == []


def _write_many(folder: str, first: int, start) -> None:
    cache = RowCache(Path(folder))
    start.wait()
    for i in range(12):
        keys = keys_of(6, first + 3 * i)
        np.testing.assert_array_equal(cache.rows(KIND, keys, Maker())[:], rows_of(keys))


def test_several_processes_write_at_once(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Barrier(3)
    writers = [spawn.Process(target=_write_many, args=(str(tmp_path), first, start)) for first in (0, 6, 12)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    maker, keys = Maker(), keys_of(51)
    np.testing.assert_array_equal(RowCache(tmp_path).rows(KIND, keys, maker)[:], rows_of(keys))
    assert maker.made == []
    assert files(tmp_path, ".tmp") == []


def damage_truncate(pack: Path, index: Path) -> None:
    os.truncate(pack, pack.stat().st_size - 1)


def damage_empty(pack: Path, index: Path) -> None:
    os.truncate(pack, 0)


def damage_flip(pack: Path, index: Path) -> None:
    data = bytearray(pack.read_bytes())
    data[7] ^= 1
    pack.write_bytes(data)


def damage_index_cut(pack: Path, index: Path) -> None:
    os.truncate(index, index.stat().st_size // 2)


def damage_index_empty(pack: Path, index: Path) -> None:
    os.truncate(index, 0)


def damage_index_other_json(pack: Path, index: Path) -> None:
    index.write_text("[1, 2]")


def damage_index_no_text(pack: Path, index: Path) -> None:
    index.write_bytes(b"\xff\xfe\x00")


DAMAGES = [value for name, value in sorted(globals().items()) if name.startswith("damage_")]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__)
def test_a_damaged_pack_is_noticed_and_made_again(tmp_path, caplog, damage):
    RowCache(tmp_path).rows(KIND, keys_of(5), Maker())
    RowCache(tmp_path).rows(KIND, keys_of(5, first=5), Maker())
    pack = files(tmp_path, ".rows")[0]
    damage(pack, pack.with_suffix(".json"))
    maker = Maker()
    with caplog.at_level(logging.WARNING, "spectro"):
        found = RowCache(tmp_path).rows(KIND, keys_of(10), maker)[:]
    np.testing.assert_array_equal(found, rows_of(keys_of(10)))
    assert len(maker.made) == 5
    assert f"{pack} is damaged" in caplog.text
    again = Maker()
    RowCache(tmp_path).rows(KIND, keys_of(10), again)
    assert again.made == []
    assert not pack.exists()


@pytest.mark.parametrize("ending", [".rows", ".json"])
def test_half_a_pack_is_no_pack(tmp_path, ending):
    RowCache(tmp_path).rows(KIND, keys_of(3), Maker())
    files(tmp_path, ending)[0].unlink()
    maker = Maker()
    np.testing.assert_array_equal(RowCache(tmp_path).rows(KIND, keys_of(3), maker)[:], rows_of(keys_of(3)))
    assert maker.made == keys_of(3)


def test_an_error_while_computing_leaves_nothing_behind(cache):
    def fails(keys):
        yield ["a"], rows_of("a")
        raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        cache.rows(KIND, ["a", "b"], fails)
    assert cache.missing(KIND, ["a", "b"]) == ["a", "b"]
    assert cache.folder is None or files(cache.folder) == []


KILLED = """
import sys, time
from pathlib import Path
import numpy as np
from spectro.data.cache import RowCache
from spectro.data.rows import RowKind
cache = RowCache(Path(sys.argv[1]))
with cache.writer(RowKind("pixels", {"code": 1}, (2, 3), "uint8")) as write:
    for i in range(50_000):
        write([f"k{i}"], np.zeros((1, 2, 3), np.uint8))
    print("half-way", flush=True)
    time.sleep(60)
"""


def test_a_kill_half_way_shows_nothing_to_the_next_process(tmp_path):
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"half-way\n"
        writer.send_signal(signal.SIGKILL)
    assert {path.suffix for path in files(tmp_path)} == {".tmp"}
    maker = Maker()
    np.testing.assert_array_equal(RowCache(tmp_path).rows(KIND, keys_of(3), maker)[:], rows_of(keys_of(3)))
    assert maker.made == keys_of(3)


def test_what_a_dead_process_left_is_cleared_after_a_day(tmp_path):
    cache = RowCache(tmp_path, limit_bytes=1e6)
    cache.rows(KIND, ["a"], Maker())
    old, fresh = (tmp_path / KIND.folder / name for name in ("old.tmp", "fresh.tmp"))
    for path in (old, fresh):
        path.touch()
    os.utime(old, (0, time.time() - 2 * 24 * 3600))
    cache.rows(KIND, ["b"], Maker())
    assert files(tmp_path, ".tmp") == [fresh]


def test_the_longest_unused_packs_go_first(tmp_path):
    hour_ago = time.time() - 3600
    for age, key in enumerate("abc"):  # a is the newest, c the oldest
        RowCache(tmp_path).rows(KIND, [key], Maker())
        pack = max(files(tmp_path, ".rows"), key=lambda path: path.stat().st_mtime)
        os.utime(pack, (hour_ago, hour_ago - age))
    reader = RowCache(tmp_path, limit_bytes=3 * KIND.row_bytes)
    reader.missing(KIND, list("abc"))  # from now on all three are in use
    assert len(files(tmp_path, ".rows")) == 3
    for age, pack in enumerate(files(tmp_path, ".rows")):
        os.utime(pack, (hour_ago, hour_ago - age))
    oldest = files(tmp_path, ".rows")[-1]
    other = RowKind("pixels", {"code": 9}, (2, 3), "uint8")
    RowCache(tmp_path, limit_bytes=3 * KIND.row_bytes).rows(other, ["d"], Maker(other))
    assert len(files(tmp_path, ".rows")) == 3
    assert not oldest.exists()
    assert not oldest.with_suffix(".json").exists()
    np.testing.assert_array_equal(reader.rows(KIND, list("abc"))[:], rows_of("abc"))  # what it has mapped, it keeps


def test_reading_a_pack_makes_it_young_again(tmp_path):
    RowCache(tmp_path).rows(KIND, ["a"], Maker())
    (pack,) = files(tmp_path, ".rows")
    os.utime(pack, (0, 0))
    RowCache(tmp_path).missing(KIND, ["a"])
    assert time.time() - pack.stat().st_mtime < 60


def test_packs_in_use_stay_also_past_the_limit(tmp_path, caplog):
    cache = RowCache(tmp_path, limit_bytes=1)
    with caplog.at_level(logging.WARNING, "spectro"):
        cache.rows(KIND, keys_of(5), Maker())
        cache.rows(KIND, keys_of(5, first=5), Maker())
    assert "data.cache_limit_gb" in caplog.text
    assert len(files(tmp_path, ".rows")) == 2
    np.testing.assert_array_equal(cache.rows(KIND, keys_of(10))[:], rows_of(keys_of(10)))


@pytest.mark.parametrize("obstacle", ["a file in its place", "a place without writing", "the kind's folder without"])
def test_a_folder_that_takes_nothing_leaves_rows_in_memory_with_a_warning(tmp_path, caplog, obstacle):
    folder = tmp_path / "cache"
    if obstacle == "a file in its place":
        folder.touch()
    elif not Path("/proc/self").is_dir():
        pytest.skip("needs a folder in which nobody, root included, can make files")
    elif obstacle == "a place without writing":
        folder = Path("/proc/self/cache")
    else:
        folder.mkdir()
        (folder / KIND.folder).symlink_to("/proc/self/fdinfo")
    cache, maker = RowCache(folder, limit_bytes=1e6), Maker()
    with caplog.at_level(logging.WARNING, "spectro"):
        np.testing.assert_array_equal(cache.rows(KIND, keys_of(5), maker)[:], rows_of(keys_of(5)))
    np.testing.assert_array_equal(cache.rows(KIND, keys_of(5), maker)[:], rows_of(keys_of(5)))
    assert len(maker.made) == 5
    assert "memory only" in caplog.text


def test_somebody_elses_cache_is_read_but_not_thrown_away(tmp_path, monkeypatch):
    """A read-only pack cannot be touched to say that it was used; that is no damage."""
    RowCache(tmp_path).rows(KIND, keys_of(3), Maker())

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "utime", refuse)
    assert RowCache(tmp_path).missing(KIND, keys_of(3)) == []
    assert len(files(tmp_path)) == 2


FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from spectro.data.cache import RowCache
from spectro.data.rows import RowKind
from spectro.errors import SpectroError
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, 1 << 14))
rows = int(sys.argv[2])
kind = RowKind("pixels", {}, (100,), "uint8")
try:
    RowCache(Path(sys.argv[1])).rows(kind, list(map(str, range(rows))),
        lambda keys: ((keys[i:i + 1], np.zeros((1, 100), np.uint8)) for i in range(len(keys))))
except SpectroError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")
@pytest.mark.parametrize("rows", [165, 1000], ids=["at the end", "half-way"])
def test_a_full_disk_is_one_clear_error_and_no_rubbish(tmp_path, rows):
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path), str(rows)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith("data.cache_dir: cannot write to ")
    assert "Traceback" not in done.stderr
    assert files(tmp_path) == []


def test_one_process_has_one_cache_for_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert row_cache(Path("c"), 1e9) is row_cache(tmp_path / "c", 1e9)
    assert row_cache(tmp_path / "c", 2e9) is not row_cache(tmp_path / "c", 1e9)


RESIDENT = """
import sys
from pathlib import Path
import numpy as np
from spectro.data.cache import RowCache
from spectro.data.rows import RowKind

def resident_mb():
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024

kind = RowKind("pixels", {}, (1 << 20,), "uint8")
keys = [str(i) for i in range(int(sys.argv[2]))]
cache = RowCache(Path(sys.argv[1]))
rows = cache.rows(kind, keys, lambda keys: (([key], np.full((1, 1 << 20), int(key) % 251, np.uint8)) for key in keys))
before, highest = resident_mb(), 0
for start in range(0, len(keys), 8):
    batch = rows[start : start + 8]
    assert batch[0, 0] == start % 251
    highest = max(highest, resident_mb())
reader = RowCache(Path(sys.argv[1]))
assert not reader.missing(kind, keys)
print(highest - before, resident_mb() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
def test_reading_batch_by_batch_does_not_fill_memory(tmp_path):
    """600 MB of rows: what stays resident is bounded, also while another reader checks the pack."""
    done = subprocess.run(
        [sys.executable, "-c", RESIDENT, str(tmp_path), "600"], capture_output=True, text=True, check=True
    )
    assert max(map(float, done.stdout.split())) < 250


def test_a_pack_that_cannot_be_opened_now_is_not_thrown_away(tmp_path, monkeypatch):
    """Too many open files say nothing about the pack."""
    RowCache(tmp_path).rows(KIND, keys_of(3), Maker())

    def refuse(*_, **__):
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr("mmap.mmap", refuse)
        assert RowCache(tmp_path).missing(KIND, keys_of(3)) == keys_of(3)
    assert RowCache(tmp_path).missing(KIND, keys_of(3)) == []


def test_packs_of_the_same_kind_that_nobody_uses_go_too(tmp_path):
    """If reading an index counted as use, a cache that all data sets share would grow without end."""
    for key in "abcdef":
        RowCache(tmp_path, limit_bytes=2 * KIND.row_bytes).rows(KIND, [key], Maker(KIND))
    assert len(files(tmp_path, ".rows")) <= 2


def test_many_packs_need_few_file_descriptors(tmp_path):
    """A long sweep reads hundreds of packs in one process; every one that stays open holds a descriptor."""
    for number in range(200):
        RowCache(tmp_path).rows(KIND, [f"k{number}"], Maker(KIND))
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    cache = RowCache(tmp_path)
    keys = [f"k{number}" for number in range(200)]
    rows = cache.rows(KIND, keys)
    for _ in range(2):
        np.testing.assert_array_equal(rows[:], rows_of(keys))
    if before:
        assert len(os.listdir("/proc/self/fd")) - before <= 130

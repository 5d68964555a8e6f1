"""Arrays kept under what they were made from: used again, never believed when damaged, never too many."""

import os
import time

import numpy as np
import pytest

from spectro.data import RowCache
from spectro.data.arrays import ArrayCache


class Maker:
    """Makes arrays and counts how often it was asked."""

    def __init__(self, n=4):
        self.n, self.asked = n, 0

    def __call__(self):
        self.asked += 1
        return {"a": np.arange(self.n, dtype=float), "b": np.ones((2, 3))}


def test_made_once_in_a_process_and_once_on_disk(tmp_path):
    make = Maker()
    cache = ArrayCache(tmp_path)
    for _ in range(2):
        assert set(cache.get("k", make)) == {"a", "b"}
    again = ArrayCache(tmp_path).get("k", make)
    np.testing.assert_array_equal(again["a"], np.arange(4.0))
    assert make.asked == 1
    assert [path.name for path in tmp_path.iterdir()] == ["k.npz"]


def test_without_a_folder():
    make = Maker()
    cache = ArrayCache(None)
    for key in "kkl":
        cache.get(key, make)
    assert make.asked == 2


def test_memory_keeps_what_was_used_last():
    make = Maker(1000)
    cache = ArrayCache(None, memory_bytes=20_000)
    for key in "abac":
        cache.get(key, make)
    assert make.asked == 3
    cache.get("a", make)
    assert make.asked == 3
    cache.get("b", make)
    assert make.asked == 4


@pytest.mark.parametrize("where", [0, 0.3, 0.5, 0.9])
def test_a_damaged_file_is_made_again(tmp_path, where, caplog):
    make = Maker(500)
    ArrayCache(tmp_path).get("k", make)
    path = tmp_path / "k.npz"
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 0xFF
    path.write_bytes(content)
    np.testing.assert_array_equal(ArrayCache(tmp_path).get("k", make)["a"], np.arange(500.0))
    assert make.asked == 2
    assert "k.npz is damaged" in caplog.text
    ArrayCache(tmp_path).get("k", make)
    assert make.asked == 2


def test_a_cut_off_file_is_made_again(tmp_path):
    make = Maker()
    ArrayCache(tmp_path).get("k", make)
    path = tmp_path / "k.npz"
    for n in (0, 10, path.stat().st_size - 3):
        path.write_bytes(path.read_bytes()[:n])
        ArrayCache(tmp_path).get("k", make)
    assert make.asked == 4


def test_a_folder_that_takes_nothing(tmp_path, caplog):
    (tmp_path / "file").touch()
    make = Maker()
    cache = ArrayCache(tmp_path / "file")
    for _ in range(2):
        cache.get("k", make)
    assert make.asked == 1
    assert "kept in memory only" in caplog.text


def test_the_limit_of_the_row_cache_holds_for_both(tmp_path):
    """What was used longest ago goes first, be it rows or arrays."""
    cache = RowCache(tmp_path, limit_bytes=20_000)
    for key in "ab":
        cache.arrays.get(key, Maker(1000))
        past = time.time() - (100 if key == "a" else 50)
        os.utime(tmp_path / "arrays" / f"{key}.npz", (past, past))
    cache.arrays.get("c", Maker(1000))
    assert sorted(path.name for path in (tmp_path / "arrays").iterdir()) == ["b.npz", "c.npz"]

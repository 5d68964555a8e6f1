"""Images as the ``X`` of an estimator: decoded once, the right view of the right record, from memory or disk."""

import os
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest
from conftest import save_image
from PIL import Image

from spectro.data import decode as decode_module
from spectro.data import images as module
from spectro.data.augmentation import Augmentation
from spectro.data.cache import RowCache
from spectro.data.decode import BadImageError, Crop, ImageSpec
from spectro.data.images import Images, ImageStore, file_digest, map_chunks, pixels_of
from spectro.data.transforms import BUILT_IN_VIEWS

SMALL, COLOUR = ImageSpec(6, "L"), ImageSpec(5, "RGB")


@pytest.fixture
def decoded(monkeypatch) -> list[bytes]:
    """The bytes of every image that is decoded in this test."""
    seen = []

    def counting(data, *args, **kwargs):
        seen.append(data)
        return decode_module.decode(data, *args, **kwargs)

    monkeypatch.setattr(module, "decode", counting)
    return seen


@pytest.fixture
def paths(tmp_path):
    return [save_image(tmp_path / "in" / f"{i}.png", seed=i, size=(9 + i, 7)) for i in range(5)]


def expected(path, spec: ImageSpec) -> np.ndarray:
    with Image.open(path) as image:
        return decode_module.fit(image, spec)


def test_an_image_is_decoded_once_for_all_geometries(paths, decoded):
    """Also under two names; one that is asked for later is made then."""
    twin = paths[0].with_name("twin.png")
    twin.write_bytes(paths[0].read_bytes())
    store, digests = ImageStore(), [file_digest(path) for path in (*paths, twin)]
    for _ in range(2):
        assert store.add([*paths, twin], digests, [SMALL, COLOUR]) == {}
    for spec in (SMALL, COLOUR):
        np.testing.assert_array_equal(store.pixels(spec, digests[:5]), np.stack([expected(p, spec) for p in paths]))
    assert len(decoded) == len(paths)
    late = ImageSpec(3, "L")
    np.testing.assert_array_equal(store.pixels(late, digests[1:3]), np.stack([expected(p, late) for p in paths[1:3]]))
    assert len(decoded) == len(paths) + 2


def test_another_process_decodes_nothing_again(paths, decoded, tmp_path):
    """The first process is a real one: nothing but the disk can carry the images over."""
    script = (
        "import sys; from pathlib import Path; from spectro.data import *\n"
        "from spectro.data.images import file_digest\n"
        "cache, *paths = map(Path, sys.argv[1:])\n"
        "ImageStore(RowCache(cache)).add(paths, [file_digest(p) for p in paths], [ImageSpec(6, 'L')])"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "cache"), *map(str, paths)], check=True)
    store, digests = ImageStore(RowCache(tmp_path / "cache")), [file_digest(path) for path in paths]
    assert store.add(paths, digests, [SMALL]) == {}
    np.testing.assert_array_equal(store.pixels(SMALL, digests), np.stack([expected(p, SMALL) for p in paths]))
    assert decoded == []


def test_bytes_crop_size_mode_and_code_version_make_an_image_new(paths, decoded, tmp_path, monkeypatch):
    cache = RowCache(tmp_path / "cache")

    def decodings(crop=None, spec=SMALL) -> int:
        before = len(decoded)
        ImageStore(cache, crop).add(paths[:1], [file_digest(paths[0])], [spec])
        return len(decoded) - before

    assert decodings() == 1
    assert decodings() == 0
    assert decodings(crop=Crop(left=1)) == 1
    assert decodings(spec=ImageSpec(7, "L")) == 1
    assert decodings(spec=ImageSpec(6, "RGB")) == 1
    save_image(paths[0], seed=99)
    assert decodings() == 1
    monkeypatch.setattr(module, "CODE_VERSION", -1)
    assert decodings() == 1


@pytest.mark.parametrize("specs", [[SMALL], []], ids=["a geometry", "none"])
def test_bad_files_are_named_and_the_others_kept(paths, tmp_path, specs):
    """Without a geometry files are still decoded, only to be checked."""
    (empty := tmp_path / "empty.png").touch()
    (gone := tmp_path / "gone.png").touch()
    (broken := tmp_path / "broken.png").write_bytes(paths[0].read_bytes()[:-30])
    all_paths = [paths[0], empty, gone, broken, paths[1]]
    digests = [file_digest(path) for path in all_paths]
    digests[2] = "0" * 64
    gone.unlink()
    store = ImageStore()
    bad = store.add(all_paths, digests, specs)
    assert set(bad) == {empty, gone, broken}
    assert bad[empty] == "zero bytes"
    assert "No such file" in bad[gone]
    assert len(store.pixels(SMALL, [digests[0], digests[4]])) == 2


def test_a_bad_image_asked_for_late_is_an_error_that_names_it(paths):
    store, digests = ImageStore(), [file_digest(paths[0])]
    store.add(paths[:1], digests, [SMALL])
    paths[0].unlink()
    with pytest.raises(BadImageError, match=r"0\.png: .*No such file"):
        store.pixels(COLOUR, digests)


def test_a_file_rewritten_since_it_was_listed_is_not_kept_under_its_old_bytes(paths, tmp_path):
    cache, digest = RowCache(tmp_path / "cache"), file_digest(paths[0])
    save_image(paths[0], seed=99)
    store = ImageStore(cache)
    assert store.add(paths[:1], [digest], [SMALL]) == {paths[0]: "changed while it was read"}
    assert cache.missing(store.kind(SMALL), [digest]) == [digest]


def test_decoding_in_threads_leaves_the_warnings_of_the_process_alone(tmp_path):
    many = [save_image(tmp_path / f"{i}.png", seed=i, size=(80, 80)) for i in range(100)]
    before = list(warnings.filters)
    ImageStore().add(many, [file_digest(path) for path in many], [SMALL])
    assert warnings.filters == before


@pytest.fixture(name="X")
def five_images(paths) -> Images:
    store, digests = ImageStore(), [file_digest(path) for path in paths]
    store.add(paths, digests, [SMALL])
    return Images(store, digests)


def test_images_behave_like_an_array(X):
    assert (len(X), X.shape) == (5, (5,))
    everything = X.pixels(SMALL)
    for index in (slice(1, 4), np.array([4, 0, 0]), np.array([True, False, True, False, False]), np.array([], int)):
        np.testing.assert_array_equal(X[index].pixels(SMALL), everything[index])
    assert X[slice(0, 0)].pixels(SMALL).shape == (0, *SMALL.shape)
    X.pixels(SMALL)[...] = 0  # a copy
    assert X.pixels(SMALL).any()


def test_each_row_comes_in_its_own_view(X):
    views = ["original", "mirrored", "double_l", "double_r", "mirrored"]
    mixed = X.replace(augmentation=Augmentation(BUILT_IN_VIEWS), views=np.array(views))
    for plain, pixels, view in zip(X.pixels(SMALL), mixed.pixels(SMALL), views, strict=True):
        np.testing.assert_array_equal(pixels, plain if view == "original" else BUILT_IN_VIEWS[view](plain[None])[0])
    np.testing.assert_array_equal(mixed[::-1].pixels(SMALL), mixed.pixels(SMALL)[::-1])
    assert (len({*mixed.keys, *X.keys}), mixed[:1].keys) == (9, X[:1].keys)


@pytest.mark.parametrize("shape", [(3, 8, 9), (3, 8, 9, 3), (0, 8, 9), (2, 6, 6)])
@pytest.mark.parametrize("spec", [SMALL, COLOUR], ids=str)
def test_plain_arrays_are_images_too(shape, spec):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    pixels = pixels_of(images, spec)
    assert (pixels.shape, pixels.dtype) == ((shape[0], *spec.shape), np.uint8)


def test_arrays_that_are_no_images_are_refused():
    for wrong in (np.zeros((2, 8, 8)), np.zeros((8, 8), np.uint8), np.zeros((2, 8, 8, 4), np.uint8)):
        with pytest.raises(ValueError, match=r"X: got .*; allowed: uint8"):
            pixels_of(wrong, SMALL)


def test_chunks_come_in_order_and_few_at_a_time():
    running, most, lock = set(), [0], threading.Lock()

    def work(chunk):
        with lock:
            running.add(chunk[0])
            most[0] = max(most[0], len(running))
        time.sleep(0.002 * (chunk[0] % 3))
        with lock:
            running.discard(chunk[0])
        return np.array(chunk)

    assert np.concatenate(list(map_chunks(work, range(50), 4))).tolist() == list(range(50))
    assert most[0] <= len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else True
    assert list(map_chunks(work, [], 4)) == []

"""Augmentation: what transforms do to pixels, which rows they make, and that chance depends on the seed alone."""

import sys

import numpy as np
import pytest
from conftest import save_image
from hypothesis import given
from hypothesis import strategies as st
from test_network_runs import tiny

from spectro.cli import main as cli
from spectro.config.groups import Groups, search_path
from spectro.data import Augmentation, Images, ImageSpec, ImageStore, Spectrogram
from spectro.data.augmentation import NOT_DRAWN
from spectro.data.images import file_digest
from spectro.data.transforms import BUILT_IN_VIEWS
from spectro.errors import ConfigError

GREY, COLOUR = ImageSpec(24, "L"), ImageSpec(24, "RGB")
OFF = dict.fromkeys(
    ("time_shift_percent", "frequency_shift_percent", "gain_percent", "contrast_percent", "time_mask_percent"), 0.0
) | {"frequency_mask_percent": 0.0}
MINE = """
import numpy as np

def flip_polarity(image):
    return 255 - image

def noise(image, rng, level=20):
    return (image // 2 + rng.integers(0, level, image.shape)).astype(np.uint8)

class Roll:
    def __init__(self, most_px: int):
        self.most_px = most_px

    def __call__(self, image, rng):
        return np.roll(image, int(rng.integers(1, self.most_px)), axis=0)

def half(image):
    return image[::2]

def floats(image):
    return image / 2

def unseeded(image, rng):
    return (image + np.random.randint(0, 9, image.shape)).astype(np.uint8)
"""
AFFINE = ["+augmentation.affine.transform=torchvision.transforms.v2.RandomAffine", "+augmentation.affine.degrees=20"]


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A user's own module."""
    (tmp_path / "my_views.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_views", raising=False)


@pytest.fixture(name="X")
def four_images(tmp_path) -> Images:
    paths = [save_image(tmp_path / "in" / f"{i}.png", seed=i, size=(24, 24)) for i in range(4)]
    digests = [file_digest(path) for path in paths]
    store = ImageStore()
    store.add(paths, digests, [GREY, COLOUR])
    return Images(store, digests)


def augmentation(*overrides: str) -> Augmentation:
    return cli.composed(["cascade_stage=flat", *overrides]).augmentation


def applied(augmentation: Augmentation, X: Images, *, per_epoch: bool = False) -> tuple[Images, np.ndarray]:
    return X.augmented(augmentation, [f"s{i}" for i in range(len(X))], per_epoch=per_epoch)


@pytest.mark.parametrize(
    ("view", "even", "odd"),
    [
        ("mirrored", [4, 3, 2, 1], [5, 4, 3, 2, 1]),
        ("double_l", [1, 2, 2, 1], [1, 2, 3, 2, 1]),
        ("double_r", [4, 3, 3, 4], [5, 4, 3, 4, 5]),
    ],
)
def test_views_of_a_row_of_pixels(view, even, odd):
    """A half that lands on the wrong side would train on images that no survey records."""
    for expected in (even, odd):
        row = np.arange(1, len(expected) + 1, dtype=np.uint8)
        assert BUILT_IN_VIEWS[view](row[None, None]).tolist() == [[expected]]
        colour = np.repeat(row, 3).reshape(1, 1, -1, 3)
        assert BUILT_IN_VIEWS[view](colour)[0, 0, :, 2].tolist() == expected


def test_rows_go_record_by_record_and_keep_exclusions_out(X):
    """A view known to be wrong must not come back, and the others must stay."""
    views = augmentation("augmentation.exclude={s1: [double_l, mirrored], ghost: [mirrored]}")
    images, rows = applied(views, X[:2])
    assert rows.tolist() == [0, 0, 0, 0, 1, 1]
    assert images.views.tolist() == ["original", "mirrored", "double_l", "double_r", "original", "double_r"]
    assert len(set(images.keys)) == 6
    for pixels, row, view in zip(images.pixels(GREY), rows, images.views, strict=True):
        plain = X[[row]].pixels(GREY)
        np.testing.assert_array_equal(pixels, plain[0] if view == "original" else BUILT_IN_VIEWS[view](plain)[0])
    images, rows = applied(views, X[:0])
    assert (len(images), rows.tolist(), images.pixels(GREY).shape) == (0, [], (0, 24, 24))


def test_sampled_views_are_drawn_anew_in_each_epoch(X):
    """With ``sample`` a network sees each record once an epoch, as any of its views but the excluded ones."""
    views = augmentation(
        "model=resnet18", "augmentation.mode=sample", "augmentation.exclude={s0: [mirrored, double_r]}"
    )
    images, rows = applied(views, X, per_epoch=True)
    assert rows.tolist() == [0, 1, 2, 3]
    epochs = np.array([images.drawn(np.random.default_rng(seed)).views for seed in range(40)])
    assert set(epochs[:, 0]) == {"original", "double_l"}
    assert set(epochs[:, 1]) == {"original", *BUILT_IN_VIEWS}


OPTIONS = {
    "spectrogram": ["augmentation=spectrogram"],
    "list": ["augmentation=[mirror_halves,spectrogram]"],
    "torchvision": ["augmentation=none", *AFFINE],
    "function": ["augmentation=mirror", "+augmentation.noise.transform=my_views.noise", "+augmentation.noise.level=9"],
    "class": ["augmentation=none", "+augmentation.roll.transform=my_views:Roll", "+augmentation.roll.most_px=5"],
    "view": [
        "augmentation=none",
        "+augmentation.flip.views=[mirrored,my_views.flip_polarity]",
        "augmentation.mode=expand",
    ],
}


@pytest.mark.parametrize("overrides", OPTIONS.values(), ids=OPTIONS)
def test_same_seed_same_pixels_whatever_the_batch_and_in_numpy_as_in_torch(X, mine, overrides):
    """Chance that depended on batches, threads or the device could not be reproduced."""
    import torch

    images, rows = applied(augmentation(*overrides), X)
    again, _ = applied(augmentation(*overrides), X)
    other, _ = applied(augmentation(*overrides, "seed=1"), X)
    for spec in (GREY, COLOUR):
        expected = images.pixels(spec)
        np.testing.assert_array_equal(again.pixels(spec), expected)
        order = np.random.default_rng(0).permutation(len(images))
        one_by_one = np.concatenate([images[order[i : i + 1]].pixels(spec) for i in range(len(order))])
        np.testing.assert_array_equal(one_by_one, expected[order])
        originals = torch.from_numpy(X.store.pixels(spec, list(images.digests)))
        torch.manual_seed(5)
        np.testing.assert_array_equal(images.augment(originals).numpy(), expected)
        # PyTorch's chance goes on as if nothing had been drawn: dropout does not depend on the augmentation.
        assert torch.initial_seed() == 5
        assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(5)))
    is_random = (images.seeds != NOT_DRAWN).any()
    assert is_random == (other.keys != images.keys)
    assert len(set(images.keys)) == len(images)
    # A copy that equals its record teaches nothing.
    changed = [not np.array_equal(p, X.pixels(GREY)[i]) for p, i in zip(images.pixels(GREY), rows, strict=True)]
    assert np.mean(changed) > 0.4


def test_random_transforms_are_drawn_for_each_epoch_or_a_number_of_times(X):
    """A network sees each row anew in each epoch; HOG-SVM is fitted to the record and to `draws` copies of it."""
    transforms = augmentation("augmentation=[mirror,spectrogram]", "augmentation.draws=3", "augmentation.mode=expand")
    fixed, rows = applied(transforms, X)
    assert (len(fixed), np.bincount(rows).tolist()) == (4 * 2 * 4, [8] * 4)
    assert ((fixed.seeds == NOT_DRAWN).sum(), fixed.choices) == (8, None)
    images, rows = applied(transforms, X, per_epoch=True)
    assert len(images) == 8
    first, second, again = (images.drawn(np.random.default_rng(seed)).pixels(GREY) for seed in (1, 2, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, second)


class TestSpectrogram:
    """The built-in random transform."""

    @given(st.integers(0, 2**31), st.sampled_from(["x", "y"]), st.sampled_from([(3, 12, 17), (2, 16, 9, 3)]))
    def test_everything_switched_off_leaves_images_as_they_are(self, seed, time_axis, shape):
        images = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        rngs = [np.random.default_rng(i) for i in range(len(images))]
        np.testing.assert_array_equal(Spectrogram(time_axis=time_axis, **OFF)(images, rngs), images)

    @pytest.mark.parametrize("time_axis", ["x", "y"])
    @pytest.mark.parametrize("part", ["time", "frequency"])
    def test_shifts_and_masks_go_along_their_axis(self, time_axis, part):
        """A shift in time that moved frequencies would make other classes of some signals."""
        axis = 1 + int((time_axis == "x") == (part == "time"))
        ramp = np.broadcast_to(np.arange(100, 140, dtype=np.uint8), (30, 40, 40))
        images = np.ascontiguousarray(ramp if axis == 2 else ramp.swapaxes(1, 2))
        rngs = [np.random.default_rng(i) for i in range(30)]
        shifted = Spectrogram(time_axis=time_axis, **OFF | {f"{part}_shift_percent": 10.0})(images, rngs)
        moved = (shifted.astype(int) - images).take(20, axis=axis)
        assert (np.abs(moved).max(), len(np.unique(moved)) > 3) == (4, True)
        masked = Spectrogram(time_axis=time_axis, **OFF | {f"{part}_mask_percent": 25.0})(images, rngs)
        widths = (masked != images).any(axis=3 - axis).sum(axis=1)
        assert 5 < widths.max() <= 10
        other = "frequency" if part == "time" else "time"
        still = Spectrogram(time_axis=time_axis, **OFF | {f"{other}_shift_percent": 10.0})(images, rngs)
        np.testing.assert_array_equal(still, images)

    def test_the_option_has_the_defaults_of_the_class(self):
        """A value changed in one place only would make Python and the command line differ."""
        assert augmentation("augmentation=spectrogram").transforms == {"spectrogram": Spectrogram()}

    def test_gain_contrast_and_probability(self):
        grey = np.full((200, 8, 8), 150, np.uint8)
        rngs = [np.random.default_rng(i) for i in range(200)]
        gained = Spectrogram(**OFF | {"gain_percent": 10.0})(grey, rngs)[:, 0, 0].astype(int)
        assert (gained.min() < 130, gained.max() > 170, gained.min() >= 124, gained.max() <= 176) == (True,) * 4
        stretched = Spectrogram(**OFF | {"contrast_percent": 20.0})(grey, rngs)[:, 0, 0].astype(int)
        assert (stretched.min() >= 145, stretched.max() <= 155, len(set(stretched)) > 5) == (True,) * 3
        rare = Spectrogram(**OFF | {"gain_percent": 10.0, "probability": 0.1})(grey, rngs)
        assert 5 < (rare != grey).any(axis=(1, 2)).sum() < 40


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["+augmentation.x.views=[upside_down]"], ["augmentation.x.views: got 'upside_down'", "mirrored, double_l"]),
        (["+augmentation.x.transform=my_views.nope"], ["augmentation.x.transform: got 'my_views.nope'"]),
        (["+augmentation.x.views=[my_views.half]"], ["augmentation.x.views", "expected uint8 (64, 64)", "(32, 64)"]),
        (["+augmentation.x.views=[my_views.floats]"], ["augmentation.x.views", "got float64 (64, 64)"]),
        (["+augmentation.x.transform=my_views.flip_polarity"], ["augmentation.x.transform", "rng", "views"]),
        (["+augmentation.x.transform=my_views.unseeded"], ["augmentation.x.transform", "other pixels each time"]),
        (["+augmentation.x.transform=my_views.Roll"], ["augmentation.x: got {}", "most_px"]),
        (["+augmentation.x.level=3"], ["augmentation.x: got level; allowed: views or transform"]),
        (
            ["augmentation=spectrogram", "augmentation.spectrogram.gain_percent=-1"],
            ["gain_percent: got -1"],
        ),
        (["augmentation=spectrogram", "augmentation.spectrogram.time_axis=z"], ["'z'; allowed: 'x' or 'y'"]),
        (
            ["augmentation=mirror", "augmentation.exclude={s: [double_l]}"],
            ["s: got 'double_l'; allowed: original"],
        ),
    ],
    ids=lambda value: " ".join(value)[:60],
)
def test_what_is_wrong_is_named_before_data_are_read(mine, overrides, parts):
    with pytest.raises(ConfigError) as caught:
        augmentation(*overrides)
    for part in parts:
        assert part in str(caught.value)


def test_changed_code_of_a_transform_is_another_cache_key(X, mine, tmp_path, monkeypatch):
    """HOG vectors of yesterday's transform must not be taken for those of today's."""
    mine = ["+augmentation.n.transform=my_views.noise", "+augmentation.f.views=[my_views.flip_polarity]"]
    overrides = ["augmentation=none", *mine]
    before = applied(augmentation(*overrides), X)[0].keys
    assert applied(augmentation(*overrides), X)[0].keys == before
    (tmp_path / "my_views.py").write_text(MINE.replace("255 - image", "254 - image"))
    monkeypatch.delitem(sys.modules, "my_views")
    after = applied(augmentation(*overrides), X)[0].keys
    assert set(before) & set(after) == set(X.keys)


FAMILIES = {
    "hog_svm": ["model=hog_svm", "hog.size_px=24", "hog.cell_px=8"],
    "pixels": ["model=pixels"],
    "resnet18": tiny("resnet18", "cascade_stage=flat", epochs=1),
    "a cascade of both": tiny("resnet18", "stages.hard.model=pixels", epochs=1),
}
GROUP = {option: [f"augmentation={option}"] for option in Groups(search_path()).options("augmentation")}
PAIRS = [("hog_svm", option) for option in GROUP | OPTIONS]
PAIRS += [("resnet18", option) for option in ("list", "torchvision", "function")]
PAIRS += [("pixels", "list"), ("a cascade of both", "list")]


@pytest.mark.parametrize(("model", "option"), PAIRS)
def test_every_augmentation_fits_every_family(X, mine, model, option):
    """One that only some families take would be found in the middle of a comparison."""
    config = cli.composed([*FAMILIES[model], *(GROUP | OPTIONS)[option]])
    images, rows = applied(config.augmentation, X, per_epoch=config.has_epochs)
    y = np.array(["noise_DNS", "noise_Tip-off", "brak_Station", "noise_Tip-off"], object)
    first, second = (config.estimator().fit(images, y[rows], X, y).predict_proba(X) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.shape == (4, 3)


def test_cross_validation_is_reproducible_under_random_transforms(run_here, demo_root):
    """Random copies belong to a record: folds, and a second run, find the same ones."""
    words = [f"data.demo_dir={demo_root}", "data.scale=0.1", "model=pixels"]
    words += ["validation=kfold", "validation.k=2", "augmentation=[mirror,spectrogram]"]
    first, second = (run_here(*words, name=name) / "oof_predictions.csv" for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()

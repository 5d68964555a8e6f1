"""Mirrored and doubled variants: the right half, on the right side, of the right records."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spectro.data.augmentation import VARIANTS, expand, vary

IMAGES = st.tuples(st.integers(0, 3), st.integers(1, 5), st.integers(1, 9), st.sampled_from([(), (3,)])).flatmap(
    lambda s: arrays(np.uint8, (*s[:3], *s[3]))
)


def test_variants_of_an_even_and_an_odd_width_by_hand():
    even, odd = np.array([[[1, 2, 3, 4]]]), np.array([[[1, 2, 3, 4, 5]]])
    assert vary(even, "mirrored").tolist() == [[[4, 3, 2, 1]]]
    assert vary(even, "double_l").tolist() == [[[1, 2, 2, 1]]]
    assert vary(even, "double_r").tolist() == [[[4, 3, 3, 4]]]
    assert vary(odd, "double_l").tolist() == [[[1, 2, 3, 2, 1]]]
    assert vary(odd, "double_r").tolist() == [[[5, 4, 3, 4, 5]]]


@given(IMAGES)
def test_mirroring_twice_changes_nothing(images):
    np.testing.assert_array_equal(vary(vary(images, "mirrored"), "mirrored"), images)


@given(IMAGES, st.sampled_from(["double_l", "double_r"]))
def test_doubled_images_are_symmetric_and_keep_their_half(images, variant):
    before = images.copy()
    doubled = vary(images, variant)
    np.testing.assert_array_equal(doubled[:, :, ::-1], doubled)
    half = (images.shape[2] + 1) // 2  # with the middle column
    kept = slice(0, half) if variant == "double_l" else slice(images.shape[2] - half, None)
    np.testing.assert_array_equal(doubled[:, :, kept], images[:, :, kept])
    assert (doubled.dtype, doubled.shape) == (images.dtype, images.shape)
    np.testing.assert_array_equal(images, before)  # the cache's pixels are not written over


@given(IMAGES)
def test_one_doubled_half_is_the_other_of_the_mirror_image(images):
    np.testing.assert_array_equal(vary(vary(images, "mirrored"), "double_l"), vary(images, "double_r"))


def test_an_unknown_variant_is_refused_by_name():
    with pytest.raises(ValueError, match=r"got 'upside_down'; allowed: original, mirrored, double_l, double_r"):
        vary(np.zeros((1, 2, 2)), "upside_down")


def test_every_option_starts_with_the_original():
    assert {name: variants[0] for name, variants in VARIANTS.items()} == dict.fromkeys(VARIANTS, "original")
    assert [len(variants) for variants in VARIANTS.values()] == [1, 2, 4]


def test_expand_goes_record_by_record_and_keeps_exclusions_out():
    rows, variants = expand(
        ["s", "t"], VARIANTS["mirror_halves"], {"t": ["double_l", "mirrored"], "ghost": ["mirrored"]}
    )
    assert rows.tolist() == [0, 0, 0, 0, 1, 1]
    assert variants.tolist() == ["original", "mirrored", "double_l", "double_r", "original", "double_r"]


def test_exclusions_hold_for_every_record_of_a_source():
    rows, variants = expand(["s", "t", "s"], VARIANTS["mirror"], {"s": ["mirrored"]})
    assert list(zip(rows, variants, strict=True)) == [
        (0, "original"),
        (1, "original"),
        (1, "mirrored"),
        (2, "original"),
    ]


@pytest.mark.parametrize("variants", [(), ("original",)])
def test_expanding_nothing_gives_usable_empty_indices(variants):
    rows, names = expand([], variants)
    assert np.arange(3)[rows].shape == names.shape == (0,)

"""One file -> pixels: every pixel type right, margins first, and one kind of error for whatever is wrong."""

import io
import random
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
import tifffile
from PIL import Image
from PIL.ImageOps import invert

from spectro.data.decode import BadImageError, Crop, ImageSpec, decode, fit

# Pillow warns of odd metadata and of sizes that are refused here.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")

HEIGHT, WIDTH = 6, 9
NOISE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 4), dtype=np.uint8)
GREY, RGB = Image.fromarray(NOISE[..., 0]), Image.fromarray(NOISE[..., :3])
DEEP = np.random.default_rng(1).integers(0, 65536, (HEIGHT, WIDTH, 3)).astype(np.uint16)
SHALLOW = np.round(DEEP / 257)


def file_of(image: Image.Image, format: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def tiff_of(pixels: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


def png_of_size(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is as large as this."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP", "WEBP"])
@pytest.mark.parametrize("image", [GREY, RGB, RGB.convert("P"), GREY.convert("1")], ids=["grey", "RGB", "P", "1 bit"])
def test_lossless_formats_give_the_pixels_back(image, format):
    options = {"lossless": True} if format == "WEBP" else {}
    decoded = decode(file_of(image, format, **options))
    assert decoded.mode in ("L", "RGB")
    np.testing.assert_array_equal(decoded.convert("RGB"), image.convert("RGB"))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_comes_near_in_every_colour_model(mode):
    flat = Image.new("RGB", (WIDTH, HEIGHT), (200, 90, 30)).convert(mode)
    decoded = np.asarray(decode(file_of(flat, "JPEG", quality=95)).convert("RGB"), dtype=int)
    assert np.abs(decoded - np.asarray(flat.convert("RGB"), dtype=int)).max() <= 6


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_parts_are_white_paper(mode, format):
    image = Image.new(mode, (2, 1), (10, 0) if mode == "LA" else (10, 20, 30, 0))
    image.putpixel((1, 0), (10, 255) if mode == "LA" else (10, 20, 30, 255))
    decoded = decode(file_of(image, format))
    assert [decoded.getpixel((x, 0)) for x in (0, 1)] == [(255,) * 3, (10,) * 3 if mode == "LA" else (10, 20, 30)]
    assert decode(file_of(GREY, transparency=int(NOISE[0, 0, 0]))).getpixel((0, 0)) == (255,) * 3


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_deep_grey_keeps_its_full_range(format):
    deep = np.array([[0, 128, 129, 257, 32768, 65535]], dtype=np.uint16)
    decoded = decode(file_of(Image.fromarray(deep), format))
    assert decoded.mode == "L"
    assert np.asarray(decoded).tolist() == [[0, 0, 1, 1, 128, 255]]


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"tile": (16, 16)}, {"bigtiff": True}], ids=str)
def test_deep_colour_tiffs(options, byteorder):
    decoded = np.asarray(decode(tiff_of(DEEP, photometric="rgb", byteorder=byteorder, **options)), dtype=float)
    assert np.abs(decoded - SHALLOW).max() <= 1  # Pillow cuts the low byte off, which is not rounding


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}], ids=str)
def test_planar_tiffs_are_not_read_as_interleaved(dtype, options):
    pixels = DEEP if dtype == np.uint16 else NOISE[..., :3]
    planes = np.moveaxis(pixels, 2, 0)
    decoded = np.asarray(decode(tiff_of(planes, photometric="rgb", planarconfig="separate", **options)), dtype=float)
    assert np.abs(decoded - (SHALLOW if dtype == np.uint16 else pixels)).max() <= 1


def test_white_is_zero_holds_for_shallow_and_deep_tiffs_alike():
    shallow = np.asarray(decode(tiff_of(NOISE[..., 0], photometric="miniswhite")))
    deep = np.asarray(decode(tiff_of(NOISE[..., 0].astype(np.uint16) * 257, photometric="miniswhite")))
    np.testing.assert_array_equal(shallow, 255 - NOISE[..., 0])
    np.testing.assert_array_equal(deep, shallow)


@pytest.mark.parametrize("format", ["TIFF", "PNG", "WEBP"])
def test_of_several_frames_the_first_counts(format):
    options = {"lossless": True} if format == "WEBP" else {}
    data = file_of(RGB, format, save_all=True, append_images=[invert(RGB)], **options)
    np.testing.assert_array_equal(decode(data).convert("RGB"), RGB)


@pytest.mark.parametrize(("format", "deep"), [("PNG", False), ("PNG", True), ("TIFF", False), ("TIFF", True)])
def test_orientation_is_obeyed_at_every_depth(format, deep):
    image = Image.fromarray(DEEP[..., 0]) if deep else RGB
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    upright, turned = (np.asarray(decode(file_of(image, format, **options))) for options in ({}, {"exif": exif}))
    np.testing.assert_array_equal(turned, np.rot90(upright, -1))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "zero bytes"),
        (b"nothing like an image", "not a PNG, JPEG, TIFF, BMP or WebP"),
        (file_of(RGB, "GIF"), "not a PNG, JPEG, TIFF, BMP or WebP"),
        (file_of(RGB, "EPS"), "not a PNG, JPEG, TIFF, BMP or WebP"),  # reading it would start Ghostscript
        (file_of(RGB)[:-30], "unreadable or truncated"),
        (file_of(RGB, "JPEG")[:-60], "unreadable or truncated"),
        (file_of(RGB, "BMP")[:-9], "unreadable or truncated"),
        (tiff_of(DEEP, photometric="rgb")[:-9], "unreadable or truncated"),
        (tiff_of(DEEP[..., 0].astype(np.float32)), "floating-point"),
        (tiff_of(np.array([[-5, 5]], np.int16)), "pixel values from -5 to 5"),
        (tiff_of(np.array([[0, 70000]], np.uint32)), "pixel values from 0 to 70000"),
        (tiff_of(np.dstack([NOISE, NOISE[..., :1]]), photometric="minisblack", planarconfig="contig"), "5 channels"),
    ],
)
def test_what_gives_no_image_says_why(data, message):
    with pytest.raises(BadImageError, match=message):
        decode(data)


@pytest.mark.parametrize("size", [(20_000, 10_000), (2_000_000_000, 2_000_000_000), (10_001, 10_000)])
def test_a_small_file_of_absurd_size_is_refused_before_it_is_unpacked(size):
    with pytest.raises(BadImageError, match=r"absurdly large.*data\.max_megapixels"):
        decode(png_of_size(*size))


def test_the_size_limit_can_be_raised_and_lowered():
    big = file_of(Image.new("L", (1200, 1000)))
    deep = tiff_of(np.moveaxis(DEEP, 2, 0), photometric="rgb", planarconfig="separate", bigtiff=True)
    for data, limit in ((big, 1), (deep, 1e-5)):
        with pytest.raises(BadImageError, match=r"absurdly large.*allowed: data.max_megapixels="):
            decode(data, max_megapixels=limit)
    assert decode(big, max_megapixels=1.2).size == (1200, 1000)


@pytest.mark.parametrize("crop", [Crop(left=WIDTH), Crop(left=5, right=4), Crop(top=3, bottom=3), Crop(bottom=99)])
def test_crop_cuts_each_margin_and_what_leaves_nothing_is_an_error(crop):
    np.testing.assert_array_equal(decode(file_of(GREY), Crop(1, 2, 3, 0)), NOISE[2:, 1:-3, 0])
    assert decode(file_of(GREY), Crop(WIDTH - 1, HEIGHT - 1)).size == (1, 1)
    with pytest.raises(BadImageError, match=rf"data\.crop .* leaves nothing of an image of {WIDTH}x{HEIGHT}"):
        decode(file_of(GREY), crop)


@pytest.mark.parametrize("image", [GREY, RGB], ids=["grey", "RGB"])
@pytest.mark.parametrize("spec", [ImageSpec(4, "L"), ImageSpec((12, 5), "RGB"), ImageSpec(1, "RGB")], ids=str)
def test_fit_gives_the_geometry_asked_for(image, spec):
    decoded = fit(image, spec)
    assert (decoded.shape, decoded.dtype) == (spec.shape, np.uint8)


@pytest.mark.parametrize("how", ["squash", "center_crop", "pad"])
@pytest.mark.parametrize("size_px", [3, (14, 5)], ids=str)
def test_a_grey_image_has_the_bytes_of_the_same_one_in_colour(size_px, how):
    """It is resized in one channel in place of three."""
    spec = ImageSpec(size_px, "RGB", how)
    np.testing.assert_array_equal(fit(GREY, spec), fit(GREY.convert("RGB"), spec))


@pytest.mark.parametrize(
    "data",
    [
        file_of(RGB),
        file_of(RGB, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"),
        file_of(RGB, "WEBP"),
        file_of(RGB, "BMP"),
        tiff_of(DEEP, photometric="rgb", tile=(16, 16)),
        tiff_of(np.moveaxis(DEEP, 2, 0), photometric="rgb", planarconfig="separate", compression="zlib"),
        tiff_of(DEEP, photometric="rgb", bigtiff=True),
    ],
    ids=["PNG", "JPEG", "WEBP", "BMP", "tiles", "planes", "BigTIFF"],
)
def test_damage_anywhere_gives_an_image_or_the_one_error(data):
    """The decoders below raise struct.error, zlib.error, ZeroDivisionError ... on damage; none may come through."""
    rng = random.Random(0)
    for _ in range(60):
        damaged = bytearray(data[: rng.choice([len(data), rng.randrange(len(data))])])
        for _ in range(min(rng.choice([1, 4]), len(damaged))):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        with suppress(BadImageError):
            assert decode(bytes(damaged), max_megapixels=1).mode in ("L", "RGB")

"""Demo data: shot records from a physical model, drawn as images and sorted into splits and classes.

The two label sets have the classes and record counts of the real ones. What the classes stand for here:

`field`, recorded on land:
    `brak_Empty zone`: groups of stations are dead, so that zones of the record are empty.
    `brak_Station`: a regular row of stations drowns in noise, and little is seen of the shot.
    `noise_DNS`: pumps beside the line hum from start to end; their nearest stations hear them as a group.
    `noise_Tip-off`: tipped-over geophones ring at their own frequency after the first arrival and die down.
`lake`, recorded on ice:
    `brak`: strong noise at every station, badly coupled stations, dead groups.
    `noise_clean`: the shot with hardly a noisy station.
    `noise_ice_cracking`: cracks running outwards along the ice leave tilted streaks.
    `noise_lake`: badly coupled stations ring, the odd crack is weak.

In each set the two noise classes at the end look alike. No class prefers a side, so a mirrored record keeps its class.
"""

from __future__ import annotations

import functools
import math
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from spectro.demo.model import OFFSET_M, SAMPLE_COUNT, SAMPLE_INTERVAL_S, TRACE_COUNT, RecordModel
from spectro.demo.physics import synthesise
from spectro.paths import cores

COUNTS: dict[str, dict[str, dict[str, int]]] = {
    "field": {
        "train": {"brak_Empty zone": 6, "brak_Station": 5, "noise_DNS": 65, "noise_Tip-off": 19},
        "val": {"brak_Empty zone": 2, "brak_Station": 2, "noise_DNS": 13, "noise_Tip-off": 4},
        "test": {"brak_Empty zone": 2, "brak_Station": 2, "noise_DNS": 15, "noise_Tip-off": 5},
    },
    "lake": {
        "train": {"brak": 10, "noise_clean": 19, "noise_ice_cracking": 9, "noise_lake": 41},
        "val": {"brak": 2, "noise_clean": 4, "noise_ice_cracking": 2, "noise_lake": 8},
        "test": {"brak": 3, "noise_clean": 5, "noise_ice_cracking": 3, "noise_lake": 10},
    },
}
"""Sources per label set, split and class at scale 1."""

# Part of the default folder's name: raise it when the same seed gives other images.
VERSION = 1
CROP_PX: dict[str, int] = {"left": 94, "top": 41, "right": 13, "bottom": 0}
"""What to crop from an image to be left with the plot area alone."""

_TRACE_WIDTH_PX = 2
_PLOT_WIDTH_PX = TRACE_COUNT * _TRACE_WIDTH_PX
_PLOT_HEIGHT_PX = SAMPLE_COUNT
_IMAGE_WIDTH_PX = CROP_PX["left"] + _PLOT_WIDTH_PX + CROP_PX["right"]
_IMAGE_HEIGHT_PX = CROP_PX["top"] + _PLOT_HEIGHT_PX + CROP_PX["bottom"]

# Amplitude -1 ... 1 in this many steps; two more palette places belong to the margins alone.
_SHADES = 65
_WHITE, _INK = _SHADES, _SHADES + 1
_NAME_COUNT = 1_000_000

_LAND = RecordModel()
_ICE = RecordModel()
_ROUGH_ICE = replace(_ICE, column_reach_m=(100.0, 150.0), ringing_station_count=(6, 12), noisy_station_count=(1, 4))

_MODELS: dict[str, dict[str, RecordModel]] = {
    "field": {
        "brak_Empty zone": replace(
            _LAND, dead_zone_count_per_side=(1, 1), dead_zone_start_m=(150.0, 400.0), dead_zone_width_m=(700.0, 1300.0)
        ),
        "brak_Station": replace(
            _LAND,
            body_amplitude=(0.3, 0.8),
            reflection_amplitude=(0.05, 0.15),
            roll_amplitude=(0.5, 1.0),
            coda_amplitude=(0.5, 1.5),
            column_amplitude=(0.0, 1.0),
            ambient_amplitude=(0.6, 1.1),
            row_period_m=(240.0, 330.0),
            row_amplitude=(12.0, 20.0),
            display_gain_power=(-0.5, -0.2),
            display_clipped_share=(0.05, 0.08),
        ),
        "noise_DNS": replace(
            _LAND,
            ringing_station_count=(1, 4),
            machine_count_per_side=(1, 2),
            machine_standoff_m=(8.0, 25.0),
            machine_amplitude=(1.4, 3.2),
        ),
        "noise_Tip-off": replace(
            _LAND,
            noisy_station_count=(0, 3),
            ringing_station_count=(3, 6),
            ringing_station_hz=(9.0, 13.0),
            ringing_bandwidth_hz=(2.0, 4.0),
        ),
    },
    "lake": {
        "brak": replace(
            _ICE, ambient_amplitude=(0.9, 1.8), coupling_spread=(0.5, 0.8), dead_zone_count_per_side=(0, 1)
        ),
        "noise_clean": replace(
            _ICE, column_reach_m=(45.0, 80.0), noisy_station_count=(0, 1), ringing_station_count=(0, 1)
        ),
        "noise_ice_cracking": replace(_ROUGH_ICE, ringing_station_count=(3, 6), crack_count_per_side=(3, 4)),
        "noise_lake": replace(
            _ROUGH_ICE, ringing_station_count=(7, 13), crack_count_per_side=(0, 1), crack_amplitude=(2.0, 5.0)
        ),
    },
}


@dataclass(frozen=True)
class _Record:
    """Where a record is written, and from what.

    Attributes:
        path: The image file.
        model: The parameters of its class.
        entropy: The seed of all random numbers in it.
    """

    path: Path
    model: RecordModel
    entropy: Sequence[int]


def make_demo(
    root: Path,
    label_set: str,
    *,
    seed: int = 0,
    scale: float = 1.0,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Writes the demo images to `root/{train,val,test}/<class>/<name>.png` unless `root` is there already.

    The same label set, seed and scale give the same bytes; a larger scale keeps the records of a smaller one. The
    folder appears whole or not at all: images are written beside it and moved into place at the end, so a run that
    is killed leaves nothing at `root`, and of two runs at once the slower one discards its copy.

    Args:
        root: Folder to make. One that holds these records already is returned as it is.
        label_set: A key of `COUNTS`.
        seed: Seed of all chance, not negative.
        scale: Multiplies the counts; each class keeps at least one record in each split.
        on_progress: Called after each image with (done, total) images.

    Returns:
        `root`.

    Raises:
        ValueError: `label_set`, `seed` or `scale` isn't allowed, or `scale` asks for more records than there are names,
            or `root` holds something else.
        NotADirectoryError: `root` is a file.
    """
    records = _records(root, label_set, seed, scale)
    if root.exists() and any(root.iterdir()):
        absent = [record.path for record in records if not record.path.exists()]
        if absent:
            raise ValueError(
                f"{root} holds other files than the demo data: {len(absent)} of {len(records)} images are not there, "
                f"e.g. {absent[0].name}; allowed: another folder, or your own images with data=folder"
            )
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    draft = root.parent / f".{root.name}.{os.getpid()}.{secrets.token_hex(4)}"
    try:
        _write_all([replace(record, path=draft / record.path.relative_to(root)) for record in records], on_progress)
        try:
            draft.rename(root)
        except OSError:
            # Another process was quicker; its data set is the same.
            if not (root.is_dir() and any(root.iterdir())):
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return root


def _records(root: Path, label_set: str, seed: int, scale: float) -> list[_Record]:
    if label_set not in COUNTS:
        raise ValueError(f"label_set: got {label_set!r}; allowed: {', '.join(COUNTS)}")
    splits = COUNTS[label_set]
    n_classes = sum(map(len, splits.values()))
    largest_scale = _NAME_COUNT // max(n for classes in splits.values() for n in classes.values()) // n_classes
    if not 0 < scale <= largest_scale:
        raise ValueError(f"scale: got {scale!r}; allowed: above 0, at most {largest_scale}, or file names run out")
    if seed < 0:
        raise ValueError(f"seed: got {seed!r}; allowed: 0 and above")
    set_number = list(COUNTS).index(label_set)
    # A shuffle of all numbers, so that neither order nor gaps between names tell the class.
    names = np.random.default_rng(np.random.SeedSequence([seed, set_number])).permutation(_NAME_COUNT)
    records = []
    for split_number, (split, classes) in enumerate(splits.items()):
        for class_number, (label, count) in enumerate(classes.items()):
            for index in range(max(1, round(count * scale))):
                # The name of a record is the same at every scale.
                name = names[(index * len(splits) + split_number) * len(classes) + class_number]
                entropy = (seed, set_number, split_number, class_number, index)
                path = root / split / label / f"_{name:06d}.png"
                records.append(_Record(path, _MODELS[label_set][label], entropy))
    return records


def _write_all(records: Sequence[_Record], on_progress: Callable[[int, int], None] | None) -> None:
    for folder in {record.path.parent for record in records}:
        folder.mkdir(parents=True)

    def write(record: _Record) -> None:
        _image(record).save(record.path, format="PNG", compress_level=6)

    # numpy and zlib work outside the interpreter lock.
    with ThreadPoolExecutor(cores()) as pool:
        for done, _ in enumerate(pool.map(write, records), start=1):
            if on_progress is not None:
                on_progress(done, len(records))


def _image(record: _Record) -> Image.Image:
    """The record as a palette image with its margins."""
    rng = np.random.default_rng(np.random.SeedSequence(record.entropy))
    amplitude = synthesise(record.model, rng)
    half = (_SHADES - 1) // 2
    shades = np.rint((amplitude + 1.0) * half).astype(np.uint8)
    canvas = _margins().copy()
    left, top = CROP_PX["left"], CROP_PX["top"]
    canvas[top : top + _PLOT_HEIGHT_PX, left : left + _PLOT_WIDTH_PX] = shades.repeat(_TRACE_WIDTH_PX, axis=1)
    image = Image.fromarray(canvas)
    image.putpalette(_palette())
    return image


@functools.cache
def _palette() -> bytes:
    """Pale paper at rest, over olive grey to dark red for pushes and to near black for pulls."""
    shares = (0.0, 0.25, 0.5, 0.75, 1.0)
    push = ((252, 250, 246), (214, 208, 190), (150, 120, 100), (140, 20, 20), (110, 2, 2))
    pull = ((252, 250, 246), (214, 208, 190), (140, 130, 110), (80, 30, 25), (30, 4, 4))
    rows = []
    for value in np.linspace(-1.0, 1.0, _SHADES):
        stops = push if value >= 0 else pull
        rows.append([round(float(np.interp(abs(value), shares, channel))) for channel in zip(*stops, strict=True)])
    rows += [[255, 255, 255], [0, 0, 0]]
    return bytes(value for row in rows for value in row)


@functools.cache
def _margins() -> npt.NDArray[np.uint8]:
    """Palette indices of an empty plot: frame, ticks and labels, all of them outside the plot area."""
    image = Image.new("L", (_IMAGE_WIDTH_PX, _IMAGE_HEIGHT_PX), _WHITE)
    draw = ImageDraw.Draw(image)
    # The built-in bitmap font without smoothing: the same pixels whatever fonts a machine has.
    draw.fontmode = "1"
    font = ImageFont.load_default_imagefont()
    left, top = CROP_PX["left"], CROP_PX["top"]
    draw.line([(left - 1, _IMAGE_HEIGHT_PX - 1), (left - 1, top - 1), (left + _PLOT_WIDTH_PX, top - 1)], fill=_INK)
    draw.line([(left + _PLOT_WIDTH_PX, top - 1), (left + _PLOT_WIDTH_PX, _IMAGE_HEIGHT_PX - 1)], fill=_INK)
    for tenths in range(0, math.ceil(SAMPLE_COUNT * SAMPLE_INTERVAL_S * 10), 2):
        y = top + round(tenths / 10 / SAMPLE_INTERVAL_S)
        draw.line([(left - 6, y), (left - 1, y)], fill=_INK)
        draw.text((left - 30, y - 5), f"{tenths / 10:.1f}", fill=_INK, font=font)
    spacing_m = float(OFFSET_M[1] - OFFSET_M[0])
    for offset_m in range(-2000, 2001, 500):
        x = left + round((offset_m - float(OFFSET_M[0])) / spacing_m * _TRACE_WIDTH_PX)
        draw.line([(x, top - 6), (x, top - 1)], fill=_INK)
        text = str(offset_m)
        draw.text((x - round(draw.textlength(text, font=font) / 2), top - 18), text, fill=_INK, font=font)
    draw.text((left + _PLOT_WIDTH_PX // 2 - 28, 6), "Offset, m", fill=_INK, font=font)
    draw.text((14, top + _PLOT_HEIGHT_PX // 2 - 6), "Time, s", fill=_INK, font=font)
    return np.asarray(image).copy()

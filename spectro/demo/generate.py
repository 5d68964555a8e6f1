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
import glob
import math
import secrets
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from spectro.demo.model import (
    OFFSET_M,
    SAMPLE_COUNT,
    SAMPLE_INTERVAL_S,
    TRACE_COUNT,
    TRACE_SPACING_M,
    RecordModel,
)
from spectro.demo.physics import synthesise
from spectro.files import draft_of, remove_drafts
from spectro.paths import cores
from spectro.progress import progress

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

# Amplitude -1 ... 1 in this many steps; two more palette places belong to the margins alone.
_SHADES = 65
_WHITE, _INK = _SHADES, _SHADES + 1
_NAME_COUNT = 1_000_000

_CLEAN = RecordModel()
_ROUGH_ICE = replace(_CLEAN, column_reach_m=(100.0, 150.0), ringing_station_count=(6, 12), noisy_station_count=(1, 4))

_MODELS: dict[str, dict[str, RecordModel]] = {
    "field": {
        "brak_Empty zone": replace(
            _CLEAN, dead_zone_count_per_side=(1, 1), dead_zone_start_m=(150.0, 400.0), dead_zone_width_m=(700.0, 1300.0)
        ),
        "brak_Station": replace(
            _CLEAN,
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
            _CLEAN,
            ringing_station_count=(1, 4),
            machine_count_per_side=(1, 2),
            machine_standoff_m=(8.0, 25.0),
            machine_amplitude=(1.4, 3.2),
        ),
        "noise_Tip-off": replace(
            _CLEAN,
            noisy_station_count=(0, 3),
            ringing_station_count=(3, 6),
            ringing_station_hz=(9.0, 13.0),
            ringing_bandwidth_hz=(2.0, 4.0),
        ),
    },
    "lake": {
        "brak": replace(
            _CLEAN, ambient_amplitude=(0.9, 1.8), coupling_spread=(0.5, 0.8), dead_zone_count_per_side=(0, 1)
        ),
        "noise_clean": replace(
            _CLEAN, column_reach_m=(45.0, 80.0), noisy_station_count=(0, 1), ringing_station_count=(0, 1)
        ),
        "noise_ice_cracking": replace(_ROUGH_ICE, ringing_station_count=(3, 6), crack_count_per_side=(3, 4)),
        "noise_lake": replace(
            _ROUGH_ICE, ringing_station_count=(7, 13), crack_count_per_side=(0, 1), crack_amplitude=(2.0, 5.0)
        ),
    },
}


def make_demo(root: Path, label_set: str, *, seed: int = 0, scale: float = 1.0) -> Path:
    """Writes the demo images to `root/{train,val,test}/<class>/<name>.png` unless `root` is there already.

    The same label set, seed and scale give the same bytes; a larger scale keeps the records of a smaller one. The
    folder appears whole or not at all: images are written beside it and moved into place at the end, so a run that
    is killed leaves nothing at `root`, and of two runs at once the slower one discards its copy.

    Args:
        root: Folder to make. One that holds these records already is returned as it is.
        label_set: A key of `COUNTS`.
        seed: Seed of all chance, not negative.
        scale: Multiplies the counts; each class keeps at least one record in each split.

    Returns:
        `root`.

    Raises:
        ValueError: `label_set`, `seed` or `scale` is not allowed, or `scale` asks for more records than there are
            names, or `root` holds something else.
        NotADirectoryError: `root` is a file.
    """
    records = _records(label_set, seed, scale)
    if root.exists() and any(root.iterdir()):
        absent = [path for path in records if not (root / path).exists()]
        if absent:
            raise ValueError(
                f"{root} holds other files than the demo data: {len(absent)} of {len(records)} images are not there, "
                f"e.g. {Path(absent[0]).name}; allowed: another folder, or your own images with data=folder"
            )
        return root
    remove_drafts(root.parent, f".{glob.escape(root.name)}.*.tmp", has_others=True)
    draft = draft_of(root.with_name(f"{root.name}.{secrets.token_hex(4)}"))

    def write(path: str) -> None:
        _image(*records[path]).save(draft / path, format="PNG", compress_level=6)

    try:
        for folder in {(draft / path).parent for path in records}:
            folder.mkdir(parents=True)
        # numpy and zlib work outside the interpreter lock.
        with progress("making demo data", len(records)) as advance, ThreadPoolExecutor(cores()) as pool:
            for _ in pool.map(write, records):
                advance(1)
        try:
            draft.rename(root)
        except OSError:
            # Another process was quicker; its data set is the same.
            if not (root.is_dir() and any(root.iterdir())):
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return root


def _records(label_set: str, seed: int, scale: float) -> dict[str, tuple[RecordModel, Sequence[int]]]:
    """The path of each record below the folder -> the model of its class, and the seed of all chance in it."""
    if label_set not in COUNTS:
        raise ValueError(f"label_set: got {label_set!r}; allowed: {', '.join(COUNTS)}")
    if seed < 0:
        raise ValueError(f"seed: got {seed!r}; allowed: 0 and above")
    if not 0 < scale <= 1000:
        raise ValueError(f"scale: got {scale!r}; allowed: above 0, at most 1000, or file names run out")
    splits, set_number = COUNTS[label_set], list(COUNTS).index(label_set)
    # A shuffle of all numbers, so that neither order nor gaps between names tell the class.
    names = np.random.default_rng([seed, set_number]).permutation(_NAME_COUNT)
    records: dict[str, tuple[RecordModel, Sequence[int]]] = {}
    for split_number, (split, classes) in enumerate(splits.items()):
        for class_number, (label, count) in enumerate(classes.items()):
            for index in range(max(1, round(count * scale))):
                # The name of a record is the same at every scale.
                name = names[(index * len(splits) + split_number) * len(classes) + class_number]
                seeds = (seed, set_number, split_number, class_number, index)
                records[f"{split}/{label}/_{name:06d}.png"] = _MODELS[label_set][label], seeds
    return records


def _image(model: RecordModel, seeds: Sequence[int]) -> Image.Image:
    """A record as a palette image with its margins."""
    amplitude = synthesise(model, np.random.default_rng(seeds))
    shades = np.rint((amplitude + 1.0) * (_SHADES // 2)).astype(np.uint8)
    canvas = _margins().copy()
    left, top = CROP_PX["left"], CROP_PX["top"]
    canvas[top : top + _PLOT_HEIGHT_PX, left : left + _PLOT_WIDTH_PX] = shades.repeat(_TRACE_WIDTH_PX, axis=1)
    image = Image.fromarray(canvas)
    image.putpalette(_palette())
    return image


@functools.cache
def _palette() -> bytes:
    """Pale paper at rest, over olive grey to dark red for pushes and to near black for pulls."""
    pulls = ((30, 4, 4), (80, 30, 25), (140, 130, 110), (214, 208, 190))
    pushes = ((214, 208, 190), (150, 120, 100), (140, 20, 20), (110, 2, 2))
    stops = (*pulls, (252, 250, 246), *pushes)
    amplitude, at = np.linspace(-1.0, 1.0, _SHADES), np.linspace(-1.0, 1.0, len(stops))
    channels = [np.rint(np.interp(amplitude, at, channel)) for channel in zip(*stops, strict=True)]
    return np.stack(channels, axis=1).astype(np.uint8).tobytes() + bytes([255, 255, 255, 0, 0, 0])


@functools.cache
def _margins() -> npt.NDArray[np.uint8]:
    """Palette indices of an empty plot: frame, ticks and labels, all of them outside the plot area."""
    left, top = CROP_PX["left"], CROP_PX["top"]
    right, bottom = left + _PLOT_WIDTH_PX, top + _PLOT_HEIGHT_PX
    image = Image.new("L", (right + CROP_PX["right"], bottom + CROP_PX["bottom"]), _WHITE)
    draw = ImageDraw.Draw(image)
    # The built-in bitmap font without smoothing: the same pixels whatever fonts a machine has.
    draw.fontmode = "1"
    font = ImageFont.load_default_imagefont()
    draw.line([(left - 1, bottom - 1), (left - 1, top - 1), (right, top - 1), (right, bottom - 1)], fill=_INK)
    for tenths in range(0, math.ceil(SAMPLE_COUNT * SAMPLE_INTERVAL_S * 10), 2):
        y = top + round(tenths / 10 / SAMPLE_INTERVAL_S)
        draw.line([(left - 6, y), (left - 1, y)], fill=_INK)
        draw.text((left - 30, y - 5), f"{tenths / 10:.1f}", fill=_INK, font=font)
    for offset_m in range(-2000, 2001, 500):
        x = left + round((offset_m - OFFSET_M[0]) / TRACE_SPACING_M * _TRACE_WIDTH_PX)
        draw.line([(x, top - 6), (x, top - 1)], fill=_INK)
        draw.text((x - round(draw.textlength(str(offset_m), font=font) / 2), top - 18), str(offset_m), _INK, font)
    draw.text((left + _PLOT_WIDTH_PX // 2 - 28, 6), "Offset, m", fill=_INK, font=font)
    draw.text((14, top + _PLOT_HEIGHT_PX // 2 - 6), "Time, s", fill=_INK, font=font)
    return np.asarray(image).copy()

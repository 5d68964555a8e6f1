"""The demo data: complete, repeatable, whole or not there at all, and shaped like the physics says."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spectro.demo import generate as demo
from spectro.demo.generate import COUNTS, CROP_PX, make_demo
from spectro.demo.physics import (
    OFFSET_M,
    SAMPLE_COUNT,
    SAMPLE_INTERVAL_S,
    TRACE_COUNT,
    RecordModel,
    reflection_time_s,
    ricker_spectrum,
    synthesise,
)

SMALL = 0.05


def digests(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*.png"))
    }


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_demo(tmp_path_factory.mktemp("demo") / "field", "field", scale=SMALL)


def test_full_counts_are_those_of_the_real_sets() -> None:
    """A wrong count would change every reported score."""
    assert COUNTS["field"]["train"] == {"brak_Empty zone": 6, "brak_Station": 5, "noise_DNS": 65, "noise_Tip-off": 19}
    assert list(COUNTS["lake"]["val"].values()) == [2, 4, 2, 8]
    assert [sum(labels.values()) for labels in COUNTS["field"].values()] == [95, 21, 24]
    assert [sum(labels.values()) for labels in COUNTS["lake"].values()] == [79, 16, 21]


def test_every_class_is_written_with_its_scaled_count(tmp_path: Path) -> None:
    """A class lost by rounding to nought would leave a split that can't be trained or scored on."""
    root = make_demo(tmp_path / "lake", "lake", scale=0.2)
    for split, labels in COUNTS["lake"].items():
        counts = {path.name: len(list(path.glob("*.png"))) for path in (root / split).iterdir()}
        assert counts == {label: max(1, round(count * 0.2)) for label, count in labels.items()}


def test_same_seed_gives_the_same_bytes(field: Path, tmp_path: Path) -> None:
    """Hidden state or order (here: another set made in between) would make runs incomparable."""
    make_demo(tmp_path / "lake", "lake", scale=SMALL)
    # A larger scale keeps the records of a smaller one.
    again = digests(make_demo(tmp_path / "field", "field", scale=3 * SMALL))
    assert digests(field).items() < again.items()
    other = make_demo(tmp_path / "other", "field", scale=SMALL, seed=1)
    assert not set(digests(other).values()) & set(digests(field).values())


def test_file_names_are_unique_and_in_no_order(field: Path) -> None:
    """Two splits sharing a stem would count as leaked; names ordered by class would give the answer away."""
    stems = [path.stem for path in field.rglob("*.png")]
    assert len(set(stems)) == len(stems)
    assert all(len(stem) == 7 and stem[0] == "_" and stem[1:].isdigit() for stem in stems)
    by_class = [int(path.stem[1:]) for path in sorted(field.rglob("*.png"), key=lambda path: path.parent.as_posix())]
    assert by_class != sorted(by_class)


def test_crop_removes_the_margins_exactly(field: Path) -> None:
    """One pixel too few leaves axis ink for a model to learn, one too many loses data."""
    for path in field.rglob("*.png"):
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB")).astype(int)
        height, width, _ = pixels.shape
        inside = np.zeros((height, width), dtype=bool)
        rows = slice(CROP_PX["top"], height - CROP_PX["bottom"])
        inside[rows, CROP_PX["left"] : width - CROP_PX["right"]] = True
        of_margin = np.all((pixels == 0) | (pixels == 255), axis=2)
        assert of_margin[~inside].all()
        assert not of_margin[inside].any()
        assert (pixels[~inside] == 0).any(), "no axes drawn"
        assert inside.sum() == TRACE_COUNT * 2 * SAMPLE_COUNT


def test_a_set_that_is_there_is_left_alone(field: Path) -> None:
    """Making it again on each start would waste seconds and undo what a user put there."""
    before = {path: path.stat().st_mtime_ns for path in field.rglob("*")}
    assert make_demo(field, "field", scale=SMALL) == field
    assert {path: path.stat().st_mtime_ns for path in field.rglob("*")} == before


def test_a_run_that_stops_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A half-made set would be taken for a whole one by the next run."""
    root, save, saved = tmp_path / "field", Image.Image.save, []

    def stop(image: Image.Image, *arguments: object, **options: object) -> None:
        assert not root.exists()
        saved.append(save(image, *arguments, **options))
        if len(saved) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", stop)
    with pytest.raises(OSError, match="No space"):
        make_demo(root, "field", scale=SMALL)
    assert list(tmp_path.iterdir()) == []


def test_two_runs_at_once_both_end_with_the_whole_set(field: Path, tmp_path: Path) -> None:
    """Two processes started together would otherwise mix or break each other's files."""
    root = tmp_path / "field"
    with ThreadPoolExecutor(2) as pool:
        for made in pool.map(lambda _: make_demo(root, "field", scale=SMALL), range(2)):
            assert digests(made) == digests(field)
    assert os.listdir(tmp_path) == ["field"]


@pytest.mark.parametrize("option", [{"label_set": "sea"}, {"scale": 0.0}, {"scale": float("nan")}, {"seed": -1}])
def test_a_wrong_value_is_named_with_what_is_allowed(tmp_path: Path, option: dict) -> None:
    """The tutorial calls this function; an error that doesn't name the value sends the user searching."""
    with pytest.raises(ValueError, match=f"{next(iter(option))}: got .*; allowed: "):
        make_demo(tmp_path / "demo", **{"label_set": "field", **option})
    assert not (tmp_path / "demo").exists()


def test_ricker_wavelet_is_that_of_the_formula() -> None:
    """A wrong spectrum would move every event's amplitude and frequency."""
    frequency_hz = np.fft.rfftfreq(512, SAMPLE_INTERVAL_S)
    wavelet = np.fft.irfft(ricker_spectrum(frequency_hz, 15.0), 512)
    time_s = np.arange(20) * SAMPLE_INTERVAL_S
    argument = (np.pi * 15.0 * time_s) ** 2
    np.testing.assert_allclose(wavelet[:20], (1 - 2 * argument) * np.exp(-argument), atol=1e-3)


def test_reflections_are_hyperbolas() -> None:
    """A straight or upside-down moveout wouldn't look like a reflection."""
    time_s = reflection_time_s(np.array([0.0, 2000.0, -2000.0]), np.array([0.8]), np.array([2500.0]), 0.0)[0]
    np.testing.assert_allclose(time_s, [0.8, np.hypot(0.8, 0.8), np.hypot(0.8, 0.8)])


def test_nothing_arrives_before_the_fastest_wave() -> None:
    """Energy before the first arrival would break the wedge that opens downwards from the source."""
    silent = RecordModel(
        ambient_amplitude=(0.0, 0.0), noisy_station_count=(0, 0), ringing_station_count=(0, 0), static_shift_s=0.0
    )
    record = synthesise(silent, np.random.default_rng(0))
    assert record.shape == (SAMPLE_COUNT, TRACE_COUNT)
    assert np.abs(record).max() == 1.0
    # Half a wavelet is there before its centre.
    earliest_s = np.abs(OFFSET_M) / silent.refractor_velocity_m_per_s[1] - 0.06
    for trace, start_s in enumerate(earliest_s):
        before = record[: max(0, int(start_s / SAMPLE_INTERVAL_S)), trace]
        assert np.abs(before).max(initial=0.0) < 0.02


@pytest.mark.parametrize(("label_set", "label"), [(s, label) for s in COUNTS for label in COUNTS[s]["train"]])
def test_no_class_prefers_a_side(label_set: str, label: str) -> None:
    """Mirroring a record must keep its class, so left and right must hold the same on average."""
    model = demo._MODELS[label_set][label]
    records = [synthesise(model, np.random.default_rng([7, seed])) for seed in range(12)]
    halves = np.abs(np.array(records)).mean(axis=1).reshape(len(records), 2, -1).mean(axis=2)
    excess = (halves[:, 0] - halves[:, 1]) / halves.mean()
    assert abs(excess.mean()) < 4 * max(excess.std() / np.sqrt(len(records)), 0.01)

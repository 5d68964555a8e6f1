"""Files of a finished run, edited at random: the same result as before, or one message."""

import json
import random
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectro.cli import main as cli
from spectro.comparison import compare
from spectro.errors import SpectroError
from spectro.runs.predict import predict_files

EDITS = ("flip", "cut", "insert", "delete", "swap", "number", "empty")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, demo_root: Path) -> dict:
    """A finished run, its labels for the images of test, and the scores of its comparison."""
    from spectro.runs.run import run

    outputs = tmp_path_factory.mktemp("fuzz")
    folder = outputs / "runs" / "run"
    folder.mkdir(parents=True)
    overrides = [f"data.demo_dir={demo_root}", "data.scale=0.1", "tracking.uri=null", f"outputs={outputs}"]
    run(cli.composed([*overrides, "model=pixels", "figures=none"]), folder)
    images = sorted((demo_root / "test").rglob("*.png"))
    predictions, _ = predict_files(folder / "model", images)
    result, _ = compare([folder], outputs=outputs)
    return {"run": folder, "images": images, "predictions": predictions, "scores": result.as_json()["models"]}


def edit(path: Path, kind: str, rng: random.Random, others: list[Path]) -> None:
    """Damages a file, as a disk, a broken copy or a person may."""
    content = bytearray(path.read_bytes())
    place = rng.randrange(max(1, len(content)))
    if kind == "flip" and content:
        content[place] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del content[place:]
    elif kind == "insert":
        content[place:place] = rng.choice([b"\x00", b"NaN", b"\xff", b'"', b"{", b"1e999", b"../../x", b"\n"])
    elif kind == "swap":
        content = bytearray(rng.choice(others).read_bytes())
    elif kind == "empty":
        content = bytearray()
    elif kind == "number":
        digits = [i for i, byte in enumerate(content) if chr(byte).isdigit()]
        if digits:
            content[rng.choice(digits)] = ord(rng.choice("0123456789-"))
    if kind == "delete":
        path.unlink()
    else:
        path.write_bytes(bytes(content))


@pytest.mark.slow
@settings(max_examples=100, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), kind=st.sampled_from(EDITS))
def test_a_damaged_run_gives_the_same_or_a_message(
    seed: int, kind: str, finished: dict, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Never a traceback, and never another label or score without a word."""
    rng, run = random.Random(seed), tmp_path_factory.mktemp("edited") / "run"
    shutil.copytree(finished["run"], run)
    files = sorted(path for path in run.rglob("*") if path.is_file() and path.suffix != ".png")
    edit(rng.choice(files), kind, rng, files)
    with suppress(SpectroError):
        predictions, bad = predict_files(run / "model", finished["images"])
        assert bad == {}
        assert list(predictions.classes) == list(finished["predictions"].classes)
        np.testing.assert_array_equal(predictions.probabilities, finished["predictions"].probabilities)
    with suppress(SpectroError):
        result, _ = compare([run], outputs=run.parent / "outputs")
        scores, expected = (next(iter(models.values())) for models in (result.as_json()["models"], finished["scores"]))
        assert json.dumps(scores["scores"]) == json.dumps(expected["scores"])
    shutil.rmtree(run.parent)

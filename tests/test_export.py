"""A run's model as an ONNX file."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SMALL_HOG, read_rows, save_image
from PIL import Image

from spectro.data.decode import ImageSpec, fit
from spectro.paths import CONF

PAGE = (CONF.parent / "docs" / "how-to" / "export.md").read_text(encoding="utf-8")
EXAMPLE, FITTED = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
# A HOG-SVM and a network in one cascade, with margins that are cut off.
CASCADE = [
    *SMALL_HOG,
    *("data.scale=0.1", "data.crop.left=9", "data.crop.bottom=5", "stages.hard.model=resnet18"),
    *("stages.hard.cnn.pretrained=false", "stages.hard.cnn.size_px=32", "stages.hard.train.epochs=1"),
]


@pytest.mark.slow
def test_the_example_without_spectro_gives_the_same_probabilities(
    run_here: Callable[..., Path], spectro: Callable[..., Any], tmp_path: Path
) -> None:
    """Who follows the page must get what ``spectro predict`` gives; what 8 bits cost must be reported."""
    pytest.importorskip("onnxruntime")
    run = run_here(*CASCADE, quiet=True)
    done = spectro("export", run, "--out", "model.onnx", "--int8")
    assert done.returncode == 0, done.stderr
    assert re.search(r"MB .*macro-F1.*\noriginal .*\nonnx .*\nint8 ", done.stdout)
    assert "records of val" in done.stdout
    assert sorted(path.name for path in tmp_path.glob("*.onnx")) == ["model.int8.onnx", "model.onnx"]
    assert str(CONF.parent).encode() not in (tmp_path / "model.onnx").read_bytes()

    save_image(tmp_path / "record.png", size=(300, 220))
    names: dict[str, Any] = {}
    exec(EXAMPLE, names)
    spectro("predict", run, "record.png", "--out", "predicted.csv")
    (row,) = read_rows(tmp_path / "predicted.csv")
    expected = [float(row[f"p_{label}"]) for label in names["about"]["classes"]]
    np.testing.assert_allclose(names["probabilities"][0], expected, atol=1e-4)


@pytest.mark.slow
def test_a_file_that_gives_other_probabilities_gets_no_name(
    run_here: Callable[..., Path], spectro: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph that is wrong must not reach anybody; where val is gone the message must not speak of val."""
    pytest.importorskip("onnxruntime")
    from spectro.runs import export

    run = run_here("data.scale=0.1", "model=pixels", "cascade_stage=flat", f"data.demo_dir={tmp_path / 'demo'}")
    with monkeypatch.context() as patched:
        patched.setattr(export, "TOLERANCE", 0.0)
        done = spectro("export", run)
    assert (done.returncode, list(tmp_path.glob("*.onnx")), list(tmp_path.glob(".*.tmp"))) == (2, [], [])
    assert re.match(r"error: onnx: got probabilities that differ by up to .* allowed: 0. Nothing was", done.stderr)
    (tmp_path / "demo").rename(tmp_path / "gone")
    done = spectro("export", run)
    assert "random images, as those of val are not there" in done.stdout
    assert len(list(tmp_path.glob("*.onnx"))) == 1


def test_what_cannot_be_exported_has_one_message(
    run_here: Callable[..., Path], spectro: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2 and nothing written: no model, a file that exists, no network for 8 bits, no extra."""
    pytest.importorskip("onnxruntime")
    run = run_here("data.scale=0.1", "model=pixels", quiet=True)
    there = tmp_path / "there.onnx"
    there.write_text("mine")
    cases = [
        (["nowhere"], "run.json: damaged or not there"),
        ([run, "--out", there], "--out: got .*there.onnx, which exists already; allowed: a new file"),
        ([run, "--out", tmp_path / "no" / "a.onnx"], "--out: got .*, which lies in .*no, which does not exist"),
        ([run, "--int8"], "--int8: got a model without a network .cascade.; allowed: cnn, vpt, embed"),
    ]
    for arguments, message in cases:
        done = spectro("export", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert re.search(message, done.stderr)
        assert done.stderr.count("\n") == 1
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "onnxruntime is not installed; pip install 'spectro[export]'" in spectro("export", run).stderr
    assert ([path.name for path in tmp_path.glob("*.onnx")], there.read_text()) == (["there.onnx"], "mine")


@pytest.mark.parametrize("how", ["center_crop", "pad"])
@pytest.mark.parametrize("size", [(90, 31), (40, 77), (64, 64)])
def test_the_page_fits_images_as_the_models_do(how: Any, size: tuple[int, int]) -> None:
    """One pixel to the side, and a network sees other images than in training."""
    names: dict[str, Any] = {"Image": Image}
    exec(FITTED, names)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    expected = fit(image, ImageSpec((48, 36), "RGB", how))
    np.testing.assert_array_equal(np.asarray(names["fitted"](image, 36, 48, how)), expected)

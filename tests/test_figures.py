"""Figures: they survive every label and every empty case, and equal input gives equal files."""

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import ODD
from PIL import Image

from spectro.evaluation import score
from spectro.evaluation.paired import Estimate
from spectro.figures.comparison import scores_figure
from spectro.figures.evaluation import confusion_figure, recall_figure
from spectro.figures.gallery import wrong_figure
from spectro.figures.style import fit_text, page

# What a phone shows: 360 points at two or three pixels each.
PHONE_PX = 800
FEW = {"resamples": 20}


def image(height=20, width=30, value=128):
    return np.full((height, width, 3), value, dtype=np.uint8)


def test_any_label_is_drawn_as_the_text_it_is(tmp_path, texts):
    """A "$" that starts a formula raises or loses letters; a lone surrogate cannot be drawn at all."""
    report = score(ODD, ODD, ODD, **FEW)
    confusion_figure(report, tmp_path / "c.png", "$a_b$")
    recall_figure({"$v$": report}, tmp_path / "r.png", "$a_b$")
    wrong_figure([image()] * 6, [(name, name, 0.5, name) for name in ODD], tmp_path / "w.png", "$a_b$", 6)
    scores_figure(dict.fromkeys(ODD, Estimate(0.5, None, None, None, (0.5,))), tmp_path / "s.png", "", axis="$a$")
    assert not any(text.get_parse_math() or text.get_usetex() for text in texts)
    drawn = [text.get_text() for text in texts]
    assert drawn.count("$a_b$") == 3
    assert "$x_1$ cost $5" in drawn
    assert max(len(line) for text in drawn for line in text.splitlines()) < 120


@pytest.mark.filterwarnings("error")
def test_empty_splits_and_single_classes_are_drawn(tmp_path, texts):
    empty, one = score([], [], ["a", "b"]), score(["a"], ["a"], ["a"], **FEW)
    for report in (empty, one):
        confusion_figure(report, tmp_path / "c.png", "")
    recall_figure({"val": one, "test": empty}, tmp_path / "r.png", "title")
    drawn = [text.get_text() for text in texts]
    assert "no records" in drawn
    assert drawn.count("–") == 4 + 3


def test_labels_of_nine_classes_do_not_overlap_each_other(tmp_path, texts):
    names = [f"{i:02d} class of 20 chars" for i in range(9)]
    confusion_figure(score(names, names, names, **FEW), tmp_path / "c.png", "title")
    rows = [text.get_window_extent() for text in texts if text.get_visible() and text.get_text().endswith("(n=1)")]
    assert len(rows) == 9
    assert not any(a.overlaps(b) for i, a in enumerate(rows) for b in rows[:i])


def test_recalls_carry_interval_and_support(tmp_path, texts):
    recall_figure({"val": score(["a"] * 15, ["a"] * 15, ["a"], **FEW)}, tmp_path / "r.png", "title")
    assert {"val", "n=15", "1.00 [0.80, 1.00]"} <= {text.get_text() for text in texts}


@pytest.mark.parametrize(
    ("given", "total", "subtitle"),
    [(0, 0, "none is wrong"), (0, 5, "0 of 5"), (2, 2, "2 of 2 wrong"), (26, 31, "24 of 31 wrong")],
)
def test_the_gallery_says_how_many_it_leaves_out(tmp_path, texts, given, total, subtitle):
    path = wrong_figure([image()] * given, [("t", "q", 0.51, "n")] * given, tmp_path / "w.png", "title", total)
    drawn = [text.get_text() for text in texts]
    assert any(text.startswith(subtitle) for text in drawn)
    assert drawn.count("true  t") == drawn.count("pred  q") == drawn.count("p = 0.51  n") == min(given, 24)
    assert path.stat().st_size


def test_images_keep_their_shape(tmp_path):
    path = wrong_figure([image(10, 20, 0)], [("", "", 0.5, "")], tmp_path / "w.png", "", 1)
    # Frame and text are not quite black, so only the image is.
    rows, columns = np.nonzero(np.asarray(Image.open(path).convert("L")) < 5)
    assert (np.ptp(columns) + 1) / (np.ptp(rows) + 1) == pytest.approx(2, rel=0.05)


SCRIPT = """
import json, sys
import numpy as np
from spectro.figures.evaluation import confusion_figure, recall_figure
from spectro.figures.gallery import wrong_figure
report = json.loads(sys.argv[2])
confusion_figure(report, sys.argv[1] + "/new/c.png", "title")
recall_figure({"val": report}, sys.argv[1] + "/new/r.png", "title")
wrong_figure([np.zeros((9, 9, 3), np.uint8)], [("b", "б", 0.5, "n")], sys.argv[1] + "/new/w.png", "title", 1)
assert "matplotlib.pyplot" not in sys.modules
"""


def test_two_processes_write_the_same_bytes(tmp_path):
    """A date or version in the file, or an order that depends on hashing, would make every run look changed."""
    folders = [tmp_path / "one", tmp_path / "two"]
    report = json.dumps(score(["a", "b", "б"], ["a", "б", "б"], ["a", "b", "б"]))
    for folder in folders:
        subprocess.run([sys.executable, "-c", SCRIPT, str(folder), report], check=True)
    for name in ("c.png", "r.png", "w.png"):
        first, second = ((folder / "new" / name).read_bytes() for folder in folders)
        assert first == second
        assert not Image.open(folders[0] / "new" / name).text


def test_shortening_keeps_both_ends_and_fits():
    fig, _ = page(1, 1)
    short = fit_text(fig, "station_" + "x" * 200 + "_double_l", 1.5, 9)
    assert short.startswith("station_")
    assert short.endswith("_double_l")
    assert "…" in short
    assert fit_text(fig, short, 1.5, 9) == short


# Comparisons


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n_models", [1, 12])
def test_scores_stand_beside_the_names_on_one_axis(n_models, tmp_path, texts):
    """Any number of models; one that is worse than chance too, and one without an interval."""
    scores = {
        f"deit_vpt train.lr=0.00{i} vpt.variant=deep": Estimate(0.8, 0.65, 0.9, 0.1, (0.7, 0.9)) for i in range(12)
    }
    scores = dict([*scores.items()][:n_models]) | {"m": Estimate(-0.3, -0.5, 0.1, None, (-0.3,))}
    scores["single"] = Estimate(0.5, None, None, None, (0.5,))
    path = scores_figure(scores, tmp_path / "scores.png", "title", axis="score", baselines=["m"])
    with Image.open(path) as image:
        assert image.width <= PHONE_PX
    assert {"-0.30 [-0.50, 0.10]", "0.50", "-0.6"} <= {text.get_text() for text in texts}

"""Figures: they survive every label and every empty case, and equal input gives equal files."""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ODD
from PIL import Image

from spectro import beside, figures
from spectro.evaluation import calibration, score
from spectro.evaluation.importance import total_effects
from spectro.evaluation.paired import Estimate
from spectro.figures.attribution import attribution_figure
from spectro.figures.curves import label_curve_figure
from spectro.figures.evaluation import confusion_figure, recall_figure, reliability_figure, scores_figure
from spectro.figures.gallery import wrong_figure
from spectro.figures.search import Parameter, Trial, search_figures
from spectro.figures.style import fit_text, page

# What a phone shows: 360 points at two or three pixels each.
PHONE_PX = 800
FEW = {"resamples": 20}


def image(height=20, width=30, value=128):
    return np.full((height, width, 3), value, dtype=np.uint8)


def test_any_label_is_drawn_as_the_text_it_is(tmp_path, texts):
    """A "$" that starts a formula raises or loses letters; a lone surrogate cannot be drawn at all."""
    report, captions = score(ODD, ODD, ODD, **FEW), [(name, name, 0.5, name) for name in ODD]
    confusion_figure(report, tmp_path / "c.png", "$a_b$")
    recall_figure({"$v$": report}, tmp_path / "r.png", "$a_b$")
    reliability_figure(dict.fromkeys(ODD, calibration(["a"], [[0.9, 0.1]], ["a", "b"])), tmp_path / "b.png", "$a_b$")
    wrong_figure([image()] * 6, captions, tmp_path / "w.png", "$a_b$", 6)
    maps, drawings = [np.eye(n + 1) for n in range(6)], [None, image()[..., 0], *[image()] * 4]
    attribution_figure([image()] * 6, maps, drawings, captions, tmp_path / "a.png", "$a_b$", "method $")
    scores_figure(dict.fromkeys(ODD, Estimate(0.5, None, None, None, (0.5,))), tmp_path / "s.png", "", axis="$a$")
    one_point = [(10.0, 0.5, None, None, [0.5])]
    label_curve_figure(dict.fromkeys(ODD, one_point), [(10.0, 1.0, 2.5)], tmp_path / "l.png", "$a_b$", "")
    assert not any(text.get_parse_math() or text.get_usetex() for text in texts)
    drawn = [text.get_text() for text in texts]
    assert drawn.count("$a_b$") == 6
    assert "$x_1$ cost $5" in drawn
    assert max(len(line) for text in drawn for line in text.splitlines()) < 120


@pytest.mark.filterwarnings("error")
def test_empty_splits_and_single_classes_are_drawn(tmp_path, texts):
    empty, one = score([], [], ["a", "b"]), score(["a"], ["a"], ["a"], **FEW)
    for report in (empty, one):
        confusion_figure(report, tmp_path / "c.png", "")
    recall_figure({"val": one, "test": empty}, tmp_path / "r.png", "title")
    reliability_figure({"val": calibration([], np.zeros((0, 2)), ["a", "b"])}, tmp_path / "b.png", "title")
    drawn = [text.get_text() for text in texts]
    assert drawn.count("–") == 4 + 3
    names = list("gacbdfe")  # in the report's order, not that of their hashes, which differ between processes
    recall_figure({"val": score([], [], names)}, tmp_path / "r.png", "title")
    rows = {text.get_text(): text.get_position()[1] for text in texts}
    assert sorted(names, key=lambda name: rows[name]) == names


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
    [(0, 0, "none is wrong"), (0, 5, "0 of 5"), (2, 2, "2 of 2 wrong"), (26, 31, "20 of 31 wrong")],
)
def test_the_gallery_says_how_many_it_leaves_out(tmp_path, texts, given, total, subtitle):
    path = wrong_figure([image()] * given, [("t", "q", 0.51, "n")] * given, tmp_path / "w.png", "title", total)
    drawn = [text.get_text() for text in texts]
    assert any(text.startswith(subtitle) for text in drawn)
    assert drawn.count("true  t") == drawn.count("pred  q  p = 0.51") == drawn.count("n") == min(given, 20)
    assert path.stat().st_size


@pytest.mark.parametrize(("height", "width"), [(10, 20), (10, 60), (40, 10)])
def test_images_keep_their_shape(tmp_path, height, width):
    """A person reads slopes and durations; wide images are not made smaller than square ones either."""
    path = wrong_figure([image(height, width, 0)] * 3, [("", "", 0.5, "")] * 3, tmp_path / "w.png", "", 3)
    # Frame and text are not quite black, so only the images are.
    black = np.asarray(Image.open(path).convert("L")) < 5
    first = np.flatnonzero(np.diff(np.flatnonzero(black.any(axis=0)), append=10**6) > 1)[0] + 1
    rows = np.flatnonzero(black[:, : black.any(axis=0).argmax() + first].any(axis=1))
    high = np.flatnonzero(np.diff(rows, append=10**6) > 1)[0] + 1
    assert first / high == pytest.approx(width / height, rel=0.05)
    assert 20_000 < first * high < 45_000


def test_an_empty_cell_of_a_confusion_matrix_is_empty(tmp_path, texts):
    """0 and 0 % in most of the cells hide the counts."""
    confusion_figure(score([*"aab"], [*"aab"], [*"ab"], **FEW), tmp_path / "c.png", "title")
    assert sorted(t.get_text() for t in texts if t.get_text()[0].isdigit()) == ["1", "100 %", "100 %", "2"]


def test_long_names_take_two_lines(tmp_path, texts):
    """Names of records differ at either end, and a cut one cannot be found again."""
    name = "NC_GDXB_20080728152804140000_vertical"
    wrong_figure([image()], [("a", "b", 0.5, name)], tmp_path / "w.png", "", 1)
    drawn = [text.get_text() for text in texts]
    assert any(a + b == name for a, b in itertools.pairwise(drawn))


def test_a_figure_takes_few_bytes_and_is_written_whole(tmp_path):
    """Twenty images of noise would be two megabytes."""
    noise = np.random.default_rng(0).integers(0, 255, (20, 200, 260, 3), np.uint8)
    path = wrong_figure(list(noise), [("t", "q", 0.5, "n")] * 20, tmp_path / "f" / "w.png", "", 20)
    assert path.stat().st_size < 800_000
    assert list(path.parent.iterdir()) == [path]
    assert not Image.open(path).text  # no date, no version: equal figures are equal files


def test_shortening_keeps_both_ends_and_fits():
    fig, _ = page(1, 1)
    short = fit_text(fig, "station_" + "x" * 200 + "_double_l", 1.5, 9)
    assert short.startswith("station_")
    assert short.endswith("_double_l")
    assert "…" in short
    assert fit_text(fig, short, 1.5, 9) == short


# Searches


def search(n=30, seed=0):
    """Trials in which the kernel decides and two other values do nothing; gamma is there for one kernel only."""
    rng = np.random.default_rng(seed)
    parameters = [
        Parameter("svm.kernel", ("rbf", "linear")),
        Parameter("svm.gamma x", (), 0.01, 100.0, True),
        Parameter("hog.cell_px", (), 8.0, 32.0),
    ]
    trials = []
    for number in range(n):
        kernel = int(number < 4)  # the bad one is left early
        gamma = np.nan if kernel else 10 ** rng.uniform(-2, 2)
        value = (0.3 if kernel else 0.8) + 0.02 * rng.normal()
        trials.append(Trial(number, "COMPLETE", value, [kernel, gamma, rng.uniform(8, 32)]))
    return [*trials, Trial(n, "PRUNED", None, [0, 1, 8]), Trial(n + 1, "FAIL", None, [0, 1, 8])], parameters


def test_a_kernel_that_decides_everything_is_important():
    """Most trials of a search have the good kernel, and by their scores alone it would hardly matter."""
    trials, _ = search()
    X, y = np.array([t.params for t in trials[:-2]]), np.array([t.value for t in trials[:-2]])
    X[:, 1] = np.log(X[:, 1])
    ends = np.array([[0, np.log(0.01), 8], [1, np.log(100), 32]])
    shares, explained = total_effects(X, y, *ends, np.array([True, False, False]))
    assert shares.shape == (8, 3)
    assert shares[:, 0].min() > 0.8
    assert shares[:, 1:].mean(axis=0).max() < 0.1
    assert explained > 0.8
    nothing, _ = total_effects(X, np.ones(len(y)), *ends, np.array([True, False, False]))
    assert not nothing.any()


@pytest.mark.filterwarnings("error")
def test_a_search_of_any_length_is_drawn(tmp_path, texts):
    """Units and logarithmic axes; one trial, or none with a value, has no importance to draw."""
    trials, parameters = search()
    assert search_figures(tmp_path / "s", trials, parameters, "macro-F1 on cv", "$s$") == []
    assert {path.stem for path in (tmp_path / "s").iterdir()} == {
        *("optimization_history", "parameter_importance", "slices")
    }
    drawn = {text.get_text() for text in texts}
    assert {"hog.cell_px, pixels", "svm.gamma, multiples of scale", "100", "0.01", "best: trial"} <= {
        text if not text.startswith("best: trial") else "best: trial" for text in drawn
    }
    assert "32 trials: 30 complete, 1 pruned, 1 failed" in drawn
    for name, some in (("one", trials[:1]), ("none", trials[-2:])):
        assert search_figures(tmp_path / name, some, parameters, "x", "s") == []
        assert not (tmp_path / name / "parameter_importance.png").exists()


# Beside a run


def test_a_figure_that_fails_is_a_line_and_the_others_are_drawn(tmp_path):
    """A run must not be lost for a figure."""
    report = {"report": score(["a"], ["a"], ["a"], **FEW), "title": "t"}
    jobs = [(confusion_figure, {"report": {}, "title": "t"}, tmp_path / "bad.png")]
    jobs.append((confusion_figure, report, tmp_path / "good.png"))
    assert beside.start(figures.draw, jobs)() == ["figure bad.png was not drawn (KeyError: 'confusion_matrix')"]
    assert [path.name for path in tmp_path.iterdir()] == ["good.png"]


def test_a_second_process_that_was_killed_is_an_error_and_the_next_one_works():
    """Out of memory, or killed by a person."""
    pid = beside.start(os.getpid)()
    assert pid != os.getpid()
    broken = beside.start(time.sleep, 60)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(beside.KilledError):
        broken()
    assert beside.start(os.getpid)() not in (pid, os.getpid())


def test_a_second_process_outlives_interrupts_but_not_the_first(tmp_path):
    """Ctrl-C reaches all processes of a terminal, and a killed run must leave none behind."""
    code = """
import os, time
from spectro import beside
print(beside.start(os.getpid)(), flush=True)
time.sleep(60)
"""
    (script := tmp_path / "script.py").write_text(code)  # without a guard: it must not run in the second process
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as first:
        pid = int(first.stdout.readline())
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
        time.sleep(0.3)
        os.kill(pid, 0)
        first.kill()
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists() or ") Z" in Path(f"/proc/{pid}/stat").read_text():
            break
        time.sleep(0.1)
    else:
        pytest.fail("it is still there")


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

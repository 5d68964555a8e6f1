"""Figures that compare models: the numbers drawn are right, every name is told apart, and nothing is cut off."""

import numpy as np
import pytest
from conftest import ODD
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from spectro.evaluation.curves import areas
from spectro.evaluation.intervals import wilson
from spectro.evaluation.paired import Estimate
from spectro.figures.comparison import macro_f1_figure, pair_curves, pair_figure, recall_by_model_figure

# What a phone shows: 360 points at two or three pixels each.
PHONE_PX = 760


def recalls(classes, n=5, hits=4):
    low, high = wilson(hits, n) if n else (None, None)
    value = hits / n if n else None
    return {name: {"recall": value, "ci_low": low, "ci_high": high, "support": n} for name in classes}


def curves(seed=0, n=20):
    rng = np.random.default_rng(seed)
    positive = np.arange(n) % 2 == 0
    return pair_curves(positive, positive + rng.normal(size=n), resamples=50)


def estimate(value=0.8, seeds=3):
    values = tuple(np.clip(np.linspace(value - 0.1, value + 0.1, seeds), 0, 1).tolist())
    return Estimate(value, value - 0.15, value + 0.1, 0.1, values)


def draw_all(folder, models, classes, lines=("majority", "pixels")):
    """The three figures."""
    return [
        recall_by_model_figure(
            {name: recalls(classes) for name in models},
            folder / "recall.png",
            "title",
            {name: recalls(classes, hits=1 + i % 4) for i, name in enumerate(lines)},
        ),
        macro_f1_figure(
            {name: estimate() for name in models},
            folder / "macro_f1.png",
            "title",
            {name: estimate(0.3 + 0.05 * i, 1) for i, name in enumerate(lines)},
        ),
        pair_figure({name: curves(i) for i, name in enumerate(models)}, folder / "pair.png", "title", classes[0]),
    ]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("n_models", "n_classes"), [(1, 1), (2, 2), (12, 4)])
def test_every_figure_fits_a_phone(n_models, n_classes, tmp_path):
    models = [f"deit_vpt train.lr=0.00{i} vpt.variant=deep" for i in range(n_models)]
    for path in draw_all(tmp_path, models, [f"class {i} with a long name " * 3 for i in range(n_classes)]):
        with Image.open(path) as image:
            assert image.width <= PHONE_PX


def test_names_that_differ_in_their_middles_are_told_apart(tmp_path, texts):
    """Cut names would all be the same: then numbers stand before them, and the key has the whole."""
    models = [f"deit_vpt train.lr=0.00{i} vpt.variant=deep" for i in range(3)]
    draw_all(tmp_path, models, ["a", "b"])
    drawn = [text.get_text() for text in texts]
    for i, name in enumerate(models, 1):
        assert drawn.count(f"{i}  {name}") == 3
    draw_all(tmp_path, ["short", "names"], ["a", "b"])
    assert not any(text.get_text().startswith("1  short") for text in texts)


def test_any_name_is_drawn_as_the_text_it_is(tmp_path, texts):
    draw_all(tmp_path, ODD, ODD, ODD)
    assert not any(text.get_parse_math() or text.get_usetex() for text in texts)
    assert any("$x_1$ cost $5" in text.get_text() for text in texts)
    assert max(len(text.get_text()) for text in texts) < 120


@pytest.mark.filterwarnings("error")
def test_numbers_that_are_not_known_are_not_drawn(tmp_path, texts):
    recall_by_model_figure({"m": {**recalls(["a"]), **recalls(["b"], n=0)}}, tmp_path / "r.png", "")
    macro_f1_figure({"m": Estimate(0.5, None, None, None, (0.5,))}, tmp_path / "f.png", "")
    apart = pair_curves([True, True, False, False], [4, 3, 2, 1])
    pair_figure({"m": apart}, tmp_path / "p.png", "")
    drawn = [text.get_text() for text in texts]
    assert "no records" in drawn
    assert "0.50" in drawn
    assert drawn.count("1.00") == 2
    assert apart.auc_ci == (None, None)


def test_the_numbers_beside_the_rows_are_those_given(tmp_path, texts):
    recall_by_model_figure({"m": recalls(["a"])}, tmp_path / "r.png", "")
    low, high = wilson(4, 5)
    assert f"0.80 [{low:.2f}, {high:.2f}]" in [text.get_text() for text in texts]


def test_equal_figures_are_equal_files(tmp_path):
    for one, other in zip(
        draw_all(tmp_path / "1", ["m", "n"], ["a", "b"]), draw_all(tmp_path / "2", ["m", "n"], ["a", "b"]), strict=True
    ):
        assert one.read_bytes() == other.read_bytes()


def test_without_models_there_is_no_figure(tmp_path):
    for draw in (recall_by_model_figure, macro_f1_figure, pair_figure):
        with pytest.raises(ValueError, match="got none"):
            draw({}, tmp_path / "x.png", "")


# The curves behind the figure


def test_areas_of_weighted_records_are_scikit_learns():
    """Ties included: a threshold takes in all records of one score."""
    rng = np.random.default_rng(0)
    score = np.sort(rng.integers(0, 8, 40) / 8)[::-1]
    positive = rng.random(40) < 0.3 + 0.4 * score
    weights = rng.integers(0, 4, (20, 40)).astype(float)
    auc, precision = areas(positive, score, weights)
    for row, own_auc, own_precision in zip(weights, auc, precision, strict=True):
        assert own_auc == pytest.approx(roc_auc_score(positive, score, sample_weight=row))
        assert own_precision == pytest.approx(average_precision_score(positive, score, sample_weight=row))


def test_curves_do_not_depend_on_the_order_of_records():
    rng = np.random.default_rng(0)
    positive, score, sources = rng.random(30) < 0.5, rng.integers(0, 5, 30), np.arange(30) // 2
    order = rng.permutation(30)
    one = pair_curves(positive, score, sources=sources)
    other = pair_curves(positive[order], score[order], sources=sources[order])
    assert (one.auc, one.auc_ci) == (other.auc, other.auc_ci)
    assert one.average_precision_ci == other.average_precision_ci
    assert one.auc_ci[0] <= one.auc <= one.auc_ci[1]


def test_intervals_of_areas_have_the_width_of_theory():
    """For scores that say nothing the standard error of the area is sqrt((n + m + 1) / (12 n m)), as of ranks."""
    rng = np.random.default_rng(1)
    found = pair_curves(np.arange(200) < 100, rng.random(200), resamples=2000)
    width = found.auc_ci[1] - found.auc_ci[0]
    assert width / 3.92 == pytest.approx(np.sqrt(201 / (12 * 100 * 100)), rel=0.1)


def test_more_records_of_a_source_are_no_new_records():
    rng = np.random.default_rng(1)
    positive, score = np.arange(40) < 20, rng.random(40)
    once = pair_curves(positive, score)
    copied = pair_curves(np.tile(positive, 3), np.tile(score, 3), sources=np.tile(np.arange(40), 3))
    assert np.diff(copied.auc_ci) == pytest.approx(np.diff(once.auc_ci), rel=0.1)


@pytest.mark.parametrize(
    ("positive", "scores"),
    [([True], [1.0]), ([True, False], [1.0]), ([True, False], [1.0, float("nan")]), ([], [])],
    ids=["one class", "lengths", "not finite", "none"],
)
def test_curves_without_two_classes_are_refused(positive, scores):
    with pytest.raises(ValueError, match="got"):
        pair_curves(positive, scores)

"""Figures that compare models: the numbers drawn are right, every name is told apart, and nothing is cut off."""

import numpy as np
import pytest
from conftest import ODD
from PIL import Image

from spectro.evaluation.curves import pair_curves
from spectro.evaluation.paired import Estimate
from spectro.figures.comparison import estimates_figure, pair_figure

# What a phone shows: 360 points at two or three pixels each.
PHONE_PX = 800


def curves(seed=0, n=20):
    rng = np.random.default_rng(seed)
    positive = np.arange(n) % 2 == 0
    return pair_curves(positive, positive + rng.normal(size=n), resamples=50)


def draw_all(folder, models, classes):
    """Both figures."""
    found = Estimate(0.8, 0.65, 0.9, 0.1, (0.7, 0.9))
    blocks = {name: dict.fromkeys(models, found) for name in classes}
    return [
        estimates_figure(blocks, folder / "recall.png", "title", axis="recall", baselines=models[1:2]),
        pair_figure({name: curves(i) for i, name in enumerate(models)}, folder / "pair.png", "title", classes[0]),
    ]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("n_models", "n_classes"), [(1, 1), (12, 4)])
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
    assert all(drawn.count(f"{i}  {name}") == 2 for i, name in enumerate(models, 1))


def test_any_name_is_drawn_as_the_text_it_is(tmp_path, texts):
    draw_all(tmp_path, ODD, ODD)
    assert not any(text.get_parse_math() or text.get_usetex() for text in texts)
    assert max(len(text.get_text()) for text in texts) < 120


@pytest.mark.filterwarnings("error")
def test_numbers_stand_beside_the_rows_and_unknown_ones_are_not_drawn(tmp_path, texts):
    blocks = {"mcc": {"m": Estimate(-0.3, -0.5, 0.1, None, (-0.3,))}, "b": {"m": None}}
    blocks["single"] = {"m": Estimate(0.5, None, None, None, (0.5,))}
    estimates_figure(blocks, tmp_path / "f.png", "", axis="score")
    apart = pair_curves([True, True, False, False], [4, 3, 2, 1])
    pair_figure({"m": apart}, tmp_path / "p.png", "")
    drawn = [text.get_text() for text in texts]
    assert {"-0.30 [-0.50, 0.10]", "0.50", "b: no records", "-0.6"} <= set(drawn)
    assert drawn.count("1.00") == 2
    assert apart.auc_ci == (None, None)


def test_equal_figures_are_equal_files(tmp_path):
    pairs = zip(*(draw_all(tmp_path / name, ["m", "n"], ["a", "b"]) for name in "12"), strict=True)
    assert all(one.read_bytes() == other.read_bytes() for one, other in pairs)


def test_without_models_there_is_no_figure(tmp_path):
    for draw in (lambda path: estimates_figure({}, path, "", axis=""), lambda path: pair_figure({}, path, "")):
        with pytest.raises(ValueError, match="got none"):
            draw(tmp_path / "x.png")

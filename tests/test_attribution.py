"""Attribution maps: they lie where the classes differ, in every family, and sum to what they explain."""

import numpy as np
import pytest
import torch
from conftest import read_json
from PIL import Image
from test_classifiers import LABELS, MAKERS, cnn, embed, shortened, svm, toy, vpt

from spectro.classifiers import CascadeClassifier, ImageClassifier, PixelsClassifier, load
from spectro.classifiers.hog.attribution import strokes
from spectro.data import Images
from spectro.figures.attribution import attribution_figure, map_image

SIZE = 64


def corners(n, seed=0):
    """Noise ``(n, 64, 64)``; half of it has stripes in the upper left quarter, and is called so."""
    rng = np.random.default_rng(seed)
    X = rng.normal(110, 15, (n, SIZE, SIZE))
    y = np.array(["plain", "striped"] * (n // 2), dtype=object)
    X[y == "striped", :32, :32] += 60 * np.sign(np.sin(np.arange(32) * np.pi / 4 + 0.4))[:, None] + 40
    return np.clip(X, 0, 255).astype(np.uint8), y


def share_in_corner(attributions):
    """The part of a map's mass that lies in the upper left quarter, mean over records."""
    maps = [attribution.map for attribution in attributions]
    return np.mean([m[: m.shape[0] // 2, : m.shape[1] // 2].sum() / m.sum() for m in maps])


CORNER = {
    "hog_svm": lambda: svm().set_params(size_px=SIZE),
    "hog_svm and pixels": lambda: svm(scaler="none", pixels=[5, 4], pixels_weight=3.0).set_params(size_px=SIZE),
    "embed": lambda: embed(grids=[1, 4]).set_params(size_px=SIZE),
    "pixels": PixelsClassifier,
    "cnn": lambda: cnn(epochs=6).set_params(size_px=2 * SIZE),
    "cnn wide": lambda: cnn(epochs=6, pool="grid", grid=[2, 4], stages=2, size_px=[SIZE, 2 * SIZE]),
    "embed wide": lambda: embed(grids=[1, [2, 4]], size_px=[SIZE, 2 * SIZE]),
    "vpt deep": lambda: vpt(epochs=10, variant="deep").set_params(size_px=SIZE),
    "vpt shallow": lambda: vpt(epochs=10).set_params(size_px=SIZE),
}


@pytest.mark.parametrize("make", CORNER.values(), ids=CORNER)
def test_the_map_lies_where_the_classes_differ(make):
    """A map that is turned, mirrored or shifted, or of another label, would send a person to the wrong place."""
    classifier = make().fit(*corners(40))
    X, y = corners(8, seed=1)
    assert (classifier.predict(X) == y).all()
    striped = y == "striped"
    assert share_in_corner(classifier.attribution(X[striped], y[striped])) > 0.5  # by chance 0.25


@pytest.mark.parametrize("make", [svm, embed, PixelsClassifier, cnn, vpt, MAKERS["cascade soft"]])
def test_maps_are_the_same_from_a_loaded_model(make, tmp_path):
    """One for each record, between 0 and 1, whatever the family; and the model is left as it was."""
    classifier = shortened(make()).fit(*toy((8, 6, 4)), *toy((4, 4, 4), seed=1))
    X, y = toy((2, 2, 2), seed=2)
    probabilities = classifier.predict_proba(X)
    first = classifier.attribution(X, np.roll(y, 2), y)
    classifier.save(tmp_path)
    second = load(tmp_path).attribution(X, np.roll(y, 2), y)
    assert len(first) == 6
    for one, other in zip(first, second, strict=True):
        assert (one.map.ndim, one.map.min() >= 0, one.map.max() in (0, 1)) == (2, True, True)
        assert (one.seen.dtype, bool(one.method)) == (np.uint8, True)
        np.testing.assert_array_equal(one.map, other.map)
        np.testing.assert_array_equal(one.seen, other.seen)
    np.testing.assert_array_equal(classifier.predict_proba(X), probabilities)
    assert classifier.attribution(X[:0], y[:0]) == []


def test_without_another_label_it_is_compared_with_the_most_probable_one():
    """Also where the other one is the label itself, or one that was not trained on; unknown labels are refused."""
    classifier = svm().fit(*toy((8, 6, 4)))
    X, y = toy((1, 1, 1), seed=2)
    second = classifier.classes_[np.argsort(classifier.predict_proba(X), axis=1)[:, -2]]
    expected, *others = ([a.map for a in classifier.attribution(X, y, o)] for o in (second, None, y, ["?"] * 3))
    for maps in others:
        np.testing.assert_array_equal(maps, expected)
    with pytest.raises(ValueError, match=r"got 3 images and 3 labels, \['x'\] unknown; allowed: one for each, of"):
        classifier.attribution(X, ["x", *y[1:]])
    with pytest.raises(ValueError, match="got 3 images and 2 labels"):
        classifier.attribution(X, y[:2])


def test_a_family_without_a_method_and_a_single_class_have_none():
    """A new family need not have attribution maps."""

    class Plain(ImageClassifier):
        family, specs = "plain", ()
        _fit = _save = _load = lambda self, *data: None

        def _predict_proba(self, X):
            return np.full((len(X), len(self.classes_)), 1 / len(self.classes_))

    X, y = toy((2, 2, 2))
    assert Plain().fit(X, y).attribution(X, y) == [None] * 6
    assert svm().fit(X[:2], y[:2]).attribution(X[:2], y[:2]) == [None] * 2


def test_a_cascade_explains_the_stage_that_separates_the_labels():
    """The hard stage has no part in an error of the easy one, nor the other way round."""
    a, b, c = LABELS
    cascade = CascadeClassifier(svm(), svm(), {"merged": (a, b)}).fit(*toy((8, 6, 4)))
    X, _ = toy((1, 1, 1), seed=1)
    maps = cascade.attribution(X, [a, a, c], [b, c, a])
    assert [attribution.stage for attribution in maps] == ["hard", "easy", "easy"]
    hard = cascade.hard_["merged"].attribution(X[:1], [a], [b])
    easy = cascade.easy_.attribution(X[1:], ["merged", c], [c, "merged"])
    for attribution, expected in zip(maps, [*hard, *easy], strict=True):
        np.testing.assert_array_equal(attribution.map, expected.map)


@pytest.mark.parametrize("counts", [(8, 6, 4), (8, 6, 0)])
def test_pixels_sum_to_the_difference_of_the_scores(counts):
    classifier = PixelsClassifier().fit(*toy(counts))
    X, _ = toy((2, 2, 0), seed=1)
    n, rows = len(classifier.classes_), np.arange(4)
    labels, others = np.array([0, 1, n - 1, 0]), np.array([1, 0, 0, n - 1])
    effects, seen, _ = classifier._effects(X, labels, others)
    assert effects.shape == seen.shape == (4, 15, 20)
    intercept = classifier.pipeline_[1].intercept_
    intercepts = intercept if n > 2 else np.array([0, *intercept])
    p = np.log(classifier.predict_proba(X))
    total = effects.sum(axis=(1, 2)) + intercepts[labels] - intercepts[others]
    np.testing.assert_allclose(total, p[rows, labels] - p[rows, others], rtol=1e-6)


@pytest.mark.parametrize("counts", [(8, 6, 0), (8, 6, 4)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kernel": "linear"},
        {"scaler": "none", "pca_components": 5},
        {"signed": True, "sqrt": True, "block_norm": "none", "block_cells": 1},
    ],
    ids=str,
)
def test_a_cell_counts_what_replacing_it_changes(options, counts):
    """Compared with the whole pipeline: HOG values of a cell, in all its blocks, set to the training mean."""
    classifier = svm(**options).fit(*toy(counts))
    (scaler, pca, svc), last = classifier.pipeline_, len(classifier.classes_) - 1
    features = classifier.hog.features(toy((1, 0, 0))[0]).astype(np.float64)

    def decision(scaled):  # for the first class, against the last one
        values = svc.decision_function(pca.transform(scaled.reshape(1, -1))).ravel()
        return -values[0] if last == 1 else values[last - 1]

    scaled = scaler.transform(features).reshape(classifier.hog.shape)
    mean = pca.mean_.reshape(scaled.shape)
    for labels in ([0, last], [last, 0]):
        effects = classifier._effects(toy((1, 0, 0))[0], *np.array(labels)[:, None])[0][0]
        for cell in [(0, 0), (1, 2), (3, 3)]:
            without = scaled.copy()
            for index in np.ndindex(scaled.shape[:4]):
                if (index[0] + index[2], index[1] + index[3]) == cell:
                    without[index] = mean[index]
            expected = (decision(scaled) - decision(without)) * (1 if labels[0] == 0 else -1)
            assert effects[cell] == pytest.approx(expected, abs=1e-9)


def test_strokes_lie_along_the_edges():
    """Stripes across the image have edges across it."""
    classifier = svm()
    across = np.repeat(np.tile([40, 40, 40, 40, 200, 200, 200, 200], 4)[:, None], 32, axis=1).astype(np.uint8)
    drawn = strokes(classifier.hog, classifier.hog.features(np.array([across, across.T])))
    first, second = 255.0 - drawn
    assert np.abs(np.diff(first, axis=0)).sum() > 3 * np.abs(np.diff(first, axis=1)).sum()
    assert np.abs(np.diff(second, axis=1)).sum() > 3 * np.abs(np.diff(second, axis=0)).sum()


@pytest.mark.parametrize("options", [{}, {"pool": "grid", "grid": 2, "stages": 3, "pixels": [5, 4]}], ids=str)
def test_effects_of_a_residual_network_sum_to_the_margin(options):
    """Mean over places, then a linear layer; a thumbnail's pixels count with their difference from the mean."""
    network = cnn(epochs=1, **options).set_params(size_px=64).fit(*toy((8, 6, 4))).network_.eval()
    network.mean[: network.blocks[0][0]] = 0
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    labels, others, rows = torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0]), torch.arange(3)
    effects = network.effects(images, labels, others)
    with torch.no_grad():
        logits = network(images) - network.head.bias
    torch.testing.assert_close(
        effects.sum(dim=(1, 2)), logits[rows, labels] - logits[rows, others], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    "options",
    [
        {"variant": "deep"},
        {"variant": "shallow"},
        {"variant": "shallow", "prompt_length": 0},
        {"variant": "deep", "backbone_options": {"global_pool": "avg"}},
        {"variant": "shallow", "backbone_options": {"global_pool": "avg", "class_token": False}},
        {"variant": "deep", "backbone_options": {"reg_tokens": 2}},
    ],
    ids=str,
)
def test_effects_are_features_times_gradient_before_the_last_block(options):
    """Compared with a pass that is cut there by hand; prompts and prefix tokens are no places."""
    classifier = shortened(vpt(**options)).fit(*toy((8, 6, 4)))
    network = classifier.network_.eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels, others, rows = torch.tensor([0, 1]), torch.tensor([2, 0]), torch.arange(2)
    effects = network.effects(images, labels, others)
    assert effects.shape == (2, 4, 4)
    inputs = []
    norm = network.backbone.blocks[-1].norm1
    norm.forward = lambda tokens, plain=norm.forward: inputs.append(plain(tokens).requires_grad_()) or inputs[-1]
    logits = network.head(network.rest(network.prefix(images)))
    margin = (logits[rows, labels] - logits[rows, others]).sum()
    (gradient,) = torch.autograd.grad(margin, inputs[0])
    expected = (inputs[0] * gradient).sum(dim=2)[:, -16:].reshape(2, 4, 4)
    torch.testing.assert_close(effects, expected, rtol=1e-4, atol=1e-7)


# --- The figure ---


@pytest.mark.parametrize("width", [30, 120])
def test_records_keep_their_shape_and_have_the_map_beside_them(width, tmp_path):
    """The map of a wide record stands below it."""
    record = np.zeros((20, width, 3), np.uint8)
    path = attribution_figure([record], [np.zeros((2, 2))], [None], [("", "", 0.5, "")], tmp_path / "a.png", "", "")
    black = np.asarray(Image.open(path).convert("L")) < 5
    rows, columns = np.nonzero(black)
    assert black.sum() > 15_000
    assert (np.ptp(columns) + 1) / (np.ptp(rows) + 1) == pytest.approx(width / 20, rel=0.05)


def test_colour_and_strokes_lie_where_the_weights_are():
    """A stroke in a place that supports nothing would be read as evidence."""
    weights = np.zeros((2, 2))
    weights[0, 1] = 1
    red, _, blue = np.moveaxis(map_image(weights, None, 40, 60).astype(int), 2, 0)
    assert (red - blue)[:20, 30:].min() > 100
    assert (red - blue)[20:].max() == (red - blue)[:, :30].max() == 0
    dark = map_image(weights, np.zeros((5, 5), np.uint8), 40, 60).astype(int)
    assert dark[:20, 30:].max() < 80
    assert dark[20:].min() == dark[:, :30].min() == 255


# --- In a run ---


@pytest.mark.parametrize(("stage", "figures"), [("full", "all"), ("flat", "basic"), ("flat", "none")])
def test_a_run_draws_what_figures_asks_for(stage, figures, demo_root, run_here):
    """Attribution for each split that has wrong records; by default of test alone, and nothing of stages."""
    words = [f"data.demo_dir={demo_root}", "data.scale=0.1", f"cascade_stage={stage}", "model=pixels"]
    run_dir = run_here(*words, f"figures={figures}")
    rows = (run_dir / "predictions.csv").read_text(encoding="utf-8").splitlines()[1:]
    wrong = {row.split(",")[0] for row in rows if row.split(",")[3] != row.split(",")[4]}
    assert "test" in wrong, "nothing is wrong, and nothing is tested"
    names = {path.stem for path in run_dir.glob("figures/*")}
    basic = {"confusion_val", "confusion_test", "recall", "reliability", "wrong_test", "attribution_test"}
    basic |= {"risk_coverage"}
    if figures != "all":
        assert names == (basic if figures == "basic" else set())
    else:
        assert {name for name in names if name.startswith("attribution_")} == {f"attribution_{s}" for s in wrong}
        assert names > basic | {"wrong_val", "recall_easy", "confusion_test_hard"}


def test_images_that_are_gone_are_a_warning(demo_root, run_here, monkeypatch):
    """A run whose models are fitted is not lost where a disk was unmounted."""

    def gone(images, most_px):
        raise FileNotFoundError("a.png")

    monkeypatch.setattr(Images, "thumbnails", gone)
    run_dir = run_here(f"data.demo_dir={demo_root}", "data.scale=0.1", "model=pixels", "figures=basic")
    info = read_json(run_dir / "run.json")
    assert info["status"] == "FINISHED"
    assert "wrong records were not drawn (FileNotFoundError: a.png)" in info["warnings"]
    assert (run_dir / "figures" / "recall.png").exists()

"""What speaks for a label: the map lies where the classes differ, in every family, and sums to what it explains."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.svm import SVC
from test_classifiers import LABELS, cnn, every, shortened, svm, toy, vpt

from spectro.classifiers import CascadeClassifier, ImageClassifier, PixelsClassifier, load
from spectro.classifiers.hog.strokes import _pair_weights, cell_effects, strokes
from spectro.classifiers.networks.gradients import grad_cam, relevance, watched
from spectro.figures.attribution import attribution_figure, overlay

SIZE = 64


def corners(n, seed=0):
    """Noise ``(n, 64, 64)``; half of it has stripes in the upper left quarter, and is called so."""
    rng = np.random.default_rng(seed)
    X = rng.normal(110, 15, (n, SIZE, SIZE))
    y = np.array(["plain", "striped"] * (n // 2), dtype=object)
    X[y == "striped", :32, :32] += 60 * np.sign(np.sin(np.arange(32) * np.pi / 4 + 0.4))[:, None] + 40
    return np.clip(X, 0, 255).astype(np.uint8), y


def share_in_corner(found):
    """The part of a map's mass that lies in the upper left quarter, mean over records."""
    maps = [one.map for one in found]
    return np.mean([own[: own.shape[0] // 2, : own.shape[1] // 2].sum() / own.sum() for own in maps])


CORNER = {
    "hog_svm": lambda: svm().set_params(size_px=SIZE),
    "hog_svm linear": lambda: svm(kernel="linear", scaler="minmax").set_params(size_px=SIZE),
    "pixels": PixelsClassifier,
    "cnn": lambda: cnn(epochs=10).set_params(size_px=3 * SIZE),
}


@pytest.mark.parametrize("make", CORNER.values(), ids=CORNER)
def test_the_map_lies_where_the_classes_differ(make):
    """A map that is turned, mirrored or shifted, or of another label, would send a person to the wrong place."""
    classifier = make().fit(*corners(40))
    X, y = corners(8, seed=1)
    assert (classifier.predict(X) == y).all()
    striped = y == "striped"
    assert share_in_corner(classifier.attribution(X[striped], y[striped])) > 0.5  # by chance 0.25


@every
def test_the_contract(make, tmp_path):
    """One for each record, between 0 and 1, the same each time and from a loaded model, whatever the family."""
    classifier = shortened(make()).fit(*toy((8, 6, 4)), *toy((4, 4, 4), seed=1))
    X, y = toy((2, 2, 2), seed=2)
    before = classifier.predict_proba(X)
    found = classifier.attribution(X, np.roll(y, 2), y)
    classifier.save(tmp_path)
    again = load(tmp_path).attribution(X, np.roll(y, 2), y)
    assert len(found) == len(again) == 6
    for one, other in zip(found, again, strict=True):
        assert one.map.ndim == 2
        assert one.map.min() >= 0
        assert one.map.max() in (0, 1)
        assert one.seen.dtype == np.uint8
        assert one.says
        np.testing.assert_array_equal(one.map, other.map)
        np.testing.assert_array_equal(one.seen, other.seen)
    np.testing.assert_array_equal(classifier.predict_proba(X), before, "looking changed the model")
    assert classifier.attribution(X[:0], y[:0]) == []


def test_without_another_label_it_is_told_from_the_most_probable_one():
    """Also where the other one is the label itself, or one that the model has never seen."""
    classifier = svm().fit(*toy((8, 6, 4)))
    X, y = toy((1, 1, 1), seed=2)
    p = classifier.predict_proba(X)
    second = classifier.classes_[np.argsort(p, axis=1)[:, -2]]
    assert (classifier.predict(X) == y).all()
    asked = (classifier.attribution(X, y, others) for others in (second, None, y, ["?", "?", "?"]))
    expected, *found = ([one.map for one in own] for own in asked)
    for own in found:
        np.testing.assert_array_equal(own, expected)


def test_labels_that_are_not_there():
    classifier = svm().fit(*toy((8, 6, 4)))
    X, y = toy((1, 1, 1))
    with pytest.raises(ValueError, match=r"got 3 images and 3 labels, \['x'\] unknown; allowed: one for each, of"):
        classifier.attribution(X, ["x", *y[1:]])
    with pytest.raises(ValueError, match="got 3 images and 2 labels"):
        classifier.attribution(X, y[:2])


def test_a_family_without_one_and_a_single_class_have_none():
    """A new family needs to know nothing of this."""

    class Plain(ImageClassifier):
        family = "plain"

        def _fit(self, X, y, X_val, y_val):
            pass

        def _predict_proba(self, X):
            return np.full((len(X), len(self.classes_)), 1 / len(self.classes_))

    X, y = toy((2, 2, 2))
    assert Plain().fit(X, y).attribution(X, y) == [None] * 6
    assert svm().fit(X[:2], y[:2]).attribution(X[:2], y[:2]) == [None] * 2


def test_a_cascade_asks_the_stage_that_tells_the_labels_apart():
    """The hard stage knows nothing of what the easy one did wrong, nor the other way round."""
    a, b, c = LABELS
    cascade = CascadeClassifier(svm(), svm(), {"merged": (a, b)}).fit(*toy((8, 6, 4)))
    X, _ = toy((1, 1, 1), seed=1)
    found = cascade.attribution(X, [a, a, c], [b, c, a])
    assert [one.stage for one in found] == ["hard", "easy", "easy"]
    (hard,) = cascade.hard_["merged"].attribution(X[:1], [a], [b])
    easy = cascade.easy_.attribution(X[1:], ["merged", c], [c, "merged"])
    for one, expected in zip(found, [hard, *easy], strict=True):
        np.testing.assert_array_equal(one.map, expected.map)


@pytest.mark.parametrize("counts", [(8, 6, 4), (8, 6, 0)])
def test_pixels_sum_to_the_difference_of_the_scores(counts):
    classifier = PixelsClassifier().fit(*toy(counts))
    X, _ = toy((2, 2, 0), seed=1)
    n = len(classifier.classes_)
    labels, others = np.array([0, 1, n - 1, 0]), np.array([1, 0, 0, n - 1])
    effects, seen, _ = classifier._effects(X, labels, others)
    assert effects.shape == seen.shape == (4, 15, 20)
    regression = classifier.pipeline_[1]
    intercepts = regression.intercept_ if n > 2 else np.array([0, regression.intercept_[0]])
    p = np.log(classifier.predict_proba(X))
    rows = np.arange(4)
    told = effects.sum(axis=(1, 2)) + intercepts[labels] - intercepts[others]
    np.testing.assert_allclose(told, p[rows, labels] - p[rows, others], rtol=1e-6)


@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_weights_of_a_pair_are_those_of_the_machine(n_classes):
    """libsvm packs the machines of all pairs into one array; a wrong row is another pair's."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 4)), np.arange(60) % n_classes
    X[:, 0] += y
    svc = SVC(kernel="linear", decision_function_shape="ovo").fit(X, y)
    decisions = svc.decision_function(X).reshape(60, -1)
    pairs = [(i, j) for i in range(n_classes) for j in range(i + 1, n_classes)]
    for number, (i, j) in enumerate(pairs):
        told = X @ svc.support_vectors_.T @ _pair_weights(svc, i, j)
        sign = -1 if n_classes == 2 else 1
        expected = sign * (decisions[:, number] - svc.intercept_[number])
        np.testing.assert_allclose(told, expected, atol=1e-9)
        np.testing.assert_array_equal(_pair_weights(svc, j, i), -_pair_weights(svc, i, j))


@pytest.mark.parametrize("options", [{}, {"kernel": "linear"}, {"scaler": "robust", "pca_components": 5}], ids=str)
def test_a_cell_counts_what_replacing_it_changes(options):
    """Held against the whole pipeline: HOG values of one cell, in all its blocks, set to the training mean."""
    X, y = toy((8, 6, 4))
    classifier = svm(**options).fit(X, y)
    hog, pipeline = classifier.hog, classifier.pipeline_
    features = hog.features(X[:1]).astype(np.float64)
    svc = copy.copy(pipeline[2])
    svc.decision_function_shape = "ovo"

    def decision(rows):  # of classes 0 and 2
        return svc.decision_function(pipeline[1].transform(rows))[:, 1]

    scaled = pipeline[0].transform(features)
    effects = cell_effects(hog, pipeline, features, np.array([0]), np.array([2]))[0]
    blocks, b = 3, 2
    for row, column in [(0, 0), (1, 2), (3, 3)]:
        without = scaled.copy().reshape(blocks, blocks, b, b, -1)
        mean = pipeline[1].mean_.reshape(without.shape)
        for y_block, x_block, y_cell, x_cell in np.ndindex(blocks, blocks, b, b):
            if (y_block + y_cell, x_block + x_cell) == (row, column):
                without[y_block, x_block, y_cell, x_cell] = mean[y_block, x_block, y_cell, x_cell]
        expected = decision(scaled) - decision(without.reshape(1, -1))
        assert effects[row, column] == pytest.approx(expected[0], abs=1e-9)


def test_strokes_lie_along_the_edges():
    """Stripes across the image have edges across it."""
    classifier = svm()
    across = np.repeat(np.tile([40, 40, 40, 40, 200, 200, 200, 200], 4)[:, None], 32, axis=1).astype(np.uint8)
    drawn = strokes(classifier.hog, classifier.hog.features(np.array([across, across.T])))
    first, second = 255.0 - drawn
    assert np.abs(np.diff(first, axis=0)).sum() > 3 * np.abs(np.diff(first, axis=1)).sum()
    assert np.abs(np.diff(second, axis=1)).sum() > 3 * np.abs(np.diff(second, axis=0)).sum()


def test_grad_cam_of_a_residual_network_is_exact():
    """Mean over places, then a linear layer: the map's mean is the difference of the logits without biases."""
    classifier = cnn(epochs=1).set_params(size_px=64).fit(*toy((8, 6, 4)))
    network = classifier.network_.eval()
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    labels, others = torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0])
    found = grad_cam(network, images, labels, others)
    with torch.no_grad():
        logits = network(images) - network.model.fc.bias
    rows = torch.arange(3)
    torch.testing.assert_close(found.sum(dim=(1, 2)), logits[rows, labels] - logits[rows, others], rtol=1e-4, atol=1e-5)


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
def test_relevance_against_whole_matrices(options):
    """The paper's recursion with whole matrices; ours multiplies rows alone, and leaves out what nobody reads."""
    classifier = shortened(vpt(**options)).fit(*toy((8, 6, 4)))
    network = classifier.network_.eval()
    vit, n_prompts = network.vit, network.prompts.shape[1]
    fused = [block.attn.fused_attn for block in vit.blocks]
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels, others = torch.tensor([0, 1]), torch.tensor([2, 0])
    found = relevance(network, images, labels, others)
    assert found.shape == (2, 4, 4)
    assert (found >= 0).all()
    assert [block.attn.fused_attn for block in vit.blocks] == fused
    with watched(network) as (attentions, last):
        logits = network(images)
    for attention in attentions:
        torch.testing.assert_close(attention.sum(dim=-1), torch.ones(attention.shape[:-1]))
    rows = torch.arange(2)
    margin = (logits[rows, labels] - logits[rows, others]).sum()
    *slopes, slope = torch.autograd.grad(margin, [*attentions, last[0]])
    n_prefix, deep = vit.num_prefix_tokens, network.deep
    n = n_prefix + 16 + (0 if deep else n_prompts)
    whole = torch.eye(n).expand(2, n, n)
    for a, g in zip(attentions, slopes, strict=True):
        own = (a * g).clamp(min=0).mean(dim=1)[:, :, :n].detach()
        padded = torch.zeros(2, n, n)
        padded[:, : own.shape[1]] = own
        whole = whole + padded @ whole
    given = (slope * last[0]).sum(dim=2).clamp(min=0).detach()
    # Where no token that is read speaks for the label, all that are read count.
    silent = given.sum(dim=1) == 0
    given[silent] = (slope != 0).any(dim=2).float()[silent]
    read = torch.zeros(2, n)
    patches = slice(n - 16, n)
    read[:, :n_prefix] = given[:, :n_prefix]
    if given.shape[1] > n_prefix:
        read[:, patches] = given[:, n_prefix:]
    expected = (read[:, None] @ whole)[:, 0, patches] / read.sum(dim=1, keepdim=True)
    torch.testing.assert_close(found.flatten(1), expected, rtol=1e-4, atol=1e-8)


def test_a_backbone_that_cannot_be_looked_into_has_none():
    """timm has networks of every kind; a figure must not end a run."""
    network = cnn(epochs=1).fit(*toy((4, 4, 4))).network_
    network.model.forward_features = lambda images: torch.zeros(len(images), 7, 5)
    assert grad_cam(network, torch.zeros(1, 3, 32, 32), torch.tensor([0]), torch.tensor([1])) is None


# --- The figure ---


def image(value=128):
    return np.full((20, 30, 3), value, dtype=np.uint8)


def test_any_label_is_drawn(tmp_path):
    labels = ["$x_1$", "Землетрясение", "", "l" * 300]
    captions = [(name, name, 0.5, name) for name in labels]
    maps = [np.zeros((1, 1)), np.ones((7, 7), np.float32), np.eye(16), np.eye(4)]
    path = tmp_path / "new" / "a.png"
    attribution_figure([image()] * 4, [image()[..., 0]] * 4, maps, captions, path, "$t$", "said $")
    first = path.read_bytes()
    attribution_figure([image()] * 4, [image()[..., 0]] * 4, maps, captions, path, "$t$", "said $")
    assert path.read_bytes() == first
    with Image.open(path) as drawn:
        assert drawn.size[0] > 1000
    with pytest.raises(ValueError, match="got 1 images, 1 seen, 0 maps"):
        attribution_figure([image()], [image()], [], captions[:1], path, "", "")


def test_colour_lies_where_the_weights_are():
    weights = np.zeros((2, 2))
    weights[0, 1] = 1
    red, _, blue = np.moveaxis(overlay(image(), weights).astype(int), 2, 0)
    coloured = red - blue
    half = len(coloured) // 2
    assert coloured[: half // 2, -half // 2 :].min() > 60
    assert coloured[half + half // 2 :, : half // 2].max() <= 5


# --- In a run ---


@pytest.mark.parametrize("stage", ["full", "flat"])
def test_a_run_draws_it_for_the_wrong_ones(stage, demo_root, run_here):
    """One for each split that has wrong ones."""
    run_dir = run_here(
        f"data.demo_dir={demo_root}", "data.scale=0.1", f"cascade_stage={stage}", "model=pixels", figures=True
    )
    rows = (run_dir / "predictions.csv").read_text(encoding="utf-8").splitlines()[1:]
    wrong = {row.split(",")[0] for row in rows if row.split(",")[3] != row.split(",")[4]}
    assert wrong, "nothing is wrong, and nothing is tested"
    assert {path.stem for path in (run_dir / "figures").glob("attribution_*")} == {f"attribution_{s}" for s in wrong}

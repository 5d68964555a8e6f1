"""Embeddings: what goes beyond the contract of all classifiers."""

import numpy as np
import pytest
import timm
import torch
from test_classifiers import LABELS, RESNET, embed, stored, svm, toy
from timm.models.vision_transformer import VisionTransformer
from torch.nn.functional import adaptive_avg_pool2d

import spectro.classifiers.svm as svm_module
from spectro.classifiers import CascadeClassifier, EnsembleClassifier, load
from spectro.classifiers.manifest import load_frozen, save_frozen
from spectro.data import Augmentation
from spectro.data.transforms import BUILT_IN_VIEWS
from spectro.errors import ModelError


def mirrored(images):
    """Each record, and its mirror image; and for each row the number of its record."""
    augmentation = Augmentation({"mirrored": BUILT_IN_VIEWS["mirrored"]})
    return images.augmented(augmentation, [str(i) for i in range(len(images))], per_epoch=False)


def test_features_are_pooled_outputs_of_the_block():
    """Compared with the whole transformer, from which a hook takes the first block's output."""
    classifier = embed(blocks=[1], grids=[1, 4], pixels=None, pixels_weight=1.0)
    X, y = toy((4, 4, 4))
    classifier.fit(X, y)
    name, options = classifier.backbone, classifier.backbone_options
    whole = timm.create_model(name, num_classes=0, img_size=32, **options).eval()
    missing, unexpected = whole.load_state_dict(classifier.backbone_.state_dict(), strict=False)
    assert (unexpected, {key.split(".")[0] for key in missing}) == ([], {"blocks", "norm"})
    whole.blocks[0].register_forward_hook(lambda module, inputs, output: outputs.append(output))
    outputs: list[torch.Tensor] = []
    mean, std = (torch.tensor(whole.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        whole((torch.from_numpy(X).float()[:, None] / 255 - mean) / std)
    places = outputs[0][:, 1:].transpose(1, 2).reshape(12, 24, 4, 4)
    expected = torch.cat([adaptive_avg_pool2d(places, k).flatten(1) for k in (1, 4)], dim=1)
    scaler = classifier.pipeline_[0]
    np.testing.assert_allclose(scaler.mean_, expected.mean(dim=0), atol=1e-3)
    # Either grid has a total variance of 1.
    parts = expected.split([24, 24 * 16], dim=1)
    totals = [part.var(dim=0, correction=0).sum().sqrt().item() for part in parts]
    np.testing.assert_allclose(scaler.scale_[[0, -1]], totals, rtol=1e-3)


def test_each_view_goes_through_the_backbone_once(tmp_path, monkeypatch):
    """Not again for another fold, C, grid, fit or process; and features do not depend on what was cached before."""
    seen = []
    real = VisionTransformer.forward_intermediates
    monkeypatch.setattr(
        VisionTransformer, "forward_intermediates", lambda self, x, **k: seen.append(len(x)) or real(self, x, **k)
    )
    (tmp_path / "images").mkdir()
    X, y = toy((5, 4, 4))
    views, rows = mirrored(stored(tmp_path / "images", X, embed().specs[0], tmp_path / "cache"))
    half = embed().fit(views[::2], y[rows][::2])
    first = embed().fit(views, y[rows])
    n_passes = len(seen)
    for classifier in (embed(), embed(C=None), embed(grids=[1, 2])):
        classifier.fit(views, y[rows]).predict_proba(views)
        classifier.out_of_fold(views[::2], y[rows][::2], None, None, views[1::2])
    again = stored(tmp_path / "images", X, embed().specs[0], tmp_path / "cache")
    in_new_process = embed().fit(mirrored(again)[0], y[rows])
    # What is left are passes of one empty image for the shape of the outputs.
    assert set(seen[n_passes:]) <= {1}
    np.testing.assert_array_equal(in_new_process.predict_proba(views), first.predict_proba(views))
    assert len(half.predict_proba(views)) == len(views)


@pytest.mark.parametrize("make", [svm, embed])
def test_views_of_a_record_stay_together_where_c_is_chosen(make, tmp_path, monkeypatch):
    """A mirrored copy on the other side would be recognised; val records must have no part in the choice."""
    groups_of_choices = []
    real = svm_module.choose
    monkeypatch.setattr(
        svm_module,
        "choose",
        lambda cs, predict, y, groups: groups_of_choices.append(groups) or real(cs, predict, y, groups),
    )
    X, y = toy((5, 4, 4))
    classifier = make(C=None)
    images = stored(tmp_path, X, classifier.specs[0])
    store = images.store
    for spec in classifier.specs[1:]:
        store.add([tmp_path / f"{i:03d}.png" for i in range(len(X))], list(images.digests), [spec])
    views, rows = mirrored(images)
    classifier.fit(views, y[rows], *toy((3, 3, 3), seed=1))
    classifier.out_of_fold(views, y[rows], None, None, views[:2])
    assert [len(groups) for groups in groups_of_choices] == [2 * len(X)] * 2
    for groups in groups_of_choices:
        assert len(set(zip(groups.tolist(), rows.tolist(), strict=True))) == len(set(groups)) == len(X)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": [1, 3]}, "embed.blocks: got 3; allowed: 1 to 2 with embed.backbone=deit_tiny_patch16_224"),
        ({"grids": [2, 5]}, "embed.grids: got 5; allowed: 1 to 4, as block 2 .* 4x4 places at embed.size_px=32"),
        ({**RESNET, "blocks": [3], "grids": [5]}, "embed.grids: got 5; allowed: 1 to 4, as block 3 of resnet18"),
        ({**RESNET, "backbone": "skresnet18", "blocks": [6]}, "embed.blocks: got 6; allowed: 1 to 5"),
        ({"backbone": "nope"}, "embed.backbone: got 'nope'; allowed: a model that timm has"),
        ({"pretrained": True, "weights": "nope.safetensors"}, "embed.weights: got 'nope.safetensors', no such file"),
    ],
    ids=str,
)
def test_a_backbone_without_what_is_asked_for(options, message):
    """Before any data are read."""
    with pytest.raises(Exception, match=message):
        embed(**options).prepare()


def test_a_backbone_without_outputs_of_blocks(monkeypatch):
    monkeypatch.delattr(VisionTransformer, "forward_intermediates")
    with pytest.raises(Exception, match=r"embed.backbone: got 'deit_tiny_distilled.*gives no outputs of its blocks"):
        embed(backbone="deit_tiny_distilled_patch16_224").prepare()


def test_frozen_weights_that_float16_holds_take_half_the_space(tmp_path):
    """Published weights are often float16; others must not lose a digit."""
    third = torch.tensor([1 / 3, 2.0])
    tensors = {"exact": third.half().float(), "other": third, "large": torch.tensor([1e6]), "count": torch.tensor(7)}
    loaded = load_frozen(save_frozen(tensors, tmp_path), tmp_path)
    assert {name: t.dtype for name, t in loaded.items() if t.dtype != tensors[name].dtype} == {"exact": torch.float16}
    assert all((loaded[name] == tensors[name]).all() for name in tensors)


def test_a_frozen_backbone_is_saved_once_and_believed_only_whole(tmp_path):
    """Stages and members would take 90 MB each; a file of other weights would give other labels without a word."""
    X, y = toy((6, 6, 6))
    cascade = CascadeClassifier(EnsembleClassifier(embed(), 2), embed(), {"pair": LABELS[1:]}).fit(X, y)
    cascade.save(tmp_path / "model")
    (path,) = (tmp_path / "model").rglob("*.safetensors")
    assert path.parent == tmp_path / "model"
    np.testing.assert_array_equal(load(tmp_path / "model").predict_proba(X), cascade.predict_proba(X))
    part = load(tmp_path / "model" / "easy" / "member_1")
    np.testing.assert_array_equal(part.predict_proba(X), cascade.easy_.members_[0].predict_proba(X))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelError, match=r"frozen_\w+.safetensors: damaged"):
        load(tmp_path / "model")
    path.unlink()
    with pytest.raises(ModelError, match=r"frozen_\w+.safetensors: no such file"):
        load(tmp_path / "model")

"""Prompts in a vision transformer: where they stand, what is trained, and what they must not change."""

import math

import numpy as np
import pytest
import timm
import torch
from sklearn.base import clone
from test_classifiers import cnn, stored, toy, vpt

from spectro.classifiers import CascadeClassifier
from spectro.classifiers.networks.batches import Batches
from spectro.classifiers.networks.device import Place, seeded
from spectro.classifiers.networks.module import Network
from spectro.classifiers.networks.prompts import PromptedViT
from spectro.data import Augmentation, Spectrogram
from spectro.data.transforms import BUILT_IN_VIEWS
from spectro.errors import ConfigError

TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}
CPU = torch.device("cpu")
# Name -> timm's model and its arguments: plain, distilled, registers without a class position, averaged, DINOv2.
BACKBONES = {
    "plain": ("deit_tiny_patch16_224", {}),
    "distilled": ("deit_tiny_distilled_patch16_224", {}),
    "registers": ("vit_small_patch14_reg4_dinov2", {"init_values": 1e-1}),
    "average": ("vit_base_patch16_224", {"global_pool": "avg"}),
    "layer scale": ("vit_small_patch14_dinov2", {"init_values": 1e-1}),
    "clip": ("vit_base_patch16_clip_224", {}),
}
# Rotated positions in two layouts, and by block; biases of relative positions, by block and shared.
OTHERS = {
    "dinov3": ("vit_small_patch16_dinov3", {}),
    "eva02": ("eva02_tiny_patch14_224", {}),
    "mixed": ("vit_small_patch16_rope_mixed_224", {}),
    "beit": ("beit_base_patch16_224", {}),
    "shared": ("beit_base_patch16_224", {"use_shared_rel_pos_bias": True, "global_pool": "token"}),
}
backbones = pytest.mark.parametrize("name", BACKBONES)


def backbone(name="plain", **options):
    model, arguments = (BACKBONES | OTHERS)[name]
    torch.manual_seed(1)
    vit = timm.create_model(model, num_classes=0, **{**TINY, **arguments, **options}).eval()
    for key, parameter in vit.named_parameters():
        if "relative_position_bias_table" in key or "gamma" in key:
            torch.nn.init.normal_(parameter.data)
    return vit


def prompted(vit, *, deep=False, length=5, **options):
    torch.manual_seed(2)
    return PromptedViT(vit, 4, deep=deep, length=length, **options).eval()


def images(n=3, seed=0):
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def features(network, x):
    return network.features_from(network.frozen(x))


@backbones
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("length", [0, 5])
def test_against_a_straightforward_forward_pass(name, deep, length):
    """Written with attention as its formula stands, token by token in lists, sharing nothing but the weights."""
    vit = backbone(name)
    network = prompted(vit, deep=deep, length=length)
    x = images()

    def attend(attn, tokens):
        n, t, d = tokens.shape
        q, k, v = attn.qkv(tokens).view(n, t, 3, attn.num_heads, d // attn.num_heads).unbind(2)
        scores = torch.einsum("nqhd,nkhd->nhqk", q, k) / math.sqrt(d // attn.num_heads)
        return attn.proj(torch.einsum("nhqk,nkhd->nqhd", scores.softmax(-1), v).reshape(n, t, d))

    with torch.no_grad():
        tokens = vit.norm_pre(vit._pos_embed(vit.patch_embed(x)))
        prefix = vit.num_prefix_tokens
        for i, block in enumerate(vit.blocks):
            if deep or i == 0:
                others = [tokens[:, j] for j in range(tokens.shape[1]) if i == 0 or not prefix <= j < prefix + length]
                prompts = [network.prompts[i, j].expand(3, -1) for j in range(length)]
                tokens = torch.stack(others[:prefix] + prompts + others[prefix:], dim=1)
            tokens = tokens + block.ls1(attend(block.attn, block.norm1(tokens)))
            tokens = tokens + block.ls2(block.mlp(block.norm2(tokens)))
        tokens = vit.norm(tokens)
        patches = tokens[:, prefix + length :]
        if name == "average":
            pooled = vit.fc_norm(patches.mean(dim=1))
        elif name == "distilled":
            pooled = (tokens[:, 0] + tokens[:, 1]) / 2
        else:
            pooled = tokens[:, 0]
        expected = pooled @ network.head.weight.T + network.head.bias
        torch.testing.assert_close(network(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("first_block", [0, 1])
@pytest.mark.parametrize("deep", [False, True])
def test_prompts_that_nobody_attends_to_change_nothing(name, first_block, deep):
    """Equals timm's own model; a rotation or a bias one place beside the patch that it is for would not."""
    vit, x = backbone(name, embed_dim=48), images()
    plain = prompted(backbone(name, embed_dim=48), deep=deep, length=0)
    network = prompted(backbone(name, embed_dim=48), deep=deep, first_block=first_block)
    attend = torch.nn.functional.scaled_dot_product_attention
    prefix, length = vit.num_prefix_tokens, network.prompts.shape[1]

    def without_prompts(q, k, v, attn_mask=None, **options):
        if k.shape[2] > prefix + 16:
            mask = torch.zeros(k.shape[2])
            mask[prefix : prefix + length] = -torch.inf
            attn_mask = mask.expand(q.shape[2], -1) if attn_mask is None else attn_mask + mask
        return attend(q, k, v, attn_mask=attn_mask, **options)

    with torch.no_grad():
        expected = vit(x)
        torch.testing.assert_close(features(plain, x), expected, rtol=1e-4, atol=1e-4)
        assert (features(network, x) - expected).abs().max() > 1e-3
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.nn.functional, "scaled_dot_product_attention", without_prompts)
            torch.testing.assert_close(features(network, x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("deep", [False, True])
def test_what_is_trained_gets_a_gradient_and_nothing_else(deep):
    """Every prompt too: one that no token attends to would be trained for nothing."""
    network = prompted(backbone(), deep=deep)
    network.train()
    network(images()).square().sum().backward()
    for name, parameter in network.named_parameters():
        is_trained = name.startswith(("prompts", "head."))
        assert (parameter.requires_grad, parameter.grad is not None) == (is_trained, is_trained), name
    assert (network.prompts.grad.abs().sum(dim=2) > 0).all()
    assert network.head.weight.grad.abs().sum() > 0


def test_dropout_is_for_training_and_of_prompts_alone():
    """Dropout of a backbone that cannot learn from it is noise."""
    network, x = prompted(backbone(pos_drop_rate=0.5, proj_drop_rate=0.5), dropout=0.3), images(1)
    with torch.no_grad():
        torch.testing.assert_close(network(x), network(x), rtol=0, atol=0)
        network.train()
        assert not torch.equal(network(x), network(x))
    assert not any(module.training for module in network.backbone.modules())


def test_initialisation_is_uniform_in_its_bounds():
    network = prompted(backbone(embed_dim=48), deep=True, length=50)
    bound = math.sqrt(6 / (3 * 8 * 8 + 48))
    values = network.prompts.detach()
    assert values.abs().max() <= bound
    assert values.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


@pytest.mark.parametrize(("deep", "expected"), [(False, 5_380), (True, 47_620)])
def test_parameters_of_deit_small(deep, expected):
    """P * d, or depth * P * d, and a linear head: what the paper's arithmetic says."""
    vit = timm.create_model("deit_small_patch16_224", pretrained=False, num_classes=0)
    counted = PromptedViT(vit, 4, deep=deep, length=10).n_parameters
    assert counted["trainable"] == expected
    assert counted["total"] == expected + sum(p.numel() for p in vit.parameters())


@pytest.mark.parametrize("name", ["plain", *OTHERS])
def test_bf16_is_near_fp32(name):
    """Frozen weights in bf16 may cost digits, not the prediction."""
    x = images(8)
    network = prompted(backbone(name, embed_dim=48), deep=True)
    with torch.no_grad():
        exact = network(x)
        network.prepare(Place(CPU, "bf16"))
        rounded = network(x)
    assert rounded.dtype == torch.float32
    assert (exact - rounded).abs().max() < 0.03 * exact.abs().max() + 0.01
    trained = {p.dtype for p in network.parameters() if p.requires_grad}
    assert trained == {torch.float32}, "what is trained in bf16 rounds small steps away"


def test_a_backbone_that_is_no_vision_transformer():
    with pytest.raises(ConfigError, match=r"vpt.backbone: .*swin.*allowed: a timm VisionTransformer, Eva or Beit"):
        vpt(backbone="swin_tiny_patch4_window7_224", backbone_options={}).set_params(
            backbone_options=None, size_px=224
        ).prepare()


@pytest.mark.parametrize(
    ("classifier", "trained"),
    [
        (cnn(freeze="none"), ("backbone.conv1", "backbone.bn1", "backbone.layer", "head.")),
        (cnn(freeze="stem"), ("backbone.layer", "head.")),
        (cnn(freeze="backbone"), ("head.",)),
        (vpt(variant="shallow"), ("prompts", "head.")),
        (vpt(variant="deep"), ("prompts", "head.")),
    ],
    ids=str,
)
def test_frozen_parts_stay_put_and_all_others_change(classifier, trained):
    """Weights and the running statistics of batch norms; the original's head was frozen by mistake."""
    classifier.set_params(training__epochs=2)
    with seeded(classifier.seed, CPU):
        before, _ = classifier._build(3, empty=False)
    old = before.state_dict()
    classifier.fit(*toy((8, 6, 4)))
    for name, tensor in classifier.network_.state_dict().items():
        assert torch.equal(tensor, old[name]) != name.startswith(trained), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": 4}, "vpt.blocks: got 4; allowed: at most 3"),
        ({"blocks": 2, "first_block": 2}, "vpt.first_block: got 2; allowed: less than 2"),
        ({"grid": [4, 5]}, "vpt.grid: got 4 x 5; allowed: at most 4 x 4"),
    ],
    ids=str,
)
def test_more_than_the_backbone_has(options, message):
    with pytest.raises(ConfigError, match=message):
        prompted(backbone(), **options)


@backbones
@pytest.mark.parametrize("deep", [False, True])
def test_a_grid_of_a_middle_block_with_prompts_in_it_alone(name, deep):
    """Compared with timm's own intermediate tokens: the prompts are taken away, as they change what they enter."""
    expected = backbone(name)
    network = prompted(backbone(name), deep=deep, blocks=2, first_block=1, grid=[2, 4], pixels=[4, 2])
    x = images()
    assert not any(key.startswith(("backbone.blocks.2", "backbone.norm.")) for key in network.state_dict())
    assert network.prompts.shape[0] == 1
    with torch.no_grad():
        prompts, network.prompts.data = network.prompts.data, network.prompts.data[:, :0]
        places = expected.forward_intermediates(x, indices=[1], intermediates_only=True, norm=False)[0]
        cells = places.unflatten(2, (2, 2)).unflatten(4, (4, 1)).mean(dim=(3, 5)).flatten(1)
        std, mean = (torch.tensor(v).view(3, 1, 1) for v in network.normalisation[::-1])
        grey = ((x * std + mean) * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(dim=1)
        thumbnails = grey.unflatten(1, (2, 16)).unflatten(3, (4, 8)).mean(dim=(2, 4)).flatten(1)
        values = torch.cat([cells, thumbnails], dim=1)
        torch.testing.assert_close(features(network, x), values, rtol=1e-4, atol=1e-4)
        network.prompts.data = prompts
        assert not torch.allclose(features(network, x), values, rtol=1e-2)
        network.standardise(features(network, x))
        parts = features(network, x).split([cells.shape[1], 8], dim=1)
        totals = [part.var(dim=0, correction=0).sum().sqrt().item() for part in parts]
        assert totals == pytest.approx([1, 0.2], rel=1e-4)


FROZEN = {
    "tokens": lambda: vpt(pool="grid", first_block=1, pixels=[5, 4]),
    "deep": lambda: vpt(variant="deep", first_block=1),
    "probe": lambda: vpt(prompt_length=0),
    "stem": lambda: cnn(freeze="stem"),
    "stages": lambda: cnn(pool="grid", grid=2, stages=3, freeze=2, pixels=[5, 4]),
    "whole": lambda: cnn(freeze="backbone"),
}


@pytest.mark.parametrize("make", FROZEN.values(), ids=FROZEN)
def test_frozen_values_are_computed_once_and_to_the_bit(make, tmp_path, monkeypatch):
    """For every view; not for another epoch, another fit, the other stage of a cascade, or in another process."""
    computed = []
    spy = Network.frozen
    monkeypatch.setattr(Network, "frozen", lambda self, x: computed.append(len(x)) or spy(self, x))
    X, y = toy((5, 4, 3))
    classifier = make().set_params(training__epochs=2)
    augmentation = Augmentation({"mirrored": BUILT_IN_VIEWS["mirrored"]}, mode="sample")

    def views():
        records = stored(tmp_path, X, classifier.specs[0], tmp_path / "cache")
        return records.augmented(augmentation, ["s"] * len(X), per_epoch=True)[0]

    records = views()
    classifier.fit(records, y)
    assert sum(computed) <= 2 * len(X)
    network = classifier.network_.eval()
    batches = Batches(records, classifier.specs[0], network)
    computed.clear()
    for seed in range(6):
        drawn = batches.drawn(np.random.default_rng(seed))
        rows = np.random.default_rng(seed).permutation(len(X))[: 3 + seed]
        frozen = drawn(rows)
        with torch.no_grad():
            assert torch.equal(network.forward_from(frozen), network(drawn.images(rows))), "another sum, other bits"
    computed.clear()
    clone(classifier).fit(records, y)
    other = make().set_params(training__epochs=2, training__lr=0.01)
    CascadeClassifier(other, classifier, {"merged": sorted(set(y))[:2]}).fit(records, y)
    clone(classifier).fit(views(), y)  # as in another process
    assert computed == []
    images = records.augmented(Augmentation({}, {"spectrogram": Spectrogram()}), ["s"] * len(X), per_epoch=True)[0]
    clone(classifier).fit(images, y)
    assert sum(computed) == 2 * len(X), "images that change at random are new in each epoch"


def test_frozen_values_depend_on_all_that_is_frozen():
    """Values of other weights, blocks or pixels under the same name would train another network."""
    makers = [vpt(first_block=1), vpt(first_block=1, seed=1), vpt(first_block=1, pixels=[5, 4]), vpt(prompt_length=0)]
    names = []
    for classifier in makers:
        with seeded(classifier.seed, CPU):
            names.append(classifier._build(2, empty=False)[0].frozen_identity)
    assert len(set(names)) == len(makers)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": 5}, "cnn.stages: got 5; allowed: at most 4"),
        ({"freeze": 5}, "cnn.freeze: got 5; allowed: at most 4"),
        ({"pool": "grid", "grid": 4, "size_px": 64}, "cnn.grid: got 4 x 4; allowed: at most 2 x 2"),
        ({"pool": "grid", "backbone": "hrnet_w18_small", "freeze": 2}, "cnn.freeze: got 2; allowed"),
        ({"backbone": "mixer_s16_224"}, "cnn.backbone: got a MlpMixer.*allowed: a convolutional"),
        ({"backbone": "deit_tiny_patch16_224", "stages": 3}, "cnn.backbone: got a VisionTransformer.*allowed: a conv"),
    ],
    ids=str,
)
def test_a_convolutional_backbone_without_what_is_asked_for(options, message):
    classifier = cnn(**options)
    if "backbone" in options:
        classifier.set_params(backbone_options=None, size_px=224)
    with pytest.raises(ConfigError, match=message):
        classifier.prepare()

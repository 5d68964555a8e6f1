"""Prompts in a vision transformer: where they stand, what is trained, and what they must not change."""

import math

import numpy as np
import pytest
import timm
import torch
from test_classifiers import cnn, toy, vpt

from spectro.classifiers.networks.device import Place
from spectro.classifiers.networks.prompts import PromptedViT
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
backbones = pytest.mark.parametrize("name", BACKBONES)


def backbone(name="plain", **options):
    model, arguments = BACKBONES[name]
    torch.manual_seed(1)
    return timm.create_model(model, num_classes=0, **{**TINY, **arguments, **options}).eval()


def prompted(vit, *, deep=False, length=5, **options):
    torch.manual_seed(2)
    return PromptedViT(vit, 4, deep=deep, length=length, **options).eval()


def images(n=3, seed=0):
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


@backbones
@pytest.mark.parametrize("deep", [False, True])
def test_no_prompts_are_the_plain_transformer(name, deep):
    vit = backbone(name)
    network = prompted(vit, deep=deep, length=0)
    x = images()
    with torch.no_grad():
        plain = vit.forward_head(vit.forward_features(x), pre_logits=True) @ network.head.weight.T + network.head.bias
        torch.testing.assert_close(network(x), plain, rtol=0, atol=1e-6)


@backbones
@pytest.mark.parametrize("deep", [False, True])
def test_against_a_straightforward_forward_pass(name, deep):
    """Written with attention as its formula stands, token by token in lists, sharing nothing but the weights."""
    vit = backbone(name)
    network = prompted(vit, deep=deep)
    x = images()

    def attend(attn, tokens):
        n, length, d = tokens.shape
        q, k, v = attn.qkv(tokens).view(n, length, 3, attn.num_heads, d // attn.num_heads).unbind(2)
        scores = torch.einsum("nqhd,nkhd->nhqk", q, k) / math.sqrt(d // attn.num_heads)
        return attn.proj(torch.einsum("nhqk,nkhd->nqhd", scores.softmax(-1), v).reshape(n, length, d))

    with torch.no_grad():
        tokens = vit.norm_pre(vit._pos_embed(vit.patch_embed(x)))
        prefix = vit.num_prefix_tokens
        for i, block in enumerate(vit.blocks):
            if deep or i == 0:
                others = [tokens[:, j] for j in range(tokens.shape[1]) if i == 0 or not prefix <= j < prefix + 5]
                prompts = [network.prompts[i, j].expand(3, -1) for j in range(5)]
                tokens = torch.stack(others[:prefix] + prompts + others[prefix:], dim=1)
            tokens = tokens + block.ls1(attend(block.attn, block.norm1(tokens)))
            tokens = tokens + block.ls2(block.mlp(block.norm2(tokens)))
        tokens = vit.norm(tokens)
        patches = tokens[:, prefix + 5 :]
        if name == "average":
            pooled = vit.fc_norm(patches.mean(dim=1))
        elif name == "distilled":
            pooled = (tokens[:, 0] + tokens[:, 1]) / 2
        else:
            pooled = tokens[:, 0]
        expected = pooled @ network.head.weight.T + network.head.bias
        torch.testing.assert_close(network(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["plain", "registers"])
def test_deep_with_one_block_is_shallow(name):
    shallow, deep = (prompted(backbone(name, depth=1), deep=deep) for deep in (False, True))
    with torch.no_grad():
        torch.testing.assert_close(shallow(images()), deep(images()), rtol=0, atol=1e-6)


@pytest.mark.parametrize("deep", [False, True])
def test_every_prompt_has_an_effect(deep):
    """Prompts that no token attends to would be trained for nothing."""
    network, x = prompted(backbone(), deep=deep), images()
    with torch.no_grad():
        before = network(x)
        for row in range(len(network.prompts)):
            before_row = network.prompts[row].clone()
            network.prompts[row] += torch.randn_like(before_row)
            assert (network(x) - before).abs().max() > 1e-4, row
            network.prompts[row] = before_row


@backbones
@pytest.mark.parametrize("deep", [False, True])
def test_a_record_does_not_depend_on_its_batch_mates(name, deep):
    network, x = prompted(backbone(name), deep=deep), images(6)
    with torch.no_grad():
        alone = torch.cat([network(x[i : i + 1]) for i in range(6)])
        torch.testing.assert_close(network(x), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"projection": 7}], ids=str)
@pytest.mark.parametrize("deep", [False, True])
def test_what_is_trained_gets_a_gradient_and_nothing_else(deep, options):
    network = prompted(backbone(), deep=deep, **options)
    network.train()
    network(images()).square().sum().backward()
    for name, parameter in network.named_parameters():
        expected = name.startswith(("prompts", "head.", "projection."))
        assert parameter.requires_grad == expected, name
        if expected:
            # The bias of keys moves all scores of a query alike: softmax does not see it.
            gradient = parameter.grad
            assert gradient is not None, name
            assert (gradient.flatten(1) if name == "prompts" else gradient).abs().sum() > 0, name
        else:
            assert parameter.grad is None, name
    if deep:
        assert (network.prompts.grad.abs().sum(dim=(1, 2)) > 0).all()


@pytest.mark.parametrize("variant", ["shallow", "deep"])
def test_fit_changes_prompts_and_head_alone(variant):
    """The original's head was frozen by mistake and never learned."""
    classifier = vpt(epochs=2, variant=variant)
    classifier.classes_ = np.array(["a", "b", "c"])
    from spectro.classifiers.networks.device import seeded

    with seeded(classifier.seed, CPU):
        before, _ = classifier._build(3, empty=False)
    old = before.state_dict()
    classifier.fit(*toy((8, 6, 4)), *toy((2, 2, 2), seed=1))
    for name, tensor in classifier.network_.state_dict().items():
        changed = not torch.equal(tensor, old[name])
        assert changed == name.startswith(("prompts", "head.")), name


def test_frozen_backbone_is_in_eval_mode_while_training():
    """Dropout of a backbone that cannot learn from it is noise."""
    network = prompted(backbone(pos_drop_rate=0.5, proj_drop_rate=0.5), dropout=0.3)
    network.train()
    assert not network.vit.blocks[0].training
    assert not network.vit.pos_drop.training
    assert network.dropout.training


def test_prompt_dropout_only_in_training():
    network, x = prompted(backbone(), dropout=0.5), images(1)
    with torch.no_grad():
        torch.testing.assert_close(network(x), network(x), rtol=0, atol=0)
        network.train()
        assert not torch.equal(network(x), network(x))


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


def test_bf16_is_near_fp32():
    """Frozen weights in bf16 may cost digits, not the prediction."""
    x = images(8)
    network = prompted(backbone(), deep=True)
    with torch.no_grad():
        exact = network(x)
        network.prepare(Place(CPU, "bf16"))
        rounded = network(x)
    assert rounded.dtype == torch.float32
    assert (exact - rounded).abs().max() < 0.03 * exact.abs().max() + 0.01
    trained = {p.dtype for p in network.parameters() if p.requires_grad}
    assert trained == {torch.float32}, "what is trained in bf16 rounds small steps away"


def test_a_backbone_that_is_no_vision_transformer():
    with pytest.raises(ConfigError, match=r"vpt.backbone: .*swin.*allowed: a timm VisionTransformer"):
        vpt(backbone="swin_tiny_patch4_window7_224", backbone_options={}).set_params(
            backbone_options=None, size_px=224
        ).prepare()
    with pytest.raises(ConfigError, match=r"vpt.backbone: got 'deit_tiny'; allowed: a model that timm has"):
        vpt(backbone="deit_tiny").prepare()


@pytest.mark.parametrize(
    ("freeze", "trained"),
    [("none", ("conv1", "bn1", "layer", "fc")), ("stem", ("layer", "fc")), ("backbone", ("fc",))],
)
def test_frozen_parts_of_a_cnn_stay_put(freeze, trained):
    """Weights and the running statistics of batch norms: statistics that move make another backbone."""
    from spectro.classifiers.networks.device import seeded

    classifier = cnn(epochs=1, freeze=freeze)
    with seeded(classifier.seed, CPU):
        before, _ = classifier._build(3, empty=False)
    old = before.state_dict()
    classifier.fit(*toy((8, 6, 4)))
    for name, tensor in classifier.network_.state_dict().items():
        expected = name.removeprefix("model.").startswith(trained)
        assert torch.equal(tensor, old[name]) != expected, name

"""What networks look at: Grad-CAM of a CNN, gradient-weighted attention of a vision transformer.

Both are our own few lines. timm cuts every CNN into ``forward_features`` and ``forward_head``, just where Grad-CAM
looks, so that the hooks on a layer which must be named for each backbone, for which one takes torchcam, captum or
pytorch-grad-cam, are not needed. And none of them knows our prompts, which stand among the tokens, or blocks of which
only the rows that are read are computed.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from spectro.classifiers.networks.convolution import Convolution
from spectro.classifiers.networks.prompts import PromptedViT, is_plain


def grad_cam(network: Convolution, images: Tensor, labels: Tensor, others: Tensor) -> Tensor | None:
    """Grad-CAM (Selvaraju et al., 2017) at the end of the backbone, of one logit less another one.

    The features' channels are summed with the mean of their gradient as weights. Where the head is an average over
    places and a linear layer, as in a ResNet, it is exact: the sum over all places is the difference of the logits, but
    for the biases.

    Args:
        network: The network, in eval mode.
        images: ``(n, 3, height, width)``.
        labels: Column of the one logit, ``(n,)``.
        others: Column of the other one, ``(n,)``.

    Returns:
        ``(n, h, w)``, with its sign; None where the backbone's features are no grid.
    """
    model: Any = network.model
    with torch.no_grad(), network.place.autocast():
        features = model.forward_features(images)
    if not isinstance(features, Tensor) or features.ndim != 4:
        return None
    if features.shape[1] != model.num_features and features.shape[-1] == model.num_features:
        # Some backbones put channels last; the head wants them where they are.
        of_channels, of_places = -1, (1, 2)
    else:
        of_channels, of_places = 1, (2, 3)
    features = features.detach().float().requires_grad_()
    (gradient,) = torch.autograd.grad(_margin(model.forward_head(features), labels, others), features)
    return (gradient.mean(dim=of_places, keepdim=True) * features).sum(dim=of_channels).detach()


def relevance(network: PromptedViT, images: Tensor, labels: Tensor, others: Tensor) -> Tensor | None:
    """Gradient-weighted attention of one logit less another (Chefer et al., 2021, "Generic attention-model ...").

    In each block attention is weighted with its gradient, what is negative is cut off, heads are averaged; the blocks
    are multiplied as in attention rollout (Abnar and Zuidema, 2020), with the residual way as identity. Plain rollout
    knows no classes and gives nearly the same map for every label.

    The relevance that shallow prompts pass on from patches to later tokens is counted; that of the prompts themselves
    is not: no place of the image belongs to them. Deep prompts are new in every block and pass nothing on.

    Args:
        network: The network, in eval mode.
        images: ``(n, 3, height, width)``.
        labels: Column of the one logit, ``(n,)``.
        others: Column of the other one, ``(n,)``.

    Returns:
        ``(n, rows, columns)`` of patches, 0 or more; None where a block has no attention that can be read.
    """
    vit: Any = network.vit
    if not all(hasattr(getattr(block, "attn", None), "attn_drop") for block in vit.blocks):
        return None
    with watched(network) as (attentions, last):
        margin = _margin(network(images), labels, others)
    if len(attentions) != len(vit.blocks):
        return None
    *slopes, slope = torch.autograd.grad(margin, [*attentions, *last])
    weighted = [(a * g).clamp(min=0).float().mean(dim=1) for a, g in zip(attentions, slopes, strict=True)]
    # What each of the last tokens gives to the margin; the head may read one of them or all.
    given = (slope * last[0]).sum(dim=2).float()
    rows = given.clamp(min=0)
    rows = torch.where(rows.sum(dim=1, keepdim=True) > 0, rows, (slope != 0).any(dim=2).float())
    rows = rows / rows.sum(dim=1, keepdim=True).clamp(min=1e-30)
    tokens = _tokens(network)
    if not network.deep and rows.shape[1] > vit.num_prefix_tokens:
        rows = _insert_prompts(network, rows)
    # From the last block to the first, rows (n, t) alone: what they read of each token that goes into the block.
    for block, own in reversed(list(zip(vit.blocks, weighted, strict=True))):
        if network.deep:
            own = tokens(own, block)
        read = (rows[:, None, : own.shape[1]] @ own)[:, 0]
        rows = torch.nn.functional.pad(rows, (0, read.shape[1] - rows.shape[1])) + read
    height, width = vit.patch_embed.grid_size
    return rows[:, rows.shape[1] - height * width :].reshape(-1, height, width).detach()


@contextmanager
def watched(network: PromptedViT) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Inside, a forward pass leaves every block's attention ``(n, heads, rows, columns)`` and the last tokens here.

    Rows sum to 1; columns are all tokens that are attended to, prompts among them. Fused attention, which keeps none,
    is switched off for so long.
    """
    attentions: list[Tensor] = []
    last: list[Tensor] = []
    vit: Any = network.vit

    def keep(module: Any, given: Any, attention: Tensor) -> Tensor:
        # Without prompts nothing before it asks for a gradient.
        attentions.append(attention if attention.requires_grad else attention.requires_grad_())
        return attentions[-1]

    with ExitStack() as stack:
        for block in vit.blocks:
            stack.callback(setattr, block.attn, "fused_attn", getattr(block.attn, "fused_attn", False))
            block.attn.fused_attn = False
            stack.callback(block.attn.attn_drop.register_forward_hook(keep).remove)
        stack.callback(vit.norm.register_forward_pre_hook(lambda module, given: last.append(given[0])).remove)
        yield attentions, last


def _margin(logits: Tensor, labels: Tensor, others: Tensor) -> Tensor:
    """How far one logit lies above the other, summed over the records: each has its own gradient."""
    return (logits.gather(1, labels[:, None]) - logits.gather(1, others[:, None])).sum()


def _tokens(network: PromptedViT) -> Callable[[Tensor, Any], Tensor]:
    """A function that leaves deep prompts out of a block's ``(n, rows, columns)``."""
    n_prompts, n_prefix = network.prompts.shape[1], network.vit.num_prefix_tokens

    def own(weights: Tensor, block: Any) -> Tensor:
        if is_plain(block):
            # Prompts stand behind all others there, and have no rows.
            return weights[:, :, : weights.shape[2] - n_prompts]
        kept = [i for i in range(weights.shape[2]) if not n_prefix <= i < n_prefix + n_prompts]
        return weights[:, kept][:, :, kept]

    return own


def _insert_prompts(network: PromptedViT, rows: Tensor) -> Tensor:
    """Rows ``(n, t)`` over the tokens that the head gets -> over those of the blocks; nothing is read of prompts."""
    prefix, patches = rows.tensor_split([network.vit.num_prefix_tokens], dim=1)
    return torch.cat([prefix, rows.new_zeros(len(rows), network.prompts.shape[1]), patches], dim=1)

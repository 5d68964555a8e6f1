"""HiResCAM (Draelos and Carin, 2020): the places of an image that raise one logit above another.

A place counts with the sum over channels of its features times their gradient. Where the head is a mean over places and
a linear layer, as in a ResNet, that is Grad-CAM (Selvaraju et al., 2017), and the sum over all places is the difference
of the logits but for the biases.
"""

from typing import Any

import torch
from torch import Tensor

from spectro.classifiers.networks.convolution import Convolution
from spectro.classifiers.networks.prompts import PromptedViT


def cnn_effects(network: Convolution, images: Tensor, labels: Tensor, others: Tensor) -> Tensor | None:
    """Effects of the places at the end of the backbone.

    Args:
        network: The network, in eval mode.
        images: ``(n, 3, height, width)``.
        labels: Column of the first logit, ``(n,)``.
        others: Column of the second one, ``(n,)``.

    Returns:
        ``(n, h, w)``, with their sign; None where the backbone's features are no grid.
    """
    model: Any = network.model
    with torch.no_grad(), network.place.autocast():
        features = model.forward_features(images)
    if not isinstance(features, Tensor) or features.ndim != 4:
        return None
    features = features.detach().float().requires_grad_()
    effects = _effects(model.forward_head(features), features, labels, others)
    # Some backbones have channels last.
    return effects.sum(dim=-1 if features.shape[1] != model.num_features else 1)


def vit_effects(network: PromptedViT, images: Tensor, labels: Tensor, others: Tensor) -> Tensor:
    """Effects of the patches at the input of the last block; arguments as in `cnn_effects`.

    Returns:
        ``(n, rows, columns)`` of patches, with their sign.
    """
    features: list[Tensor] = []

    def keep(module: Any, inputs: Any, tokens: Tensor) -> Tensor | None:
        # Of two calls the second one may be for the prompts alone.
        if features:
            return None
        features.append(tokens.detach().requires_grad_())
        return features[0]

    vit: Any = network.vit
    hook = vit.blocks[-1].norm1.register_forward_hook(keep)
    try:
        logits = network(images)
    finally:
        hook.remove()
    effects = _effects(logits, features[0], labels, others)
    height, width = vit.patch_embed.grid_size
    return effects.sum(dim=-1)[:, -height * width :].reshape(-1, height, width)


def _effects(logits: Tensor, features: Tensor, labels: Tensor, others: Tensor) -> Tensor:
    """Features times their gradient of the margin between two logits; each record has its own."""
    margin = (logits.gather(1, labels[:, None]) - logits.gather(1, others[:, None])).sum()
    (gradient,) = torch.autograd.grad(margin, features)
    return (gradient * features).float().detach()

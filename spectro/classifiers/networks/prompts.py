"""A frozen vision transformer with trained prompt tokens."""

import math
from typing import Any, Self

import torch
from timm.layers import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from spectro.classifiers.networks.device import Place
from spectro.classifiers.networks.module import Network, features_times_gradient

# Stay in fp32 beside frozen weights in bf16: they cost nothing and stand directly before the head.
_ALWAYS_FP32 = ("norm.", "fc_norm.", "attn_pool.")


class PromptedViT(Network):
    """Visual prompt tuning (Jia et al., 2022, "Visual prompt tuning") of a timm vision transformer.

    P prompt tokens stand between the prefix tokens (class, distillation, registers) and the patches. ``shallow``: they
    enter the first block and are then computed like any other token. ``deep``: every block gets its own prompts, in
    place of the outputs of the last ones. The head is linear on the backbone's own pooling of its normalised tokens,
    prompts left out.

    Args:
        vit: The backbone, without a head; it is frozen here.
        num_classes: Outputs of the head.
        deep: Prompts in every block.
        length: P, 0 or more.
        dropout: Of prompts, each value of each record.
    """

    def __init__(self, vit: VisionTransformer, num_classes: int, *, deep: bool, length: int, dropout: float = 0.0):
        prompts = torch.empty(len(vit.blocks) if deep else 1, length, vit.embed_dim)
        # Glorot and Bengio (2010) for the patch embedding, whose outputs prompts stand beside.
        ph, pw = vit.patch_embed.patch_size
        bound = math.sqrt(6 / (3 * ph * pw + vit.embed_dim))
        nn.init.uniform_(prompts, -bound, bound)
        super().__init__(vit.requires_grad_(False), [(vit.num_features, 1.0)], num_classes)
        self.deep, self.prompts = deep, nn.Parameter(prompts)
        self.dropout = nn.Dropout(dropout)

    def train(self, mode: bool = True) -> Self:
        """Training mode for what is trained: dropout in a frozen backbone would be noise."""
        super().train(mode)
        self.backbone.eval()
        return self

    def prepare(self, place: Place) -> None:
        """Moves to a device, and stores frozen weights in its precision: they need no cast in each step."""
        self.place = place
        self.to(place.device)
        if place.precision == "bf16":
            for name, parameter in self.backbone.named_parameters():
                if not name.startswith(_ALWAYS_FP32):
                    parameter.data = parameter.data.to(torch.bfloat16)
        if place.precision == "bf16" and place.device.type == "cpu":
            # torch's fused attention is the slowest part of a bf16 step on a processor.
            for block in self.backbone.blocks:
                if hasattr(block.attn, "fused_attn"):
                    block.attn.fused_attn = False

    def inputs_from(self, frozen: Tensor) -> Tensor:
        """As the base class states."""
        vit = self.backbone
        with torch.no_grad():
            tokens = vit._pos_embed(vit.patch_embed(frozen.to(vit.patch_embed.proj.weight.dtype)))
            tokens = vit.norm_pre(vit.patch_drop(tokens))  # (n, prefix + patches, d)
        tokens = vit.norm(self._through_blocks(tokens).float())
        return vit.forward_head(tokens, pre_logits=True)

    def effects(self, images: Tensor, labels: Tensor, others: Tensor) -> Tensor:
        """Of the patches at the input of the last block, see `Network.effects`."""
        features: list[Tensor] = []

        def keep(module: nn.Module, inputs: Any, tokens: Tensor) -> Tensor | None:
            # A second call is for the prompts alone.
            if features:
                return None
            features.append(tokens.detach().requires_grad_())
            return features[0]

        block: Any = self.backbone.blocks[-1]
        hook = block.norm1.register_forward_hook(keep)
        try:
            logits = self(images)
        finally:
            hook.remove()
        effects = features_times_gradient(logits, features[0], labels, others).sum(dim=-1)
        height, width = self.backbone.patch_embed.grid_size
        return effects[:, -height * width :].reshape(-1, height, width)

    def _through_blocks(self, tokens: Tensor) -> Tensor:
        """Tokens ``(n, t, d)`` -> the last block's outputs for those of them that the head reads."""
        vit = self.backbone
        reads_prefix = vit.global_pool == "token" and vit.attn_pool is None
        if not self.deep:
            tokens = self._with_prompts(tokens, self._prompts(0, tokens))
        for i, block in enumerate(vit.blocks):
            prompts = self._prompts(i, tokens) if self.deep else None
            if is_plain(block):
                is_last = i == len(vit.blocks) - 1
                n_read = vit.num_prefix_tokens if is_last and reads_prefix else tokens.shape[1]
                tokens = outputs_of(block, tokens, n_read, prompts)
            elif prompts is None:
                tokens = block(tokens)
            else:
                tokens = self._without_prompts(block(self._with_prompts(tokens, prompts)))
        return tokens if self.deep else self._without_prompts(tokens)

    def _prompts(self, i: int, tokens: Tensor) -> Tensor:
        """Prompts of a block ``(n, P, d)``, or ``(1, P, d)`` where they are the same for all records."""
        prompts = self.prompts[i][None]
        if self.dropout.p > 0 and self.dropout.training:
            prompts = self.dropout(prompts.expand(len(tokens), -1, -1))
        return prompts.to(tokens.dtype)

    def _with_prompts(self, tokens: Tensor, prompts: Tensor) -> Tensor:
        prefix, patches = tokens.tensor_split([self.backbone.num_prefix_tokens], dim=1)
        return torch.cat([prefix, prompts.expand(len(tokens), -1, -1), patches], dim=1)

    def _without_prompts(self, tokens: Tensor) -> Tensor:
        n_prefix = self.backbone.num_prefix_tokens
        return torch.cat([tokens[:, :n_prefix], tokens[:, n_prefix + self.prompts.shape[1] :]], dim=1)


def is_plain(block: Any) -> bool:
    """Whether `outputs_of` can compute this kind of block."""
    return type(block) is Block and type(block.attn) is Attention and block.attn.gate is None


def outputs_of(block: Any, tokens: Tensor, n: int, prompts: Tensor | None = None) -> Tensor:
    """The first n output tokens of a block ``(b, n, d)``; those of the others and of the prompts are not computed.

    All tokens and prompts are attended to, but only n tokens attend, and only they go through the rest of the block.
    Outputs of deep prompts are never read, nor, where the head reads the class token, the last block's outputs of the
    patches.

    Args:
        block: A plain pre-norm block in eval mode.
        tokens: Its input without prompts ``(b, t, d)``.
        n: Number of tokens to compute.
        prompts: ``(b, p, d)`` or ``(1, p, d)``.
    """
    attention, normalised = block.attn, block.norm1(tokens)
    (b, t, _), heads, width = tokens.shape, attention.num_heads, attention.attn_dim
    weight, bias = attention.qkv.weight, attention.qkv.bias
    bias_q, bias_kv = (None, None) if bias is None else (bias[:width], bias[width:])
    if n == t:
        q, k, v = attention.qkv(normalised).view(b, t, 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    else:
        q = functional.linear(normalised[:, :n], weight[:width], bias_q).view(b, n, heads, -1).transpose(1, 2)
        kv = functional.linear(normalised, weight[width:], bias_kv).view(b, t, 2, heads, -1)
        k, v = kv.permute(2, 0, 3, 1, 4).unbind(0)  # (b, heads, t, d / heads) each
    if prompts is not None and prompts.shape[1]:
        kv = functional.linear(block.norm1(prompts), weight[width:], bias_kv)
        kv = kv.view(len(prompts), prompts.shape[1], 2, heads, -1).permute(2, 0, 3, 1, 4)
        k, v = (torch.cat([x, p.expand(b, -1, -1, -1)], dim=2) for x, p in zip((k, v), kv, strict=True))
    q, k = attention.q_norm(q), attention.k_norm(k)
    if attention.fused_attn:
        out = functional.scaled_dot_product_attention(q, k, v)
    else:
        weights = (q * attention.scale @ k.transpose(-2, -1)).softmax(dim=-1)
        out = weights @ v  # (b, heads, n, d / heads)
    out = attention.norm(out.transpose(1, 2).reshape(b, n, width))
    out = tokens[:, :n] + block.ls1(attention.proj(out))
    return out + block.ls2(block.mlp(block.norm2(out)))

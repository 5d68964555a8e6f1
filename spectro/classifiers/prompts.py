"""A frozen vision transformer with learnable prompt tokens."""

import math
from contextlib import nullcontext
from typing import Any, Self

import torch
from timm.layers import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from spectro.classifiers.device import Place
from spectro.errors import ConfigError

# Stay in fp32 beside frozen weights in bf16: they cost nothing and stand directly before the head.
_ALWAYS_FP32 = ("norm.", "fc_norm.", "attn_pool.")


class PromptedViT(nn.Module):
    """Visual prompt tuning (Jia et al., 2022, "Visual prompt tuning") of a timm vision transformer.

    P prompt tokens stand between the prefix tokens (class, distillation, registers) and the patches. ``shallow``: they
    enter the first block and are then computed like any other token. ``deep``: every block gets its own prompts, in
    place of what the block before has made of the last ones. The head is linear on the backbone's own pooling of its
    normalised tokens, prompts left out.

    Args:
        vit: The backbone, without a head; it is frozen here.
        num_classes: Outputs of the head.
        deep: Prompts in every block.
        length: P, 0 or more.
        dropout: Of prompts, each value of each record.
        projection: Width of the prompts, if they are to be projected to that of the tokens; None: they have it.
        unfreeze_blocks: So many of the last blocks are trained as well.
    """

    def __init__(
        self,
        vit: VisionTransformer,
        num_classes: int,
        *,
        deep: bool,
        length: int,
        dropout: float = 0.0,
        projection: int | None = None,
        unfreeze_blocks: int = 0,
    ):
        super().__init__()
        depth = len(vit.blocks)
        if unfreeze_blocks > depth:
            raise ConfigError(f"vpt.unfreeze_blocks: found {unfreeze_blocks}; allowed with this backbone: 0 to {depth}")
        self.vit = vit.requires_grad_(False)
        for block in vit.blocks[depth - unfreeze_blocks :]:
            block.requires_grad_(True)
        self.first_trained = depth - unfreeze_blocks
        self.place = Place(torch.device("cpu"), "fp32")
        width = projection or vit.embed_dim
        self.prompts = nn.Parameter(torch.empty(depth if deep else 1, length, width))
        # Glorot and Bengio (2010) for the patch embedding, whose outputs prompts stand beside.
        ph, pw = vit.patch_embed.patch_size
        bound = math.sqrt(6 / (3 * ph * pw + width))
        nn.init.uniform_(self.prompts, -bound, bound)
        self.projection: nn.Module = nn.Identity()
        if projection:
            self.projection = linear = nn.Linear(width, vit.embed_dim)
            nn.init.kaiming_normal_(linear.weight, mode="fan_out")
            nn.init.zeros_(linear.bias)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(vit.num_features, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def train(self, mode: bool = True) -> Self:
        """Training mode for what is trained: dropout in a frozen backbone would be noise."""
        super().train(mode)
        self.vit.eval()
        for block in self.vit.blocks[self.first_trained :]:
            block.train(mode)
        return self

    def prepare(self, place: Place) -> None:
        """Moves to a device, and stores what is frozen in its precision: nothing then needs to be cast in each step."""
        self.place = place
        self.to(place.device)
        if place.precision == "bf16":
            for name, parameter in self.vit.named_parameters():
                if not parameter.requires_grad and not name.startswith(_ALWAYS_FP32):
                    parameter.data = parameter.data.to(torch.bfloat16)
        if place.precision == "bf16" and place.device.type == "cpu":
            # torch's fused attention is the slowest part of a bf16 step on a processor.
            for block in self.vit.blocks:
                if hasattr(block.attn, "fused_attn"):
                    block.attn.fused_attn = False

    def forward(self, images: Tensor) -> Tensor:
        """Normalised pictures ``(n, 3, height, width)`` -> logits ``(n, k)``, fp32 both."""
        vit, n_prefix, n_prompts = self.vit, self.vit.num_prefix_tokens, self.prompts.shape[1]
        with torch.no_grad():
            tokens = vit._pos_embed(vit.patch_embed(images.to(vit.patch_embed.proj.weight.dtype)))
            tokens = vit.norm_pre(vit.patch_drop(tokens))  # (n, prefix + patches, d)
        prefix, patches = tokens[:, :n_prefix], tokens[:, n_prefix:]
        for i, block in enumerate(vit.blocks):
            if i < len(self.prompts):
                prompts = self.projection(self.prompts[i]).expand(len(images), -1, -1)
                tokens = torch.cat([prefix, self.dropout(prompts).to(prefix.dtype), patches], dim=1)
            # Trained weights are kept in fp32, where small steps are not rounded away.
            with self.place.autocast() if i >= self.first_trained else nullcontext():
                if i == len(vit.blocks) - 1 and self._reads_prefix_alone():
                    tokens = first_tokens(block, tokens, n_prefix)
                else:
                    tokens = block(tokens)
            prefix, patches = tokens[:, :n_prefix], tokens[:, n_prefix + n_prompts :]
        features = vit.norm(torch.cat([prefix, patches], dim=1).float())
        return self.head(vit.forward_head(features, pre_logits=True))

    def _reads_prefix_alone(self) -> bool:
        """Whether the head sees prefix tokens only, and the last block is of the kind that `first_tokens` knows."""
        vit, last = self.vit, self.vit.blocks[-1]
        attention: Any = last.attn
        plain = type(last) is Block and type(attention) is Attention and attention.gate is None
        chance = any(isinstance(m, nn.Dropout) and m.p > 0 and m.training for m in last.modules())
        return plain and not chance and vit.global_pool == "token" and vit.attn_pool is None


def first_tokens(block: Any, tokens: Tensor, n: int) -> Tensor:
    """The first n output tokens of a block ``(b, n, d)``; the others, which nobody reads, are not computed.

    All tokens are attended to, but only n attend, and only they go through the rest of the block: of twelve blocks a
    fifteenth of the work is saved.

    Args:
        block: A plain pre-norm block without dropout.
        tokens: Its input ``(b, t, d)``.
        n: How many tokens are wanted.
    """
    attention, normalised = block.attn, block.norm1(tokens)
    (b, t, _), heads, width = tokens.shape, attention.num_heads, attention.attn_dim
    weight, bias = attention.qkv.weight, attention.qkv.bias
    of_q, of_kv = (None, None) if bias is None else (bias[:width], bias[width:])
    q = functional.linear(normalised[:, :n], weight[:width], of_q).view(b, n, heads, -1).transpose(1, 2)
    kv = functional.linear(normalised, weight[width:], of_kv).view(b, t, 2, heads, -1)
    k, v = kv.permute(2, 0, 3, 1, 4).unbind(0)  # (b, heads, t, d / heads) each
    scores = attention.q_norm(q) * attention.scale @ attention.k_norm(k).transpose(-2, -1)  # (b, heads, n, t)
    read = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(b, n, width)
    out = tokens[:, :n] + block.drop_path1(block.ls1(attention.proj(attention.norm(read))))
    return out + block.drop_path2(block.ls2(block.mlp(block.norm2(out))))

"""A frozen vision transformer with trained prompt tokens."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Self

import torch
from timm.layers import Attention
from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from spectro.classifiers.networks.device import Place
from spectro.classifiers.networks.module import Network, check_grid, pooled_to
from spectro.errors import ConfigError

Transformer = VisionTransformer | Eva | Beit
# Stay in fp32 beside frozen weights in bf16: they cost nothing and stand directly before the head.
_ALWAYS_FP32 = ("norm.", "fc_norm.", "attn_pool.")


class PromptedViT(Network):
    """Visual prompt tuning (Jia et al., 2022, "Visual prompt tuning") of a timm vision transformer, Eva or Beit.

    P prompt tokens stand between the prefix tokens (class, distillation, registers) and the patches. ``shallow``: they
    enter one block, the first, and are then computed like any other token. ``deep``: every block from there on gets its
    own prompts, in place of the outputs of the last ones. The head is linear on the backbone's own pooling of its
    normalised tokens, or on means of the patches over the cells of a grid; prompts are left out. Prompts have no place:
    they are not rotated where positions are (Eva), and have a bias of 0 where attention has one of relative positions
    (Beit).

    Args, besides those of `Network`:
        vit: The backbone, without a head; it is frozen here.
        deep: Prompts in every block.
        length: P, 0 or more.
        dropout: Of prompts, each value of each record.
        blocks: How many blocks there are; the others are deleted. None: all.
        first_block: The block that prompts enter, from 0.
        grid: Rows and columns of the means that the head reads; None: the backbone's own pooling.
    """

    def __init__(
        self,
        vit: Transformer,
        num_classes: int,
        *,
        deep: bool,
        length: int,
        dropout: float = 0.0,
        blocks: int | None = None,
        first_block: int = 0,
        grid: Sequence[int] | None = None,
        pixels: Sequence[int] | None = None,
        head_dropout: float = 0.0,
    ):
        n_blocks = blocks or len(vit.blocks)
        if n_blocks > len(vit.blocks):
            raise ConfigError(f"vpt.blocks: got {blocks}; allowed: at most {len(vit.blocks)}, those of the backbone")
        if first_block >= n_blocks:
            raise ConfigError(
                f"vpt.first_block: got {first_block}; allowed: less than {n_blocks}, the number of blocks"
            )
        places = vit.patch_embed.grid_size
        if grid:
            check_grid("vpt.grid", grid, places)
        vit.prune_intermediate_layers([n_blocks - 1], prune_norm=bool(grid), prune_head=bool(grid))
        prompts = torch.empty(n_blocks - first_block if deep else 1, length, vit.embed_dim)
        # Glorot and Bengio (2010) for the patch embedding, whose outputs prompts stand beside.
        ph, pw = vit.patch_embed.patch_size
        bound = math.sqrt(6 / (3 * ph * pw + vit.embed_dim))
        nn.init.uniform_(prompts, -bound, bound)
        n_features = vit.embed_dim * math.prod(grid) if grid else vit.num_features
        # Without prompts nothing is trained before the head. The patch embedding alone is not worth keeping.
        n_frozen = first_block if length else n_blocks
        tokens = (vit.num_prefix_tokens + math.prod(places), vit.embed_dim)
        shape = (n_features,) if n_frozen == n_blocks else tokens if n_frozen else None
        super().__init__(vit.requires_grad_(False), num_classes, n_features, shape, pixels, head_dropout)
        if isinstance(vit, Eva):
            attentions: Any = [block.attn for block in vit.blocks[first_block:]]
            for attention in attentions:
                attention.num_prefix_tokens += length
        self.deep, self.first_block, self.grid, self.n_frozen = deep, first_block, grid, n_frozen
        self.prompts = nn.Parameter(prompts)
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
            # A constant 0 that stands between the biases of queries and values, in Eva and Beit.
            for name, buffer in self.backbone.named_buffers():
                if name.endswith(".k_bias"):
                    buffer.data = buffer.data.to(torch.bfloat16)
        if place.precision == "bf16" and place.device.type == "cpu":
            # torch's fused attention is the slowest part of a bf16 step on a processor.
            for block in self.backbone.blocks:
                if hasattr(block.attn, "fused_attn"):
                    block.attn.fused_attn = False

    def prefix(self, images: Tensor) -> Tensor:
        """As the base class states: tokens, or, where all is frozen, features."""
        tokens = self._through_blocks(self._embedded(images), 0, self.n_frozen)
        return self._pooled(tokens) if self.n_frozen == len(self.backbone.blocks) else tokens

    def rest(self, values: Tensor) -> Tensor:
        """As the base class states."""
        n_blocks = len(self.backbone.blocks)
        if self.n_frozen == n_blocks:
            return values
        return self._pooled(self._through_blocks(values.to(self.place.dtype), self.n_frozen, n_blocks))

    def prefix_state(self) -> Iterator[tuple[str, Tensor]]:
        """As the base class states."""
        is_whole = self.n_frozen == len(self.backbone.blocks)
        for name, tensor in self.backbone.state_dict().items():
            is_block, number = name.startswith("blocks."), name.split(".")[1:2]
            if (int(number[0]) < self.n_frozen) if is_block else is_whole or not name.startswith(_ALWAYS_FP32):
                yield f"{self.grid if is_whole else ''} {name}", tensor

    def effects(self, images: Tensor, labels: Tensor, others: Tensor) -> Tensor:
        """Of the patches that are pooled to a grid, or at the input of the last block, see `Network.effects`."""
        places: list[Tensor] = []
        height, width = self.backbone.patch_embed.grid_size

        def keep(module: nn.Module, inputs: Any, tokens: Tensor) -> Tensor | None:
            # A second call is for the prompts alone.
            if places:
                return None
            places.append(tokens.detach().requires_grad_())
            return places[0]

        hook = self.backbone.blocks[-1].norm1.register_forward_hook(keep)
        try:
            tokens = self._through_blocks(self._embedded(images), 0, len(self.backbone.blocks))
        finally:
            hook.remove()
        if self.grid:
            places[0] = tokens = tokens.detach().requires_grad_()
        features = self._pooled(tokens).float()
        as_map = lambda effects: effects.sum(dim=-1)[:, -height * width :].reshape(-1, height, width)  # noqa: E731
        return self._effects(places[0], features, images, labels, others, as_map=as_map)

    def _embedded(self, images: Tensor) -> Tensor:
        """Prefix tokens and patches ``(n, t, d)``, the input of the first block."""
        vit = self.backbone
        patches = vit.patch_embed(images.to(vit.patch_embed.proj.weight.dtype))
        if isinstance(vit, Eva):
            return vit.norm_pre(vit._pos_embed(patches)[0])
        if isinstance(vit, Beit):
            tokens = torch.cat([vit.cls_token.expand(patches.shape[0], -1, -1), patches], dim=1)
            return tokens if vit.pos_embed is None else tokens + vit.pos_embed
        return vit.norm_pre(vit.patch_drop(vit._pos_embed(patches)))

    def _pooled(self, tokens: Tensor) -> Tensor:
        """Tokens of the last block -> features, fp32."""
        vit = self.backbone
        if not self.grid:
            return vit.forward_head(vit.norm(tokens.float()), pre_logits=True)
        height, width = vit.patch_embed.grid_size
        return pooled_to(tokens[:, -height * width :].mT.unflatten(2, (height, width)), self.grid)

    def _through_blocks(self, tokens: Tensor, start: int, stop: int) -> Tensor:
        """Tokens ``(n, t, d)`` -> a block's outputs for those of them that the head or the next block reads."""
        vit = self.backbone
        reads_prefix = not self.grid and vit.global_pool == "token" and getattr(vit, "attn_pool", None) is None
        rotation = self._rotation()
        for i, block in enumerate(vit.blocks[start:stop], start):
            number = i - self.first_block
            if number == 0 and not self.deep:
                tokens = self._with_prompts(tokens, self._prompts(0, tokens))
            prompts = self._prompts(number, tokens) if self.deep and number >= 0 else None
            if is_plain(block):
                is_last = i == len(vit.blocks) - 1
                n_read = vit.num_prefix_tokens if is_last and reads_prefix else tokens.shape[1]
                tokens = outputs_of(block, tokens, n_read, prompts)
            else:
                tokens = tokens if prompts is None else self._with_prompts(tokens, prompts)
                if isinstance(vit, Beit):
                    tokens = self._through_beit(block, tokens)
                elif rotation is not None:
                    tokens = block(tokens, rope=rotation[i] if vit.rope_mixed else rotation)
                else:
                    tokens = block(tokens)
                tokens = tokens if prompts is None else self._without_prompts(tokens)
        return tokens if self.deep or stop <= self.first_block else self._without_prompts(tokens)

    def _rotation(self) -> Tensor | None:
        """Of the patches, by block where `rope_mixed`; None where positions are not rotated."""
        rope: Any = getattr(self.backbone, "rope", None)
        if rope is None:
            return None
        rotation: Tensor = rope.get_embed(shape=self.backbone.patch_embed.grid_size)
        return rotation

    def _through_beit(self, block: Any, tokens: Tensor) -> Tensor:
        """A block of a Beit, with a bias of 0 for every pair with a prompt."""
        attention, shared, (b, t, _) = block.attn, self.backbone.rel_pos_bias, tokens.shape
        bias = None if attention.relative_position_bias_table is None else attention._get_rel_pos_bias()
        if shared is not None:
            bias = shared()[None] if bias is None else bias + shared()
        n_prompts = 0 if bias is None else t - bias.shape[-1]
        if bias is not None and n_prompts:
            number = torch.arange(t, device=tokens.device)
            is_prompt, index = (number > 0) & (number <= n_prompts), (number - n_prompts).clamp_min(0)
            bias = bias[:, :, index][..., index].masked_fill(is_prompt | is_prompt[:, None], 0.0)
        biases = None if attention.q_bias is None else torch.cat([attention.q_bias, attention.k_bias, attention.v_bias])
        qkv = functional.linear(block.norm1(tokens), attention.qkv.weight, biases)
        q, k, v = qkv.view(b, t, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        out = functional.scaled_dot_product_attention(q, k, v, None if bias is None else bias.to(q.dtype))
        out = attention.proj(out.transpose(1, 2).reshape(b, t, -1))
        tokens = tokens + (out if block.gamma_1 is None else block.gamma_1 * out)
        out = block.mlp(block.norm2(tokens))
        return tokens + (out if block.gamma_2 is None else block.gamma_2 * out)

    def _prompts(self, i: int, tokens: Tensor) -> Tensor:
        """Prompts of a block ``(n, P, d)``, or ``(1, P, d)`` where they are the same for all records."""
        prompts = self.prompts[i][None]
        if self.dropout.p > 0 and self.dropout.training:
            prompts = self.dropout(prompts.expand(len(tokens), -1, -1))
        return prompts.to(tokens.dtype)

    def _with_prompts(self, tokens: Tensor, prompts: Tensor) -> Tensor:
        prefix, patches = tokens.tensor_split([self.backbone.num_prefix_tokens], dim=1)
        return torch.cat([prefix, prompts.expand(tokens.shape[0], -1, -1), patches], dim=1)

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

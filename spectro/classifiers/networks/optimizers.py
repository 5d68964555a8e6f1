"""Optimizer, learning rate and sizes of steps."""

import math

import torch
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn

from spectro.classifiers.networks.settings import Training

_MOMENTUM = 0.9


def batch_sizes(n: int, batch_size: int) -> list[int]:
    """An epoch of n records in as few steps as possible, of sizes that differ by one at most, the larger ones first."""
    steps = math.ceil(n / batch_size)
    return [n // steps + (step < n % steps) for step in range(steps)]


def lr_at(step: int, *, peak: float, steps: int, warmup: int) -> float:
    """The learning rate of a step: linear warm-up, then a cosine down to 0 (Loshchilov and Hutter, 2017, "SGDR").

    The first step of a warm-up over w steps has ``peak / w``, not 0, the last one ``peak``. The cosine would reach 0 in
    the step after the last one.

    Args:
        step: From 0 to ``steps`` - 1.
        peak: The largest learning rate.
        steps: Number of steps.
        warmup: How many of them are warm-up, from 0 to ``steps``.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def make_optimizer(network: nn.Module, settings: Training, device: torch.device) -> torch.optim.Optimizer:
    """The configured optimizer over the trained parameters; biases and norms are not decayed."""
    # A captured step reads its learning rate from the device.
    captured = device.type == "cuda"
    lr: float | Tensor = torch.tensor(settings.lr, device=device) if captured else settings.lr
    head = {id(parameter) for parameter in getattr(network, "head", nn.Module()).parameters()}
    scales = {True: (settings.head_lr or settings.lr) / settings.lr, False: 1.0}
    groups = [
        {**group, "params": params, "lr": lr * scale, "lr_scale": scale}
        for group in param_groups_weight_decay(network, settings.weight_decay)
        for is_head, scale in scales.items()
        if (params := [p for p in group["params"] if (id(p) in head) == is_head])
    ]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=_MOMENTUM, fused=device.type != "mps")
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimizer]
    return kind(groups, lr=lr, fused=device.type != "mps", capturable=captured)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets the learning rate of the next step."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr * group["lr_scale"])
        else:
            group["lr"] = lr * group["lr_scale"]

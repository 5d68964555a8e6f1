"""Optimizers, and their state as tensors with names."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from spectro.classifiers.networks.settings import Training

_MOMENTUM = 0.9


def make_optimizer(network: nn.Module, settings: Training, device: torch.device) -> torch.optim.Optimizer:
    """The configured optimizer over what is trained; biases and norms are not decayed."""
    trained = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    # A captured step reads its learning rate from the device.
    captured = device.type == "cuda"
    lr: float | Tensor = torch.tensor(settings.lr, device=device) if captured else settings.lr
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=_MOMENTUM, fused=device.type != "mps")
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimizer]
    return kind(groups, lr=lr, fused=device.type != "mps", capturable=captured)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets the learning rate of the next step."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def state_of(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state: ``<parameter number>.<name>`` -> tensor."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{name}": t for i, values in state.items() for name, t in values.items() if isinstance(t, Tensor)}


def restore_state(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Takes over what `state_of` gave."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, _, name = key.partition(".")
        parameter = parameters[int(number)]
        # Fused steps walk through memory: moments must lie in the same order as their weights.
        same_order = torch.empty_like(parameter).copy_(tensor) if tensor.shape == parameter.shape else tensor
        state.setdefault(int(number), {})[name] = same_order
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})

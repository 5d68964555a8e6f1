"""The training loop of all networks."""

import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn
from torch.optim.swa_utils import get_swa_avg_fn

from spectro.classifiers.fit_context import current
from spectro.classifiers.networks.batches import Batches
from spectro.classifiers.networks.checkpoint import Checkpoints
from spectro.classifiers.networks.device import seeded
from spectro.classifiers.networks.graphs import CapturedStep, Step
from spectro.classifiers.networks.losses import LossFunction
from spectro.classifiers.networks.module import Network
from spectro.classifiers.networks.settings import Training
from spectro.classifiers.networks.warm_start import warm_start
from spectro.errors import SpectroError
from spectro.evaluation.metrics import macro_f1
from spectro.progress import progress

# Records that are predicted together; on a processor each core has as many in work.
_PREDICT_BATCH, _PREDICT_BATCH_CPU = 64, 16
# With fewer steps than this torch.compile takes longer than it saves (an H100, batches of 16).
_COMPILE_PAYS = 40_000
_MOMENTUM = 0.9


class TrainingError(SpectroError):
    """A loss is NaN or infinite."""


class Split(NamedTuple):
    """Records, and the column numbers of their labels ``(n,)``."""

    images: Batches
    labels: np.ndarray


def train(
    network: Network, data: Split, val: Split, settings: Training, loss: LossFunction, *, seed: int, identity: str
) -> list[dict[str, Any]]:
    """Trains the network, and leaves it with the weights of the best epoch, of the last one, or the mean of the last.

    The best epoch is the one of the largest val macro-F1; of several, the one of the smallest val loss. Random numbers
    depend on the seed and the number of the epoch alone, so that a training that is resumed from a checkpoint ends with
    the same numbers as one that was never stopped.

    Args:
        val: Records that the best epoch is chosen on; none: the last epoch is taken.
        seed: Of the order of the records, their views, and dropout.
        identity: Names everything that the result depends on; only a training of the same identity is resumed.

    Returns:
        A row for each epoch: ``epoch, train_loss, val_loss, val_macro_f1, lr, seconds, best``.

    Raises:
        TrainingError: A loss is NaN or infinite.
    """
    device, context, n = network.place.device, current(), len(data.labels)

    # Set-up
    labels = torch.from_numpy(data.labels).to(device)
    n_steps = math.ceil(n / settings.batch_size)
    total = n_steps * settings.epochs
    warmup = min(round(settings.warmup_epochs * n_steps), total)
    optimizer = make_optimizer(network, settings, device)
    pays = device.type == "cuda" and total >= _COMPILE_PAYS
    compiled = settings.compile == "always" or (settings.compile == "auto" and pays)
    step, average = _make_step(network, loss, optimizer, compiled=compiled), get_swa_avg_fn()

    # Resume
    checkpoints = Checkpoints(context.folder, identity, device)
    history: list[dict[str, Any]] = []
    best = _snapshot(network)
    state = checkpoints.latest()
    if state is not None:
        _restore(network, state["network"])
        optimizer.load_state_dict(state["optimizer"])
        history, best = state["history"], state["best"]
    else:
        if network.grid or network.pixels:
            network.standardise(outputs_of(network, data.images)[1])
        if settings.warm_start == "probe":
            warm_start(network, outputs_of(network, data.images)[1], labels, data.images.groups, loss, seed=seed)
    context.on_epoch(context.stage, history)

    # Loop
    # A trial of a search, which has no folder, has one line; a run one an epoch.
    with progress(f"training {context.stage}".strip(), total, log=context.folder is not None) as advance:
        advance(n_steps * len(history), _headline(context.stage, history, settings.epochs))
        for epoch in range(len(history) + 1, settings.epochs + 1):
            if settings.select == "best" and _is_over(history, settings.patience):
                break
            start, loss_sum = time.perf_counter(), torch.zeros((), device=device)
            rng = np.random.default_rng([seed, epoch])
            rows = rng.permutation(n)
            images = data.images.drawn(rng)
            with seeded(int(rng.integers(2**63)), device):
                network.train()
                # As few steps as possible, of sizes that differ by one at most: one record is too few for a batch norm.
                for number, batch in enumerate(np.array_split(rows, n_steps), n_steps * (epoch - 1)):
                    lr = lr_at(number, peak=settings.lr, steps=total, warmup=warmup)
                    _set_lr(optimizer, lr)
                    loss_sum += step(images(batch), labels[batch]).detach() * len(batch)
                    advance(1)
            row = {"epoch": epoch, "train_loss": loss_sum.item() / n, **_evaluate(network, val, loss), "lr": lr}
            _check_finite(row, history)
            history.append({**row, "seconds": round(time.perf_counter() - start, 3), "best": False})
            best_row = _best(history) if settings.select == "best" else history[-1]
            for past in history:
                past["best"] = past is best_row
            weights, averaged = _snapshot(network), epoch - 1 - max(settings.epochs - settings.average_last, 0)
            if settings.select == "average" and averaged > 0:
                best = {name: average(best[name], t, averaged) for name, t in weights.items()}
            elif history[-1]["best"]:
                best = weights
            state = {"network": weights, "best": best, "optimizer": optimizer.state_dict()}
            checkpoints.write(epoch, {**state, "history": history})
            context.on_epoch(context.stage, history)
            advance(0, _headline(context.stage, history, settings.epochs))
        advance(total, None)
    _restore(network, best)
    return history


def outputs_of(network: Network, images: Batches) -> tuple[Tensor, Tensor]:
    """Logits ``(n, k)`` and inputs of the head ``(n, d)`` of all records, fp32, on the device.

    On a processor each core takes batches of its own. Threads that share a batch wait for each other after every
    operation, in a loop that keeps their cores busy: for long where others, such as those that decode, need them too.
    """
    network.eval()
    is_cpu, cores = network.place.device.type == "cpu", torch.get_num_threads()
    size = _PREDICT_BATCH_CPU if is_cpu else _PREDICT_BATCH
    batches = np.split(np.arange(len(images)), range(size, len(images), size))
    n_threads = min(cores, len(batches)) if is_cpu else 1

    @torch.no_grad()  # in each thread: the mode is one of the thread
    def outputs(rows: np.ndarray) -> tuple[Tensor, Tensor]:
        features = network.features_from(images(rows))
        return network.head(features), features

    if n_threads == 1:
        parts = [outputs(rows) for rows in batches]
    else:
        try:
            initargs = (cores // n_threads,)
            with ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=initargs) as pool:
                parts = list(pool.map(outputs, batches))
        finally:
            torch.set_num_threads(cores)
    logits, features = zip(*parts, strict=True)
    return torch.cat(logits), torch.cat(features)


def lr_at(step: int, *, peak: float, steps: int, warmup: int) -> float:
    """The learning rate of a step: linear warm-up, then a cosine down to 0 (Loshchilov and Hutter, 2017, "SGDR").

    The first step of a warm-up over w steps has ``peak / w``, not 0, the last one ``peak``. The cosine would reach 0 in
    the step after the last one.

    Args:
        step: From 0 to ``steps`` - 1.
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


def _set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr * group["lr_scale"])
        else:
            group["lr"] = lr * group["lr_scale"]


def _make_step(network: Network, loss: LossFunction, optimizer: torch.optim.Optimizer, *, compiled: bool) -> Step:
    """One step, captured where the device is fast enough to wait for Python."""
    forward: Callable[[Tensor], Tensor] = torch.compile(network.forward_from) if compiled else network.forward_from

    def step(frozen: Tensor, labels: Tensor) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        value = loss(forward(frozen), labels)
        (value + network.ridge * network.head.weight.square().sum()).backward()
        optimizer.step()
        return value

    device = network.place.device
    return CapturedStep(step, network, optimizer, device) if device.type == "cuda" else step


def _evaluate(network: Network, val: Split, loss: LossFunction) -> dict[str, float | None]:
    if len(val.labels) == 0:
        return {"val_loss": None, "val_macro_f1": None}
    logits, _ = outputs_of(network, val.images)
    confusion = np.zeros((logits.shape[1], logits.shape[1]))
    np.add.at(confusion, (val.labels, logits.argmax(dim=1).cpu().numpy()), 1)
    val_loss = loss(logits, torch.from_numpy(val.labels).to(logits.device)).item()
    return {"val_loss": val_loss, "val_macro_f1": float(macro_f1(confusion, ()))}


def _best(history: list[dict[str, Any]]) -> dict[str, Any]:
    """The best epoch so far, the earliest of equal ones; without val records the last one."""
    if history[-1]["val_macro_f1"] is None:
        return history[-1]
    return max(history, key=lambda row: (row["val_macro_f1"], -row["val_loss"]))


def _is_over(history: list[dict[str, Any]], patience: int | None) -> bool:
    """Whether so many epochs have gone by without a better one."""
    return bool(history) and patience is not None and history[-1]["epoch"] - _best(history)["epoch"] >= patience


def _check_finite(row: Mapping[str, Any], history: list[dict[str, Any]]) -> None:
    wrong = [f"{k} {row[k]}" for k in ("train_loss", "val_loss") if row[k] is not None and not math.isfinite(row[k])]
    if wrong:
        last = {k: v for k, v in history[-1].items() if k not in ("seconds", "best")} if history else {}
        shown = ", ".join(f"{key} {value}" for key, value in last.items()) or "none, it was the first epoch"
        raise TrainingError(
            f"epoch {row['epoch']}: got {' and '.join(wrong)}; the last finite numbers: {shown}. "
            "A smaller train.lr, or train.precision=fp32, may help"
        )


def _headline(stage: str, history: list[dict[str, Any]], epochs: int) -> str | None:
    if not history:
        return None
    last = history[-1]
    val = "" if last["val_macro_f1"] is None else f" val {last['val_loss']:.3f} F1 {last['val_macro_f1']:.3f}"
    return f"{stage} epoch {last['epoch']}/{epochs} loss {last['train_loss']:.3f}{val}".strip()


def _snapshot(network: Network) -> dict[str, Tensor]:
    """A copy of everything that training changes."""
    frozen = network.frozen_parameters
    return {name: t.detach().clone() for name, t in network.state_dict().items() if name not in frozen}


def _restore(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    state = network.state_dict()
    with torch.no_grad():
        for name, tensor in tensors.items():
            state[name].copy_(tensor)

"""The training loop of all networks."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spectro.classifiers.fit_context import current
from spectro.classifiers.networks.batches import Batches
from spectro.classifiers.networks.checkpoint import Checkpoints
from spectro.classifiers.networks.device import seeded
from spectro.classifiers.networks.graphs import CapturedStep, Step
from spectro.classifiers.networks.losses import LossFunction, class_weights, make_loss
from spectro.classifiers.networks.module import Network
from spectro.classifiers.networks.optimizers import batch_sizes, lr_at, make_optimizer, set_lr
from spectro.classifiers.networks.settings import Loss, Training
from spectro.errors import SpectroError
from spectro.progress import progress

# Records that are predicted together.
PREDICT_BATCH = 64
# With fewer steps than this torch.compile takes longer than it saves (an H100, batches of 16).
_COMPILE_PAYS = 40_000


class TrainingError(SpectroError):
    """A loss is NaN or infinite."""


@dataclass(frozen=True)
class Split:
    """Records and their labels.

    Attributes:
        images: ``n`` records.
        labels: Their column numbers, ``(n,)``.
    """

    images: Batches
    labels: np.ndarray


@dataclass(frozen=True)
class Job:
    """One training: what, on which records, how and where.

    Attributes:
        network: Images ``(n, 3, height, width)`` -> logits ``(n, k)``; it is changed.
        classes: The labels, k of them.
        train: Training records.
        val: Records that the best epoch is chosen on; none: the last epoch is taken.
        settings: How it is trained.
        loss: The loss function.
        seed: Of the order of the records, their views, and dropout.
        params: What else a checkpoint must have been written with to be resumed from, JSON values.
    """

    network: Network
    classes: list[str]
    train: Split
    val: Split
    settings: Training
    loss: Loss
    seed: int
    params: Mapping[str, Any]


def train(job: Job) -> list[dict[str, Any]]:
    """Trains the network, and leaves it with the weights of the best epoch.

    The best epoch is the one of the largest val macro-F1; of several, the one of the smallest val loss. Random numbers
    depend on the seed and the number of the epoch alone, so that a training that is resumed from a checkpoint ends with
    the same numbers as one that was never stopped.

    Args:
        job: The training.

    Returns:
        A row for each epoch: ``epoch, train_loss, val_loss, val_macro_f1, lr, seconds, best``.

    Raises:
        TrainingError: A loss is NaN or infinite.
        ConfigError: Class weights are given and one is missing.
    """
    network, settings, device, context = job.network, job.settings, job.network.place.device, current()

    # Set-up
    weights = class_weights(job.loss.class_weights, job.train.labels, job.classes)
    loss = make_loss(job.loss, torch.tensor(weights, dtype=torch.float32, device=device))
    optimizer = make_optimizer(network, settings, device)
    step = _make_step(job, loss, optimizer)
    labels = torch.from_numpy(job.train.labels).to(device)
    n = len(job.train.labels)
    sizes = batch_sizes(n, settings.batch_size)
    total = len(sizes) * settings.epochs
    warmup = min(round(settings.warmup_epochs * len(sizes)), total)

    # Resume
    checkpoints = Checkpoints(context.folder, _identity(job), device)
    history: list[dict[str, Any]] = []
    best = _snapshot(network)
    state = checkpoints.latest()
    if state is not None:
        _restore(network, state["network"])
        optimizer.load_state_dict(state["optimizer"])
        history, best = state["history"], state["best"]
    context.on_epoch(context.stage, history)

    # Loop
    with progress(f"training {context.stage}".strip(), total) as advance:
        advance(len(sizes) * len(history), _headline(context.stage, history, settings))
        for epoch in range(len(history) + 1, settings.epochs + 1):
            if _is_over(history, settings.patience):
                break
            start, loss_sum = time.perf_counter(), torch.zeros((), device=device)
            rng = np.random.default_rng([job.seed, epoch])
            rows = rng.permutation(n)
            images = job.train.images.drawn(rng)
            with seeded(int(rng.integers(2**63)), device):
                network.train()
                for number, batch in enumerate(np.split(rows, np.cumsum(sizes)[:-1])):
                    lr = lr_at(len(sizes) * (epoch - 1) + number, peak=settings.lr, steps=total, warmup=warmup)
                    set_lr(optimizer, lr)
                    loss_sum += step(images(batch), labels[batch]).detach() * len(batch)
                    advance(1)
            row = {"epoch": epoch, "train_loss": loss_sum.item() / n, **_evaluate(job, loss), "lr": lr}
            _check_finite(row, history)
            history.append({**row, "seconds": round(time.perf_counter() - start, 3), "best": False})
            best_row = _best(history)
            for past in history:
                past["best"] = past is best_row
            if history[-1]["best"]:
                best = _snapshot(network)
            checkpoints.write(
                epoch,
                {
                    "network": _snapshot(network),
                    "best": best,
                    "optimizer": optimizer.state_dict(),
                    "history": history,
                },
            )
            context.on_epoch(context.stage, history)
            advance(0, _headline(context.stage, history, settings))
        advance(total, None)
    _restore(network, best)
    return history


def logits_of(network: Network, images: Batches) -> Tensor:
    """Logits ``(n, k)`` of all records, fp32, on the device."""
    network.eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(images), PREDICT_BATCH):
            rows = np.arange(start, min(start + PREDICT_BATCH, len(images)))
            parts.append(network(images(rows)).float())
    return torch.cat(parts)


def macro_f1(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Mean F1 of the classes that have records, as the evaluation takes it."""
    present = np.unique(labels)
    scores = []
    for label in present:
        hits = np.sum((labels == label) & (predicted == label))
        scores.append(2 * hits / (np.sum(labels == label) + np.sum(predicted == label)))
    return float(np.mean(scores))


def _make_step(job: Job, loss: LossFunction, optimizer: torch.optim.Optimizer) -> Step:
    """One step, captured where the device is fast enough to wait for Python."""
    network: Callable[[Tensor], Tensor] = job.network
    steps = job.settings.epochs * math.ceil(len(job.train.labels) / job.settings.batch_size)
    pays = job.network.place.device.type == "cuda" and steps >= _COMPILE_PAYS
    if job.settings.compile == "always" or (job.settings.compile == "auto" and pays):
        network = torch.compile(job.network)

    def step(images: Tensor, labels: Tensor) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        value = loss(network(images), labels)
        value.backward()
        optimizer.step()
        return value

    if job.network.place.device.type == "cuda":
        return CapturedStep(step, job.network, optimizer, job.network.place.device)
    return step


def _evaluate(job: Job, loss: LossFunction) -> dict[str, float | None]:
    if len(job.val.labels) == 0:
        return {"val_loss": None, "val_macro_f1": None}
    logits = logits_of(job.network, job.val.images)
    labels = torch.from_numpy(job.val.labels).to(logits.device)
    predicted = logits.argmax(dim=1).cpu().numpy()
    return {"val_loss": loss(logits, labels).item(), "val_macro_f1": macro_f1(job.val.labels, predicted)}


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


def _headline(stage: str, history: list[dict[str, Any]], settings: Training) -> str | None:
    if not history:
        return None
    last = history[-1]
    val = "" if last["val_macro_f1"] is None else f" val {last['val_loss']:.3f} F1 {last['val_macro_f1']:.3f}"
    return f"{stage} epoch {last['epoch']}/{settings.epochs} loss {last['train_loss']:.3f}{val}".strip()


def _identity(job: Job) -> str:
    """A hash of everything that the result of a training depends on, but for the device."""
    facts = [
        job.settings.get_params(),
        job.loss.get_params(),
        job.network.place.precision,
        job.seed,
        job.params,
        job.classes,
    ]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    digest.update(job.train.labels.tobytes() + b"|" + job.val.labels.tobytes())
    return digest.hexdigest()


def _snapshot(network: nn.Module) -> dict[str, Tensor]:
    """A copy of everything that training changes."""
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    return {name: t.detach().clone() for name, t in network.state_dict().items() if name not in frozen}


def _restore(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    state = network.state_dict()
    with torch.no_grad():
        for name, tensor in tensors.items():
            state[name].copy_(tensor)

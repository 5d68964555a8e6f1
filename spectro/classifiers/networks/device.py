"""Where a network computes, in which numbers, and what the machine must be told for it."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from spectro.errors import ConfigError


@dataclass(frozen=True)
class Place:
    """A device and the numbers that it multiplies.

    Attributes:
        device: The device.
        precision: ``fp32`` or ``bf16``.
    """

    device: torch.device
    precision: str

    def autocast(self) -> Any:
        """Inside, matrices are multiplied in this precision whatever they are stored in."""
        if self.precision == "fp32":
            return nullcontext()
        # A captured step must not reuse casts that an earlier one left behind.
        return torch.autocast(self.device.type, torch.bfloat16, cache_enabled=self.device.type != "cuda")


def choose(device: str, precision: str) -> Place:
    """The place for ``auto`` or a name, and for a precision.

    Raises:
        ConfigError: This machine does not have the device.
    """
    available = ["cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    if device != "auto" and device not in available:
        raise ConfigError(f"device: got {device!r}; allowed on this machine: auto, {', '.join(available)}")
    found = torch.device(available[0] if device == "auto" else device)
    if precision == "auto":
        precision = "bf16" if _is_fast_in_bf16(found) else "fp32"
    return Place(found, precision)


def _is_fast_in_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # Without instructions of its own a processor takes longer in bf16 than in fp32.
    ask = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, name, bool)() for name in ask)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, chance follows ``seed``; outside, nobody notices."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@contextmanager
def kept_memory() -> Iterator[None]:
    """Inside, freed memory stays with the process.

    glibc gives large blocks back to the system as soon as they are free and asks for them again in the next step,
    whose every page then costs a fault: a training step takes up to twice as long. Other C libraries are left alone.
    """
    trim_threshold, mmap_max = -1, -4
    try:
        libc = ctypes.CDLL("libc.so.6") if sys.platform == "linux" else None
    except OSError:
        libc = None
    if libc is None or not hasattr(libc, "mallopt"):
        yield
        return
    libc.mallopt(mmap_max, 0)
    libc.mallopt(trim_threshold, 2**31 - 1)
    try:
        yield
    finally:
        libc.mallopt(mmap_max, 65536)
        libc.mallopt(trim_threshold, 128 * 1024)
        libc.malloc_trim(0)


def count_parameters(network: nn.Module) -> dict[str, int]:
    """How many numbers are trained, and how many there are."""
    parameters = list(network.parameters())
    return {
        "trainable": sum(p.numel() for p in parameters if p.requires_grad),
        "total": sum(p.numel() for p in parameters),
    }

"""Device, precision, random numbers and memory of a network."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from spectro.errors import ConfigError

# What glibc's mallopt sets.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4


@dataclass(frozen=True)
class Place:
    """A device and a precision, ``fp32`` or ``bf16``."""

    device: torch.device
    precision: str

    @property
    def dtype(self) -> torch.dtype:
        """That of values between layers."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    def autocast(self) -> Any:
        """A context in which matrices are multiplied in this precision, whatever they are stored in."""
        if self.precision == "fp32":
            return nullcontext()
        # A captured step must not reuse casts that an earlier one left behind.
        return torch.autocast(self.device.type, torch.bfloat16, cache_enabled=self.device.type != "cuda")


def choose(device: str, precision: str) -> Place:
    """The place for the name of a device and a precision, each of which may be ``auto``.

    Raises:
        ConfigError: This machine does not have the device.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    available = [name for name in there if there[name]]
    if device != "auto" and device not in available:
        raise ConfigError(f"device: got {device!r}; allowed on this machine: auto, {', '.join(available)}")
    chosen = torch.device(available[0] if device == "auto" else device)
    if precision == "auto":
        precision = "bf16" if _is_fast_in_bf16(chosen) else "fp32"
    return Place(chosen, precision)


def _is_fast_in_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # Without instructions for it a processor takes longer in bf16 than in fp32.
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, name, bool)() for name in names)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds PyTorch's generators in this context and restores them afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keeps all freed memory in the process in this context; then `reuse_memory`.

    glibc gives large blocks back to the system as soon as they are free and asks for them again in the next step, where
    every page then costs a fault: a training step takes up to twice as long. Other C libraries are not changed.
    """
    if (libc := _glibc()) is not None:
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        reuse_memory()


def reuse_memory() -> None:
    """Keeps freed blocks of up to 32 MB for the batches that a network predicts next, at most 64 MB that are free.

    These are the values that glibc's thresholds rise to as blocks are freed, from 128 kB, and only until one is set.
    """
    if (libc := _glibc()) is not None:
        libc.mallopt(_MMAP_MAX, 65536)
        libc.mallopt(_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(_TRIM_THRESHOLD, 64 << 20)
        libc.malloc_trim(0)


def _glibc() -> Any:
    """None: another C library."""
    try:
        libc = ctypes.CDLL("libc.so.6") if sys.platform == "linux" else None
    except OSError:
        return None
    return libc if hasattr(libc, "mallopt") else None

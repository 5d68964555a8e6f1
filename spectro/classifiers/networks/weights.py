"""Backbones and their pretrained weights: from a file, from the net, or none at all, and never none unasked."""

import hashlib
import json
import pickle
import socket
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from spectro.errors import ConfigError, ModelError


@dataclass(frozen=True)
class Backbone:
    """Which network, and what it starts from.

    Attributes:
        section: The section of the configuration that it stands in, for messages: ``cnn`` or ``vpt``.
        name: timm's name.
        options: timm's own arguments.
        pretrained: Whether it starts from pretrained weights.
        weights: A file that holds them; None: timm downloads them.
    """

    section: str
    name: str
    options: Mapping[str, Any]
    pretrained: bool
    weights: str | None


def create(backbone: Backbone, num_classes: int, *, empty: bool = False) -> tuple[nn.Module, dict[str, str | None]]:
    """A timm model with its weights, and with a new head.

    Args:
        backbone: What to make.
        num_classes: Outputs of the new head; 0: no head.
        empty: The weights will be loaded by the caller: whatever they are is fine.

    Returns:
        The model, and where its weights come from: ``source`` and ``sha256``, of the file, or of a download's tensors.

    Raises:
        ConfigError: timm does not know the backbone, or not with these options.
        ModelError: The pretrained weights cannot be had, or are not those of this backbone.
    """
    if empty or not backbone.pretrained:
        return _make(backbone, num_classes), {"source": "random", "sha256": None}
    if backbone.weights is None:
        return _download(backbone, num_classes)
    path = Path(backbone.weights).expanduser().absolute()
    model = _make(backbone, num_classes)
    _fill(model, dict(_read(path, _stamp(path))), path, backbone)
    return model, {"source": str(path), "sha256": _file_hash(path, _stamp(path))}


def _make(backbone: Backbone, num_classes: int, pretrained: bool = False) -> nn.Module:
    if not timm.is_model(backbone.name):
        raise ConfigError(f"{backbone.section}.backbone: got {backbone.name!r}; allowed: a model that timm knows")
    options: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in backbone.options.items()}
    try:
        return timm.create_model(backbone.name, pretrained=pretrained, num_classes=num_classes, **options)
    except (TypeError, AssertionError) as error:
        shown = ", ".join(f"{k}={v}" for k, v in backbone.options.items())
        raise ConfigError(f"{backbone.section}.backbone: timm makes no {backbone.name} of {shown} ({error})") from error
    except RuntimeError as error:
        if pretrained:
            raise
        raise ConfigError(f"{backbone.section}.backbone: got {backbone.name!r} ({error})") from error


def _download(backbone: Backbone, num_classes: int) -> tuple[nn.Module, dict[str, str | None]]:
    model = _make(backbone, num_classes)
    tensors, origin = _downloaded(backbone.section, backbone.name, json.dumps(dict(backbone.options), sort_keys=True))
    model.load_state_dict(tensors, strict=False)
    return model, dict(origin)


@lru_cache(maxsize=2)
def _downloaded(section: str, name: str, options: str) -> tuple[Mapping[str, Tensor], Mapping[str, str | None]]:
    """timm's weights without their head, fetched once for both stages and all trials."""
    try:
        with _at_once_if_offline():
            model = _make(Backbone(section, name, json.loads(options), True, None), 0, pretrained=True)
    except ConfigError:
        raise
    except Exception as error:
        # Whatever the hub's client, the network and the file system raise: all types.
        raise ModelError(
            f"{section}.pretrained: the pretrained weights of {name} cannot be had ({_first_line(error)}). "
            f"Allowed: {section}.weights=PATH with a safetensors or torch file of them; the environment variable "
            f"HF_ENDPOINT set to a mirror of huggingface.co; {section}.pretrained=false to start from random weights"
        ) from error
    tensors = _without_head(model.state_dict(), model)
    tag = model.pretrained_cfg.get("tag")  # type: ignore[union-attr, operator]
    return tensors, {"source": f"timm:{name.partition('.')[0]}.{tag}", "sha256": tensors_hash(tensors)}


@contextmanager
def _at_once_if_offline() -> Iterator[None]:
    """Without a network the hub's client would try for a minute; it then takes what it has kept, or gives up."""
    from huggingface_hub import constants

    address = urlsplit(constants.ENDPOINT)
    before = constants.HF_HUB_OFFLINE
    if not before and not getproxies():
        try:
            socket.create_connection((address.hostname, address.port or 443), timeout=5).close()
        except OSError:
            constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _stamp(path: Path) -> tuple[int, int]:
    """Changes when the file does.

    Raises:
        ModelError: No such file.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise ModelError(f"{path}: no such file; allowed: a safetensors or torch file of pretrained weights") from error
    return found.st_size, found.st_mtime_ns


@lru_cache(maxsize=4)
def _file_hash(path: Path, stamp: tuple[int, int]) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=2)
def _read(path: Path, stamp: tuple[int, int]) -> Mapping[str, Tensor]:
    """The tensors of a file, read once for both stages and all trials; no code from it is run."""
    with path.open("rb") as file:
        start = file.read(9)
    try:
        # A safetensors file begins with the length of its header and a brace, a pickle with its protocol.
        if zipfile.is_zipfile(path) or (start[:1] == b"\x80" and start[8:] != b"{"):
            with warnings.catch_warnings():
                # It warns of pickles of other protocols, and refuses or takes them all the same.
                warnings.simplefilter("ignore")
                content = torch.load(path, map_location="cpu", weights_only=True)
        else:
            content = load_file(path)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path}: refused, it holds more than tensors, and opening it could run code; allowed: a safetensors file "
            "or a torch file of tensors alone"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, ValueError, OSError, KeyError) as error:
        raise ModelError(f"{path}: damaged, or not a safetensors or torch file ({_first_line(error)})") from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(t, Tensor) for t in content.values()) or not content:
        raise ModelError(f"{path}: got no table of tensors; allowed: the state_dict of a timm model")
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}


def _fill(model: nn.Module, tensors: dict[str, Tensor], path: Path, backbone: Backbone) -> None:
    """Loads everything but the head; whatever else is missing, too much or of another shape is refused."""
    wanted = _without_head(model.state_dict(), model)
    found = _without_head(tensors, model)
    # What fits as it is stays as it is: timm's own filters would take some position embeddings for another grid's.
    adapt = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if adapt is not None and _differences(wanted, found):
        try:
            found = _without_head(adapt(dict(tensors), model), model)
        except (KeyError, RuntimeError, ValueError, IndexError, AssertionError, AttributeError, TypeError):
            found = _without_head(tensors, model)
    wrong = _differences(wanted, found)
    if wrong:
        raise ModelError(
            f"{path}: not the weights of {backbone.section}.backbone={backbone.name}: {'; '.join(wrong[:3])}"
            f"{f'; {len(wrong) - 3} more' if len(wrong) > 3 else ''}"
        )
    model.load_state_dict(found, strict=False)


def _differences(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    lines = [f"{name} is missing" for name in wanted if name not in found]
    lines += [f"{name} is too much" for name in found if name not in wanted]
    both = (name for name in wanted if name in found and wanted[name].shape != found[name].shape)
    return lines + [f"{name} is {tuple(found[name].shape)}, not {tuple(wanted[name].shape)}" for name in both]


def _without_head(tensors: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Everything but the modules that say the classes."""
    named = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    heads = {named} if isinstance(named, str) else set(named)
    return {k: v for k, v in tensors.items() if k.rpartition(".")[0] not in heads}


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"

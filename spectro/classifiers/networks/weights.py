"""timm models and their pretrained weights, from a file or a download; never random ones in place of them."""

import hashlib
import json
import pickle
import socket
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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


def create(
    name: str,
    num_classes: int,
    *,
    family: str,
    options: Mapping[str, Any],
    pretrained: bool,
    weights: str | None,
) -> tuple[nn.Module, dict[str, str | None]]:
    """A timm model with its weights, and with a new head.

    Args:
        name: timm's name of the model.
        num_classes: Outputs of the new head; 0: no head.
        family: The section of the configuration that messages name, ``cnn`` or ``vpt``.
        options: timm's own arguments.
        pretrained: Whether it starts from pretrained weights.
        weights: A file that holds them; None: timm downloads them.

    Returns:
        The model, and the origin of its weights: ``source`` and ``sha256``, of the file, or of a download's tensors.

    Raises:
        ConfigError: timm has no such model, or not with these options.
        ModelError: The pretrained weights are not available, or not those of this model.
    """
    model = _make(family, name, num_classes, options)
    if not pretrained:
        return model, {"source": "random", "sha256": None}
    if weights is None:
        tensors, origin = _downloaded(family, name, json.dumps(dict(options), sort_keys=True))
        model.load_state_dict(tensors, strict=False)
        return model, dict(origin)
    path = Path(weights).expanduser().absolute()
    _fill(model, dict(_read(path, _stamp(path))), path, f"{family}.backbone={name}")
    return model, {"source": str(path), "sha256": _file_hash(path, _stamp(path))}


def _make(family: str, name: str, num_classes: int, options: Mapping[str, Any], pretrained: bool = False) -> nn.Module:
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise ConfigError(f"{family}.backbone: got {name!r}; allowed: a model that timm has")
    if tag and not timm.is_model_pretrained(name):
        tags = [model.partition(".")[2] for model in timm.list_pretrained(f"{architecture}.*")]
        raise ConfigError(
            f"{family}.backbone: got {name!r}; allowed after {architecture}: {', '.join(tags) or 'no tag'}"
        )
    arguments: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=num_classes, **arguments)
    except (TypeError, AssertionError) as error:
        shown = ", ".join(f"{k}={v}" for k, v in options.items())
        raise ConfigError(f"{family}.backbone: timm makes no {name} of {shown} ({error})") from error
    except RuntimeError as error:
        if pretrained:
            raise
        raise ConfigError(f"{family}.backbone: got {name!r} ({error})") from error


@lru_cache(maxsize=2)
def _downloaded(family: str, name: str, options: str) -> tuple[Mapping[str, Tensor], Mapping[str, str | None]]:
    """timm's weights without their head, downloaded once for both stages and all trials."""
    try:
        with _offline_if_unreachable():
            model = _make(family, name, 0, json.loads(options), pretrained=True)
    except ConfigError:
        raise
    except Exception as error:
        # Whatever the hub's client, the network and the file system raise: all types.
        raise ModelError(
            f"{family}.pretrained: the pretrained weights of {name} are not available ({_first_line(error)}). "
            f"Allowed: {family}.weights=PATH with a safetensors or torch file of them; the environment variable "
            f"HF_ENDPOINT set to a mirror of huggingface.co; {family}.pretrained=false to start from random weights"
        ) from error
    tensors = _without_head(model.state_dict(), model)
    tag = model.pretrained_cfg.get("tag")  # type: ignore[union-attr, operator]
    return tensors, {"source": f"timm:{name.partition('.')[0]}.{tag}", "sha256": tensors_hash(tensors)}


@contextmanager
def _offline_if_unreachable() -> Iterator[None]:
    """Without a network the hub's client would try for a minute; in its offline mode it uses its cache, or fails."""
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
        stat = path.stat()
    except OSError as error:
        raise ModelError(f"{path}: no such file; allowed: a safetensors or torch file of pretrained weights") from error
    return stat.st_size, stat.st_mtime_ns


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
                # A warning about pickles of other protocols adds nothing to the error.
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


def _fill(model: nn.Module, tensors: dict[str, Tensor], path: Path, name: str) -> None:
    """Loads everything but the head; missing tensors, further ones, and other shapes are refused."""
    expected, got = _without_head(model.state_dict(), model), _without_head(tensors, model)
    # Tensors that fit are left as they are: timm's filters would resample some position embeddings all the same.
    adapt = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if adapt is not None and _differences(expected, got):
        try:
            got = _without_head(adapt(dict(tensors), model), model)
        except (KeyError, RuntimeError, ValueError, IndexError, AssertionError, AttributeError, TypeError):
            got = _without_head(tensors, model)
    differences = _differences(expected, got)
    if differences:
        more = f"; {len(differences) - 3} more" if len(differences) > 3 else ""
        raise ModelError(f"{path}: not the weights of {name}: {'; '.join(differences[:3])}{more}")
    model.load_state_dict(got, strict=False)


def _differences(expected: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> list[str]:
    lines = [f"{name} is missing" for name in expected if name not in got]
    lines += [f"{name} is unexpected" for name in got if name not in expected]
    both = (name for name in expected if name in got and expected[name].shape != got[name].shape)
    return lines + [f"{name} is {tuple(got[name].shape)}, not {tuple(expected[name].shape)}" for name in both]


def _without_head(tensors: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Everything but the classification head."""
    named = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    heads = {named} if isinstance(named, str) else set(named)
    return {k: v for k, v in tensors.items() if k.rpartition(".")[0] not in heads}


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"

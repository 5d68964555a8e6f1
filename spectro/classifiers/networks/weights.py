"""timm models and their pretrained weights, from a file or a download; never random ones in place of them."""

import hashlib
import io
import json
import pickle
import socket
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from timm.models._hub import load_model_config_from_hf, load_model_config_from_path
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from spectro.errors import ConfigError, ModelError

# Arguments of timm that load files, from which the recorded origin of the weights would be another, or that change what
# the network is to others: it reads colour images and gives features.
_REFUSED = {"cache_dir", "checkpoint_path", "features_only", "in_chans", "num_classes", "out_indices", "pretrained"}
_REFUSED |= {"pretrained_cfg", "pretrained_cfg_overlay"}
# How many times larger than the tensors of its file a network may be while it is built.
_LARGER = 50
_MOST = 10**6  # of any number in a backbone's options
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalisation(model: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel in a timm model's training, of pixels from 0 to 1."""
    cfg: Any = getattr(model, "pretrained_cfg", None) or {}
    return cfg.get("mean") or _IMAGENET_MEAN, cfg.get("std") or _IMAGENET_STD


def create(
    name: str,
    *,
    family: str,
    options: Mapping[str, Any],
    pretrained: bool,
    weights: Path | None,
    size: Sequence[int],
    config: Mapping[str, Any] | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """A timm model with its weights, without a head.

    Args:
        name: timm's name of the model, also ``hf-hub:OWNER/NAME`` and ``local-dir:FOLDER``.
        family: The section of the configuration that messages name, ``cnn`` or ``vpt``.
        options: timm's own arguments.
        weights: A file that holds pretrained weights; None: timm downloads them.
        size: Height and width of the images.
        config: From the origin of a saved model; None: it is read from the hub or the folder, where the name has one.

    Returns:
        The model, and the origin of its weights: ``source`` and ``sha256``, of the file, or of a download's tensors;
        from a hub or a folder also ``config``.

    Raises:
        ConfigError: timm has no such model, or not with these options, or not for images of this size.
        ModelError: The pretrained weights are not available, or not those of this model.
    """
    config = config or _config(family, name)
    architecture, _, tag = config.get("architecture", name).partition(".")
    if not timm.is_model(architecture):
        allowed = "a model that timm has, hf-hub:OWNER/NAME, local-dir:FOLDER"
        raise ConfigError(f"{family}.backbone: got {name!r}{f', a {architecture}' * bool(config)}; allowed: {allowed}")
    if tag and not config and not timm.is_model_pretrained(name):
        tags = ", ".join(model.partition(".")[2] for model in timm.list_pretrained(f"{architecture}.*")) or "no tag"
        raise ConfigError(f"{family}.backbone: got {name!r}; allowed after {architecture}: {tags}")
    defaults = timm.get_pretrained_cfg(architecture, allow_unregistered=True)
    # timm's transformers have position embeddings for one size.
    of_size = {"img_size": list(size)} if defaults is not None and defaults.fixed_input_size else {}
    options = of_size | dict(options)
    model_args = config.get("model_args", {})
    if refused := sorted(_REFUSED & {*options, *model_args}):
        hint = f"; weights come from {family}.weights=FILE"
        raise ConfigError(f"{family}.backbone_options: got {', '.join(refused)}; allowed: other arguments{hint}")
    given = [*options.values(), *model_args.values()]
    if huge := [n for value in given for n in (value if isinstance(value, list) else [value]) if _is_huge(n)]:
        raise ConfigError(f"{family}.backbone_options: got {huge[0]}; allowed: numbers up to {_MOST}")
    pretrained_cfg = {"pretrained_cfg": config["pretrained_cfg"]} if config else {}
    try:
        arguments = {**model_args, **pretrained_cfg, **_arguments(options), "num_classes": 0}
        model = timm.create_model(architecture if config else name, pretrained=False, **arguments)
    except Exception as error:
        # The options are the user's, and timm's models raise all types of errors for those that they do not take.
        key, shown = ("backbone_options", str(dict(options))) if options else ("backbone", repr(name))
        raise ConfigError(
            f"{family}.{key}: got {shown}, of which timm makes no {name} ({_first_line(error)}); allowed: its arguments"
        ) from error
    _check_images(model, family, name, size)
    described = {"config": config} if config else {}
    if not pretrained:
        return model, {"source": "random", "sha256": None, **described}
    if weights is None:
        tensors, origin = _downloaded(family, name, json.dumps(options, sort_keys=True))
        model.load_state_dict(tensors, strict=False)
        return model, {**origin, **described}
    try:
        content = weights.read_bytes()
    except OSError as error:
        allowed = "a safetensors or torch file of pretrained weights"
        raise ModelError(f"{weights}: no such file; allowed: {allowed}") from error
    _fill(model, _tensors(content, weights), weights, f"{family}.backbone={name}")
    return model, {"source": str(weights), "sha256": hashlib.sha256(content).hexdigest(), **described}


def _is_huge(value: Any) -> bool:
    return isinstance(value, int | float) and not abs(value) <= _MOST


def _config(family: str, name: str) -> dict[str, Any]:
    """What a hub or a folder states of a model: architecture, pretrained_cfg, model_args; empty: a name of timm's."""
    source, _, place = name.partition(":")
    if source not in ("hf-hub", "local-dir"):
        return {}
    try:
        if source == "hf-hub":
            cfg, architecture, arguments = _hub_config(place)
        else:
            cfg, architecture, arguments = load_model_config_from_path(Path(place).expanduser())
        cfg = {key: value for key, value in cfg.items() if not key.startswith("label_")}
        return {"architecture": str(architecture), "pretrained_cfg": cfg, "model_args": dict(arguments)}
    except Exception as error:
        # Whatever the hub's client, the network, the file system and damaged files raise: all types.
        raise ModelError(
            f"{family}.backbone: got {name!r}, of which timm reads no config.json ({_first_line(error)}). Allowed: a "
            "model of timm's on huggingface.co or the mirror that the environment variable HF_ENDPOINT names, or "
            "local-dir:FOLDER with a copy of its config.json and model.safetensors"
        ) from error


@lru_cache(maxsize=4)
def _hub_config(place: str) -> tuple[dict[str, Any], str, dict[str, Any]]:
    with _offline_if_unreachable():
        return load_model_config_from_hf(place)


def _check_images(model: nn.Module, family: str, name: str, size: Sequence[int]) -> None:
    """Raises a ConfigError where a model takes no images of this size, or would leave out what fills no patch."""
    embed: Any = getattr(model, "patch_embed", None)
    patch, of_size = getattr(embed, "patch_size", None), getattr(embed, "img_size", None)
    got = f"{family}.size_px: got {' x '.join(map(str, size))}"
    if of_size and getattr(embed, "strict_img_size", True) and tuple(of_size) != tuple(size):
        raise ConfigError(f"{got}; allowed with {family}.backbone={name}: {' x '.join(map(str, of_size))}")
    if not patch or getattr(embed, "dynamic_img_pad", False):
        return
    if any(side % part for side, part in zip(size, patch, strict=True)):
        shown = " and ".join(map(str, dict.fromkeys(patch)))
        raise ConfigError(f"{got} (height x width); allowed: multiples of {shown}, the patches of {name}")


@lru_cache(maxsize=2)
def _downloaded(family: str, name: str, options: str) -> tuple[Mapping[str, Tensor], Mapping[str, str | None]]:
    """timm's weights without their head, downloaded once for both stages and all trials."""
    try:
        with _offline_if_unreachable():
            model = timm.create_model(name, pretrained=True, num_classes=0, **_arguments(json.loads(options)))
    except Exception as error:
        # Whatever the hub's client, the network and the file system raise: all types.
        raise ModelError(
            f"{family}.pretrained: the pretrained weights of {name} are not available ({_first_line(error)}). "
            f"Allowed: {family}.weights=PATH with a safetensors or torch file of them; the environment variable "
            f"HF_ENDPOINT set to a mirror of huggingface.co; {family}.pretrained=false to start from random weights"
        ) from error
    tensors = _without_head(model.state_dict(), model)
    digest = hashlib.sha256()
    for key, tensor in sorted(tensors.items()):
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    tag = model.pretrained_cfg.get("tag")  # type: ignore[union-attr, operator]
    source = name if ":" in name else f"timm:{name.partition('.')[0]}.{tag}"
    return tensors, {"source": source, "sha256": digest.hexdigest()}


def _arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """timm expects tuples, which YAML does not have."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}


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


def _tensors(content: bytes, path: Path) -> dict[str, Tensor]:
    """The tensors in a file's content; no code from it is run."""
    try:
        if content[:2] == b"PK" and any("/code/" in name for name in zipfile.ZipFile(io.BytesIO(content)).namelist()):
            raise ModelError(f"{path}: a TorchScript program; allowed: a safetensors file, or a torch file of tensors")
        # A torch file is a zip archive or a pickle; a safetensors file begins with the length of its header.
        if content[:2] == b"PK" or (content[:1] == b"\x80" and content[8:9] != b"{"):
            with warnings.catch_warnings():
                # A warning about pickles of other protocols adds nothing to the error.
                warnings.simplefilter("ignore")
                tensors = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        else:
            tensors = load(content)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path}: refused, it holds more than tensors, and opening it could run code; allowed: a safetensors file "
            "or a torch file of tensors alone"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path}: damaged, or not a safetensors or torch file ({_first_line(error)})") from error
    for key in ("state_dict", "model"):
        if isinstance(tensors, dict) and isinstance(tensors.get(key), dict):
            tensors = tensors[key]
    if not isinstance(tensors, dict) or not all(isinstance(t, Tensor) for t in tensors.values()) or not tensors:
        raise ModelError(f"{path}: got no table of tensors; allowed: the state_dict of a timm model")
    return {str(name).removeprefix("module."): tensor for name, tensor in tensors.items()}


def _fill(model: nn.Module, tensors: dict[str, Tensor], path: Path, name: str) -> None:
    """Loads everything but the head; missing tensors, further ones, and other shapes are refused."""
    expected, got = _without_head(model.state_dict(), model), _without_head(tensors, model)
    # Tensors that fit are left as they are: timm's filters would resample some position embeddings all the same.
    adapt = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if adapt is not None and _differences(expected, got):
        # Whatever a filter raises for weights that it is not for.
        with suppress(KeyError, RuntimeError, ValueError, IndexError, AssertionError, AttributeError, TypeError):
            got = _without_head(adapt(dict(tensors), model), model)
    if differences := _differences(expected, got):
        raise ModelError(f"{path}: not the weights of {name}: {differences}")
    if bad := [key for key, tensor in got.items() if tensor.is_floating_point() and not tensor.isfinite().all()]:
        raise ModelError(f"{path}: damaged: {bad[0]} holds NaN or infinite values, as do {len(bad) - 1} more tensors")
    model.load_state_dict(got, strict=False)


@contextmanager
def bounded(tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Ends the building of a network that is far larger than the tensors of its file, whatever its JSON states.

    A network is built whole before it is cut, so that it may have some times their size.

    Raises:
        RuntimeError: Parameters and buffers become more, in number or in values, than `_LARGER` times the tensors.
    """
    left = [_LARGER * len(tensors), _LARGER * (10**5 + sum(tensor.numel() for tensor in tensors.values()))]

    def count(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        for i, size in enumerate((1, 0 if tensor is None else tensor.numel())):
            left[i] -= size
            if left[i] < 0:
                raise RuntimeError("the network that its JSON states is far larger than its tensors")

    with (
        register_module_parameter_registration_hook(count),
        register_module_buffer_registration_hook(count),
    ):
        yield


def check_shapes(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Raises a RuntimeError where the tensors of a file are not those of a model; it may lie on the device ``meta``."""
    if differences := _differences(model.state_dict(), tensors):
        raise RuntimeError(differences)


def _differences(expected: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> str:
    """The first three names or shapes in which tensors differ, and the number of the others; empty if none does."""
    lines = [f"{name} is missing" for name in expected if name not in got]
    lines += [f"{name} is unexpected" for name in got if name not in expected]
    both = (name for name in expected if name in got and expected[name].shape != got[name].shape)
    lines += [f"{name} is {tuple(got[name].shape)}, not {tuple(expected[name].shape)}" for name in both]
    return "; ".join(lines[:3]) + f"; {len(lines) - 3} more" * (len(lines) > 3)


def _without_head(tensors: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Everything but the classification head."""
    named = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    heads = {named} if isinstance(named, str) else set(named)
    return {k: v for k, v in tensors.items() if k.rpartition(".")[0] not in heads}


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"

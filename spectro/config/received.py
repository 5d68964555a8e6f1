"""What a configuration file may not set of Hydra's own section: it may be anybody's, and Hydra obeys all of it."""

import logging.config
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf

from spectro.errors import ConfigError
from spectro.paths import cut

# Classes that Hydra makes for a file: of its own plugins, and of the installed ones.
_IN_RUN = "${hydra.runtime.output_dir}/"
_TARGETS = re.compile(r"(hydra\._internal\.core_plugins|hydra_plugins|spectro\.sweeps|optuna\.samplers)\.")


def check_hydra(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Refuses values from files that set the environment, run code, or write outside ``outputs``.

    Whatever is typed on the command line is allowed: the user is no stranger.

    Args:
        cfg: The composed configuration, with the section ``hydra``.
        overrides: The overrides of the command line.

    Raises:
        ConfigError: Names the key, its value, and what is allowed.
    """
    hydra = cfg.hydra
    plain: Any = OmegaConf.to_container(hydra, resolve=False)
    typed = [word.lstrip("+~").split("=")[0].replace("/", ".") for word in overrides]
    expected: dict[str, Any] = {
        "job.env_set": {},
        "job.env_copy": [],
        "callbacks": {},
        "searchpath": [],
        "output_subdir": ".hydra",
        "sweep.subdir": "${hydra.job.num}",
    }
    for key, default in expected.items():
        value = plain
        for part in key.split("."):
            value = value[part]
        if value not in (default, None) and not _is_typed(key, typed):
            raise ConfigError(f"hydra.{key}: got {cut(str(value), 200)} from a file; allowed there: the default")
    for key in ("job_logging", "hydra_logging"):
        if _is_typed(key, typed):
            _try_logging(key, plain[key])
        elif not _is_harmless(plain[key]):
            raise ConfigError(f"hydra.{key}: got classes or files from a file; allowed there: those of logging")
    for key in ("launcher", "sweeper", "sweeper.sampler"):
        target, plugins = OmegaConf.select(hydra, f"{key}._target_"), Plugins.instance().class_name_to_class
        if f"hydra.{key}._target_" not in typed:
            if target is not None and not _TARGETS.match(str(target)):
                raise ConfigError(f"hydra.{key}._target_: got {target!r} from a file; allowed there: Hydra's plugins")
        elif target not in plugins and key != "sweeper.sampler":
            raise ConfigError(f"hydra.{key}._target_: got {target!r}; allowed: {', '.join(sorted(plugins))}")
    outputs = Path(cfg.outputs).expanduser().absolute()
    for key in ("run.dir", "sweep.dir"):
        folder = Path(OmegaConf.select(hydra, key)).expanduser().absolute()
        if not folder.resolve().is_relative_to(outputs.resolve()) and not _is_typed(key, typed):
            raise ConfigError(
                f"hydra.{key}: got {str(folder)!r} from a file; allowed there: folders in {str(outputs)!r}"
            )


def _is_typed(key: str, typed: Sequence[str]) -> bool:
    """Whether the command line sets a key of Hydra's section, a part of it, or a section that holds it."""
    full = f"hydra.{key}."
    return any(f"{word}.".startswith(full) or full.startswith(f"{word}.") for word in typed)


def _try_logging(key: str, settings: Any) -> None:
    """Raises a ConfigError where Python's logging refuses settings, by setting it up; no file is opened."""
    handlers, level = logging.root.handlers[:], logging.root.level
    try:
        for handler in settings.get("handlers", {}).values():
            handler.update({name: os.devnull for name in handler if name == "filename"})
        logging.config.dictConfig({**settings, "disable_existing_loggers": False})
    except Exception as error:
        # Handlers and filters may be any class, and raise anything.
        reason = f"{error}: {error.__cause__}" if error.__cause__ else error
        raise ConfigError(f"hydra.{key}: {reason}; allowed: what logging.config.dictConfig takes") from error
    finally:
        logging.root.handlers[:], logging.root.level = handlers, level


def _is_harmless(node: Any) -> bool:
    """Whether a section of `logging.config` makes objects of Python's handlers alone, and files in the run's folder."""
    if isinstance(node, list):
        return all(map(_is_harmless, node))
    if not isinstance(node, dict):
        return not str(node).startswith(("ext://", "cfg://")) or node in ("ext://sys.stdout", "ext://sys.stderr")
    of_run = str(node.get("filename", _IN_RUN)).startswith(_IN_RUN) and ".." not in str(node.get("filename", ""))
    known = node.get("class", "logging.StreamHandler") in ("logging.StreamHandler", "logging.FileHandler")
    return "()" not in node and of_run and known and all(map(_is_harmless, node.values()))

"""What a configuration from elsewhere may not set: parts of Hydra's section, modules that run, servers, places."""

import logging.config
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf

from spectro.data.transforms import BUILT_IN_VIEWS
from spectro.errors import ConfigError
from spectro.paths import cut, flatten, override, redact, short, sqlite_path
from spectro.plugins import installed, load_plugins, loaded

# Classes that Hydra makes for a file: of its own plugins, and of the installed ones.
_IN_RUN = "${hydra.runtime.output_dir}/"
_TARGETS = re.compile(r"(hydra\._internal\.core_plugins|hydra_plugins|spectro\.sweeps|optuna\.samplers)\.")

# Modules whose functions and classes any configuration may name as augmentations.
_TRANSFORMS = (
    "spectro.data.transforms",
    "torchvision.transforms",
    "torchvision.transforms.v2",
    "torchvision.transforms.v2.functional",
)


def modules_of(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The modules that a configuration names, each with its key; those with transforms that are known are left out.

    Args:
        config: Plain values, valid or not.
    """
    plugins, parts = config.get("plugins"), config.get("augmentation")
    named = [("plugins", module) for module in plugins] if isinstance(plugins, list) else []
    for name, part in parts.items() if isinstance(parts, dict) else ():
        for key in ("transform", "views") if isinstance(part, dict) and name != "exclude" else ():
            value = part.get(key)
            functions = [f for f in (value if isinstance(value, list) else [value]) if isinstance(f, str)]
            functions = [f for f in functions if f and f not in BUILT_IN_VIEWS]
            named += [(f"augmentation.{name}.{key}", re.sub("[.:][^.:]*$", "", f)) for f in functions]
    known = [module for module in _TRANSFORMS if find_spec(module.partition(".")[0])]
    return [(key, module) for key, module in named if isinstance(module, str) and module not in known]


def check_modules(config: Mapping[str, Any], origin: str, typed: Sequence[str] = (), named: Iterable[str] = ()) -> None:
    """Refuses modules that only a received configuration names: its folder may hold them, and importing one runs it.

    Args:
        config: Plain values, valid or not.
        origin: The run or file that the configuration comes from, for the message.
        typed: Keys that the user has typed over those of the file.
        named: Modules that the user has named, besides those that are loaded.

    Raises:
        ConfigError: Names the modules, and the option that loads them.
    """
    load_plugins()  # those that are installed
    modules = modules_of(config)
    named = {*loaded, *named, *(module for key, module in modules if _is_typed(key, typed))}
    if unknown := [(key, module) for key, module in modules if module not in named]:
        names = list(dict.fromkeys(module for _, module in unknown))
        options = " ".join(f"--plugin {name}" for name in names)
        lines = [f"{key}: got module {module!r}, which only {origin} names" for key, module in unknown]
        lines[-1] += f"; allowed: modules that you name, {options} (spectro train: 'plugins=[{', '.join(names)}]')"
        raise ConfigError("\n".join(lines))


def check_places(config: Mapping[str, Any], origin: str, outputs: Iterable[Path], typed: Sequence[str] = ()) -> None:
    """Refuses folders that a received configuration has written to, and servers that get the user's passwords.

    Args:
        config: Plain values, valid or not.
        origin: The run or file that the configuration comes from, for the message.
        outputs: Where ``outputs`` may be without being typed.
        typed: Keys that the user has typed over those of the file.

    Raises:
        ConfigError: A line for each key that has to be typed.
    """
    values, lines = flatten(config), []
    for key, about in places_to_type(values, outputs).items():
        if not _is_typed(key, typed):
            got = redact(str(values[key]))
            lines.append(f"{key}: got {got!r}, which only {origin} names; allowed: {about}, or typed: {key}={got}")
    if lines:
        raise ConfigError("\n".join(lines))


def places_to_type(values: Mapping[str, Any], outputs: Iterable[Path]) -> dict[str, str]:
    """Keys with a folder or a server that a file may not set, each with what it may set.

    Args:
        values: A configuration by dotted keys, valid or not.
        outputs: Where ``outputs`` may be.
    """
    place = _absolute(values.get("outputs"))
    databases = [place / name for name in ("mlflow.db", "studies.db")]
    is_ours = place in [folder.resolve() for folder in outputs]
    allowed = {"outputs": (is_ours, "./outputs, or the one that holds the run")}
    for key in ("data.cache_dir", "data.demo_dir"):
        folder = _absolute(values.get(key))
        is_there = key == "data.demo_dir" and folder.is_dir() and any(folder.iterdir())  # then nothing is written
        allowed[key] = (is_there or folder.is_relative_to(place), "folders in outputs")
    for key in ("tracking.uri", "storage"):
        is_known = values.get(key) == os.environ.get("MLFLOW_TRACKING_URI") and key == "tracking.uri"
        is_known |= _absolute(sqlite_path(str(values.get(key)))) in databases
        allowed[key] = (is_known, f"a database in outputs{', MLFLOW_TRACKING_URI' * (key == 'tracking.uri')}")
    return {key: about for key, (is_fine, about) in allowed.items() if not is_fine and values.get(key) is not None}


def to_type(config: Mapping[str, Any], folder: Path) -> list[str]:
    """Overrides that have to be typed to use a configuration as the primary one.

    Args:
        config: Plain values.
        folder: Where its file lies.
    """
    values = flatten(config)
    modules = dict.fromkeys(module for _, module in modules_of(config) if module not in installed())
    places = [override(key, str(values[key])) for key in places_to_type(values, outputs_of(folder))]
    return [*([f"plugins=[{','.join(modules)}]"] if modules else []), *places]


def check_primary(config: Mapping[str, Any], overrides: Sequence[str], file: Path) -> None:
    """`check_modules` and `check_places` of a primary configuration that is not spectro's, such as a best_config.yaml.

    Args:
        config: The composed configuration, plain values without Hydra's section.
        overrides: The overrides of the command line, without options of groups.
        file: The file, which is in ``outputs/sweeps/STUDY/`` where a search has written it.
    """
    origin, typed = short(file), _keys(overrides)
    check_modules(config, origin, typed)
    check_places(config, origin, [Path("outputs"), *outputs_of(file.parent)], typed)


def outputs_of(folder: Path) -> list[Path]:
    """The folder of results in which a run, a sweep or a trial lies, by the names above; empty where it is in none."""
    return [above.parent for above in folder.resolve().parents[:2] if above.name in ("runs", "sweeps")]


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
    typed = _keys(overrides)
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
        if value not in (default, None) and not _is_typed(f"hydra.{key}", typed):
            raise ConfigError(f"hydra.{key}: got {cut(str(value), 200)} from a file; allowed there: the default")
    for key in ("job_logging", "hydra_logging"):
        if _is_typed(f"hydra.{key}", typed):
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
        if not folder.resolve().is_relative_to(outputs.resolve()) and not _is_typed(f"hydra.{key}", typed):
            raise ConfigError(
                f"hydra.{key}: got {str(folder)!r} from a file; allowed there: folders in {str(outputs)!r}"
            )


def _absolute(path: Any) -> Path:
    """A folder without links in it; one that does not exist for what is no path."""
    try:
        return Path(str(path)).expanduser().resolve()
    except (RuntimeError, ValueError, OSError):  # no such user, a null character, a loop of links
        return Path(os.devnull) / "none"


def _keys(overrides: Iterable[str]) -> list[str]:
    return [word.lstrip("+~").split("=")[0].replace("/", ".") for word in overrides]


def _is_typed(key: str, typed: Sequence[str]) -> bool:
    """Whether a key, one below it or a section above it is typed."""
    return any(f"{word}.".startswith(f"{key}.") or key.startswith(f"{word}.") for word in typed)


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

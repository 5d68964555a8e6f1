"""The configuration groups as Hydra finds them: in ``conf/`` and in a user's own directories."""

import os
import pickle
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository
from hydra._internal.defaults_list import create_defaults_list
from hydra._internal.utils import create_config_search_path_from_sources
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobRuntime, setup_globals
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from spectro.config.received import check_hydra, check_modules, check_primary
from spectro.errors import ConfigError
from spectro.paths import CONF, cores, flatten

CONFIG = "config"


class Composition(NamedTuple):
    """Which files some overrides select.

    Attributes:
        choices: The groups in the order of the defaults list, each with its option.
        files: Path (``model/hog_svm``) and section (``pca``; empty: the top level) of each file; later ones win.
    """

    choices: dict[str, str]
    files: list[tuple[str, str]]


class _Repository(ConfigRepository):
    """Reads a file once in a process until it changes: reading two dozen was half of composing a configuration."""

    _read: ClassVar[dict[tuple[Any, ...], bytes]] = {}

    def load_config(self, config_path: str) -> ConfigResult | None:
        key: tuple[Any, ...] = (config_path,)
        for source in self.get_sources():
            file = Path(source.path, f"{config_path.removesuffix('.yaml')}.yaml")
            key += (source.scheme(), source.path, file.stat().st_mtime_ns if file.is_file() else None)
        if key not in self._read:
            self._read[key] = pickle.dumps(super().load_config(config_path))
        result: ConfigResult | None = pickle.loads(self._read[key])  # a copy: Hydra merges into it
        return result


class Groups:
    """The groups on a search path.

    Args:
        sources: Addresses of directories, such as ``file:///home/me/conf`` or ``pkg://my_package.conf``; of two options
            of one name the first holds.
        name: The primary configuration.

    Attributes:
        folders: The directories.
    """

    def __init__(self, sources: Sequence[str] = (), name: str = CONFIG):
        register()
        self._name = name = name.removesuffix(".yaml")
        self.folders = [Path(source.removeprefix("file://")) for source in sources] or [CONF]
        files = [folder / f"{name}.yaml" for folder in self.folders]
        self._primary = next((file for file in files if file.is_file()), files[0])
        path = create_config_search_path_from_sources(sources or [str(CONF)])
        self._loader = ConfigLoaderImpl(path)
        self._loader.repository = _Repository(path)
        self._files = CachingConfigRepository(self._loader.repository)

    def options(self, group: str) -> list[str]:
        """The options of a group; a name with an underscore in front is a part that options share."""
        return [name for name in self._files.get_group_options(group) if not name.startswith("_")]

    def compose(self, overrides: Sequence[str] = ()) -> DictConfig:
        """The composed configuration, with Hydra's section ``hydra``.

        Raises:
            ConfigError: A file sets what only a command line may, see `check_hydra` and `check_primary`.
        """
        cfg = self._loader.load_configuration(self._name, list(overrides), RunMode.RUN)
        check_hydra(cfg, overrides)
        if len(self.folders) > 1:
            self._check_mapping(overrides)
        if self._primary != CONF / f"{CONFIG}.yaml":
            # An option is not what the file sets below its group.
            values = [word for word in overrides if not self.options(word.lstrip("+~").split("=")[0])]
            sections = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
            plain: Any = OmegaConf.to_container(sections, resolve=True)
            check_primary(plain, values, self._primary)
            # Its stages and members may be other models, whose options name modules too.
            typed = plain["plugins"] if any(word.lstrip("+").startswith("plugins=") for word in values) else []
            for name in set(self.options("model")) & set(_texts(plain)):
                check_modules({"plugins": [*self.compose_model(name).plugins]}, f"model={name}", named=typed)
        return cfg

    def _check_mapping(self, overrides: Sequence[str]) -> None:
        """Refuses a mapping that sets anything else: it holds labels, and passes from hand to hand as they do."""
        composition = self.composition(overrides)
        if option := composition.choices.get("mapping"):
            without = self.composition([*overrides, "mapping=identity"]).files
            keys = self.keys(file for file in composition.files if file not in without)
            if wrong := {key: path for key, path in keys.items() if not key.startswith("mapping.")}:
                key, path = next(iter(wrong.items()))
                raise ConfigError(f"mapping={option}: {path} sets {key}; allowed in a mapping: mapping.*")

    def compose_model(self, name: str) -> DictConfig:
        """The configuration with an option of ``model``, also where the primary one has no groups, as best_config."""
        primary = self._name if "model" in self.composition().choices else CONFIG
        return self._loader.load_configuration(primary, [f"model={name}"], RunMode.RUN)

    def composition(self, overrides: Sequence[str] = ()) -> Composition:
        """The files that `compose` would merge, those of Hydra itself left out."""
        parsed = self._loader.parse_overrides(self._name, list(overrides))
        defaults = create_defaults_list(self._files, self._name, parsed, prepend_hydra=True, skip_missing=True)
        choices = reversed(defaults.overrides.known_choices.items())
        files = [(str(default.config_path), default.package or "") for default in defaults.defaults]
        return Composition(
            {group: option for group, option in choices if option and not group.startswith("hydra/")},
            [(path, section) for path, section in files if not section.startswith("hydra")],
        )

    def keys(self, files: Iterable[tuple[str, str]]) -> dict[str, str]:
        """The dotted keys of a composition's files, each with the path of the last file that sets it."""
        keys: dict[str, str] = {}
        for path, section in files:
            loaded = self._files.load_config(path)
            content: Any = OmegaConf.to_container(loaded.config) if loaded else {}
            keys |= {f"{section}.{key}".lstrip("."): path for key in flatten(content)}
        return keys

    @cache  # noqa: B019 - a process has few instances
    def keys_of(self, group: str, option: str) -> dict[str, str]:
        """The dotted keys that an option sets, with the parts that it shares with others."""
        files = self.composition([f"{group}={option}"]).files
        return self.keys(file for file in files if file[0].startswith(f"{group}/"))

    def text(self, path: str) -> str:
        """A file as it was written, with its comments; empty for what no file holds."""
        source = next((source for source in self._files.get_sources() if source.is_config(path)), None)
        if source is None or source.scheme() == "structured":
            return ""
        folder = files(source.path.replace("/", ".")) if source.scheme() == "pkg" else Path(source.path)
        return folder.joinpath(f"{path}.yaml").read_text(encoding="utf-8")


def _texts(node: Any) -> Iterator[str]:
    """The texts in plain values."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict | list):
        for part in node.values() if isinstance(node, dict) else node:
            yield from _texts(part)


def search_path(
    overrides: Sequence[str] = (), config_dir: str | None = None, config_path: str | None = None
) -> list[str]:
    """The search path of a command line.

    Args:
        overrides: Its overrides; ``hydra.searchpath`` adds directories.
        config_dir: ``--config-dir``: another directory.
        config_path: ``--config-path``: stands for conf/.
    """
    path = [os.path.abspath(config_path) if config_path else str(CONF)]
    if config_dir:
        path.append(os.path.abspath(config_dir))
    for word in overrides:
        if word.lstrip("+").startswith("hydra.searchpath="):
            with suppress(HydraException):  # reported when the configuration is composed
                value = OverridesParser.create().parse_override(word).value()
                path += value if isinstance(value, list) else []
    return path


@cache
def groups_on(*sources: str, name: str = CONFIG) -> Groups:
    """`Groups`, once in a process for each search path."""
    return Groups(sources, name)


def groups_of(config_sources: Iterable[Any]) -> Groups:
    """The groups of a run from Hydra's record of it, ``hydra.runtime.config_sources``."""
    path = [f"{s.schema}://{s.path}" for s in config_sources if s.provider not in ("hydra", "schema")]
    # A run may be resumed where the folder that held conf/ is no longer there.
    exists = [entry for entry in path if not entry.startswith("file://") or Path(entry[7:]).is_dir()]
    return groups_on(*dict.fromkeys([*exists, f"file://{CONF}"]))


def job_groups() -> Groups:
    """The groups of the job that Hydra runs; those of conf/ where it runs none."""
    return groups_of(HydraConfig.get().runtime.config_sources if HydraConfig.initialized() else ())


@cache
def register() -> None:
    """Tells Hydra, once in a process, what ``conf/`` refers to: its resolvers and the open section ``stages``."""
    setup_globals()
    JobRuntime.instance().set("name", "train")
    OmegaConf.register_resolver("or_cores", lambda number: number or cores(), replace=True)
    OmegaConf.register_resolver("if_any", lambda value, then, otherwise: then if value else otherwise, replace=True)
    # A folder's name has no spaces.
    OmegaConf.register_resolver("name_of", lambda name, other: str(name or other).replace(" ", "_"), replace=True)
    # Any knob may stand below a stage; which ones do is checked by the family.
    stages = OmegaConf.create({"stages": {"easy": {}, "hard": {}}})
    for node in (stages.stages, stages.stages.easy, stages.stages.hard):
        OmegaConf.set_struct(node, False)
    ConfigStore.instance().store(name="stages", node=stages, replace=True)

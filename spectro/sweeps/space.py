"""What is searched and what stays: from a sweeper's file and the command line to the configuration of a trial."""

import copy
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from spectro.config.check import Config, check
from spectro.errors import ConfigError
from spectro.files import write_text
from spectro.paths import CONF, short

# Keys that say how a search goes on and not what is fitted.
SWEEP_KEYS = ("n_trials", "study", "storage", "n_jobs", "sweep")


class Space:
    """The searched keys with their distributions, and everything that is the same in all trials.

    Args:
        loader: Hydra's configuration loader.
        master: What Hydra composed for the whole command.
        params: Override grammar by key, as ``hydra.sweeper.params`` holds it.
        arguments: The command line's overrides; they win over ``params``.

    Attributes:
        distributions: Key -> Optuna distribution.
        fixed: Overrides that all trials share.

    Raises:
        ConfigError: Nothing is searched, or not every value of a searched key is allowed.
    """

    def __init__(self, loader: Any, master: DictConfig, params: Mapping[str, Any], arguments: Sequence[str]):
        from hydra_plugins.hydra_optuna_sweeper._impl import create_optuna_distribution_from_override

        self._loader = loader
        self._master = master
        self.distributions: dict[str, Any] = {}
        self.fixed: list[str] = []
        given = [f"{key}={value}" for key, value in params.items()]
        self._parser = OverridesParser.create()
        for override in self._parser.parse_overrides([*given, *arguments]):
            key = override.get_key_element()
            if override.is_sweep_override():
                try:
                    self.distributions[key] = create_optuna_distribution_from_override(override)
                except (ValueError, NotImplementedError) as error:
                    found = override.get_value_element_as_str()
                    raise ConfigError(f"{key}: got {found}; allowed: what can be searched ({error})") from error
                continue
            self.distributions.pop(key.lstrip("+"), None)
            self.fixed.append(str(override.input_line))
        if not self.distributions:
            raise ConfigError(
                "sweeper: nothing is searched; allowed: sweeper=NAME, or a key such as 'svm.C=interval(0.1,100)'"
            )
        self._base = self._full([])
        check(self._base)
        self._suffix = dict(self._base.sweep.suffix)
        groups = set(OmegaConf.to_container(master.hydra.runtime.choices))  # type: ignore[arg-type]
        # A searched group brings other keys: then every trial is composed from its files.
        self._is_plain = not any(key in groups or "/" in key or "@" in key for key in self.distributions)
        # The final run has a seed of its own.
        self._varied = {"seed", *(key.split(".")[0] for key in self.distributions)}
        self._texts: dict[str, str] = {}
        self._check_ends()

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """A trial's parameters as overrides."""
        return [f"{key}={self._text(key, value)}" for key, value in params.items()]

    def shown(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """A trial's parameters as a person reads them: a unit that is written behind a number stands in its name."""
        return {f"{key} {self._suffix_of(key)}".strip(): value for key, value in params.items()}

    def config(self, params: Mapping[str, Any], **changes: Any) -> DictConfig:
        """The composed configuration of a trial.

        Args:
            params: The trial's parameters.
            changes: Keys to set besides.
        """
        overrides = self.overrides(params)
        if self._is_plain:
            cfg = copy.deepcopy(self._base)
            for override in self._parser.parse_overrides(overrides):
                OmegaConf.update(cfg, override.get_key_element(), override.value())
        else:
            cfg = self._full(overrides)
        for key, value in changes.items():
            OmegaConf.update(cfg, key, value)
        return cfg

    def alone(self, params: Mapping[str, Any], **changes: Any) -> DictConfig:
        """The same without a word of the search: a run of its own."""
        return _alone(self.config(params, **changes))

    def settings(self, config: Config, sampler: Any) -> dict[str, Any]:
        """Whatever makes two trials comparable: dotted key -> value."""
        # Where things lie and how many there shall be changes no trial.
        left_out = {*SWEEP_KEYS, "outputs", "tracking"}
        flat = dict(_flatten({k: v for k, v in config.raw.items() if k not in left_out}))
        flat = {key: value for key, value in flat.items() if key not in self.distributions}
        flat = {key: value for key, value in flat.items() if not key.startswith(("data.cache_", "device"))}
        flat |= {f"sweep.{key}": getattr(config.sweep, key) for key in ("prune", "warmup_epochs", "startup_trials")}
        searched = {f"{key} (searched)": str(distribution) for key, distribution in self.distributions.items()}
        return {**flat, **searched, "sweep.suffix": self._suffix, "sampler": sampler}

    def save(self, run_dir: Path, cfg: DictConfig, params: Mapping[str, Any]) -> None:
        """Writes what Hydra would write into a job's ``.hydra/``."""
        folder = run_dir / ".hydra"
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "config.yaml", "".join(self._yaml(str(key), cfg) for key in cfg if key not in SWEEP_KEYS))
        # Not how the search goes on: an address may have a password in it.
        fixed = [word for word in self.fixed if word.lstrip("+~").split("=")[0].split(".")[0] not in SWEEP_KEYS]
        OmegaConf.save(OmegaConf.create([*fixed, *self.overrides(params)]), folder / "overrides.yaml")

    def save_best(self, folder: Path, cfg: DictConfig, what: str) -> None:
        """Writes ``best_config.yaml``: the configuration with all its values, to be run again by its name."""
        own = OmegaConf.load(CONF / "config.yaml").hydra
        lines = [
            f"# {what}",
            f"# python train.py --config-dir {shlex.quote(short(folder))} --config-name best_config",
            "defaults:",
            "  - stages",
            "  - override hydra/job_logging: to_file",
            "  - _self_",
            "",
            OmegaConf.to_yaml(cfg),
            OmegaConf.to_yaml(OmegaConf.create({"hydra": own})),
        ]
        write_text(folder / "best_config.yaml", "\n".join(lines))

    def _yaml(self, key: str, cfg: DictConfig) -> str:
        """A top-level key of a configuration as YAML; writing it takes its time, and most are those of every trial."""
        if not self._is_plain or key in self._varied:
            return OmegaConf.to_yaml(OmegaConf.masked_copy(cfg, key))
        if key not in self._texts:
            self._texts[key] = OmegaConf.to_yaml(OmegaConf.masked_copy(cfg, key))
        return self._texts[key]

    def _full(self, overrides: Sequence[str]) -> DictConfig:
        cfg = self._loader.load_sweep_config(self._master, [*self.fixed, *overrides])
        cfg = copy.deepcopy(cfg)
        with open_dict(cfg):
            del cfg["hydra"]
        return cfg

    def _suffix_of(self, key: str) -> str:
        return self._suffix.get(re.sub(r"^stages\.\w+\.", "", key), "")

    def _text(self, key: str, value: Any) -> str:
        if value is None:
            return "null"
        suffix = self._suffix_of(key)
        return f"{value}{suffix if isinstance(value, int | float) and not isinstance(value, bool) else ''}"

    def _check_ends(self) -> None:
        """Each searched key at its ends, the others at their first: a search must not find out at its tenth trial."""
        first = {key: next(iter(_ends(distribution))) for key, distribution in self.distributions.items()}
        # Composed by Hydra from the files, which knows what to say of a key that is not there.
        check(self._full(self.overrides(first)))
        for key, distribution in self.distributions.items():
            for value in _ends(distribution):
                try:
                    check(self.config({**first, key: value}))
                except ConfigError as error:
                    raise ConfigError(f"{error}\n(searched: {key}={distribution})") from error


def _alone(cfg: DictConfig) -> DictConfig:
    """Without a word of the search."""
    return OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key not in SWEEP_KEYS])


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as sections: ``{"svm.C": 1}`` gives ``{"svm": {"C": 1}}``; one below another key stays dotted."""
    tree: dict[str, Any] = {}
    for key, value in sorted(flat.items()):
        *sections, last = key.split(".")
        here: Any = tree
        for section in sections:
            here = here.setdefault(section, {}) if isinstance(here, dict) else None
        if isinstance(here, dict):
            here[last] = value
        else:
            tree[key] = value
    return tree


def quoted(text: str) -> str:
    """Text as Hydra's override grammar takes it whatever it holds."""
    return "'" + text.replace("'", "\\'") + "'"


def _ends(distribution: Any) -> Iterable[Any]:
    choices = getattr(distribution, "choices", None)
    return choices if choices is not None else (distribution.low, distribution.high)


def _flatten(node: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value

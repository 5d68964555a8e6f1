"""The search space: from a sweeper's file and the command line to the configuration of a trial."""

import copy
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from spectro.config.check import Config, check
from spectro.config.received import to_type
from spectro.config.schema import Common
from spectro.errors import ConfigError
from spectro.files import write_text
from spectro.paths import CONF, flatten, in_shell, redact, short

# Keys that control a search and not what is fitted.
SWEEP_KEYS = ("n_trials", "study", "storage", "n_jobs", "sweep")
# The tag of a range whose numbers are multiples, as svm.gamma takes them: 0.5 is passed on as 0.5x.
_MULTIPLE = "x"


class Space:
    """The searched keys with their distributions, and the overrides that are the same in all trials.

    They are read by Hydra's loader from the configuration of the whole command and its arguments, which have precedence
    over ``hydra.sweeper.params``.

    Attributes:
        distributions: Key -> Optuna distribution.
        fixed: Overrides that all trials share.

    Raises:
        ConfigError: Nothing is searched, or not every value of a searched key is allowed.
    """

    def __init__(self, loader: Any, master: DictConfig, arguments: Sequence[str]):
        self._loader = loader
        self._master = master
        self._parser = OverridesParser.create()
        self.distributions: dict[str, Any] = {}
        self.fixed: list[str] = []
        self._multiples: set[str] = set()
        params = [f"{key}={value}" for key, value in (master.hydra.sweeper.params or {}).items()]
        for override in self._parser.parse_overrides([*params, *arguments]):
            key = override.get_key_element()
            self._multiples.discard(key)
            if override.is_sweep_override():
                self.distributions[key] = _distribution(key, override)
                if _MULTIPLE in getattr(override.value(), "tags", ()):
                    self._multiples.add(key)
            else:
                self.distributions.pop(key.lstrip("+"), None)
                self.fixed.append(str(override.input_line))
        if not self.distributions:
            raise ConfigError(
                "sweeper: nothing is searched; allowed: sweeper=NAME, or a key such as 'svm.C=interval(0.1,100)'"
            )
        self._base = self._composed([])
        check(self._base)
        # An option of a group brings other keys: then every trial is composed from the files, which takes 0.1 s.
        groups = set(OmegaConf.to_container(master.hydra.runtime.choices))  # type: ignore[arg-type]
        self._searches_group = any(key in groups or "/" in key or "@" in key for key in self.distributions)
        self._check_ends()

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """A trial's parameters as overrides."""
        texts = {key: "null" if value is None else str(value) for key, value in params.items()}
        return [f"{key}={text}{_MULTIPLE if key in self._multiples else ''}" for key, text in texts.items()]

    def shown(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """A trial's parameters for people and MLflow: a multiple has the ``x`` in its name."""
        return {f"{key} {_MULTIPLE}" if key in self._multiples else key: value for key, value in params.items()}

    def config(self, params: Mapping[str, Any]) -> DictConfig:
        """The composed configuration of a trial."""
        if self._searches_group:
            return self._composed(self.overrides(params))
        cfg = copy.deepcopy(self._base)
        for override in self._parser.parse_overrides(self.overrides(params)):
            OmegaConf.update(cfg, override.get_key_element(), override.value())
        return cfg

    def start(self) -> dict[str, Any]:
        """The searched keys' values without a search, mostly the defaults; of those that the space has."""
        start = {}
        for key, distribution in self.distributions.items() if not self._searches_group else []:
            value = OmegaConf.select(self._base, key)
            if choices := getattr(distribution, "choices", ()):
                if same := [c for c in choices if OmegaConf.select(self.config({key: c}), key) == value]:
                    start[key] = same[0]
                continue
            text = str(value).removesuffix(_MULTIPLE if key in self._multiples else "")
            with suppress(ValueError):  # null, or a word
                if distribution._contains(float(text)):
                    start[key] = distribution.to_external_repr(float(text))
        return start

    def member(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """A trial as one of ``ensemble.settings``: the searched keys; all sections of a searched model."""
        cfg = self.config(params)
        values = {key: OmegaConf.select(cfg, key) for key in self.distributions}
        if "model" in values:
            sections = {str(key): cfg[key] for key in cfg if key not in Common.model_fields}
            values = {**values, **sections, "model": cfg.model.name}
        tree: Any = OmegaConf.to_container(OmegaConf.create(nested(values)), resolve=True)
        return tree

    def settings(self, config: Config, sampler: Any) -> dict[str, Any]:
        """Whatever makes two trials comparable: dotted key -> value."""
        # Neither where files are nor how many trials there are changes a trial.
        left_out = (*SWEEP_KEYS, "outputs", "tracking.", "data.cache_", "device", "figures")
        settings = {key: value for key, value in flatten(config.raw).items() if not key.startswith(left_out)}
        settings |= {f"sweep.{key}": getattr(config.sweep, key) for key in ("prune", "warmup_epochs", "startup_trials")}
        for key, distribution in self.distributions.items():
            settings.pop(key, None)
            settings[f"{key} (searched)"] = f"{distribution}{_MULTIPLE if key in self._multiples else ''}"
        return {**settings, "sampler": sampler}

    def save(self, run_dir: Path, cfg: DictConfig, params: Mapping[str, Any]) -> None:
        """Writes a job's ``.hydra/`` without the search's keys: a database's address may have a password in it."""
        folder = run_dir / ".hydra"
        folder.mkdir(parents=True, exist_ok=True)
        fixed = [word for word in self.fixed if word.lstrip("+~").split("=")[0].split(".")[0] not in SWEEP_KEYS]
        write_text(folder / "config.yaml", OmegaConf.to_yaml(without_search(cfg), resolve=True))
        write_text(folder / "overrides.yaml", OmegaConf.to_yaml(OmegaConf.create([*fixed, *self.overrides(params)])))

    def _composed(self, overrides: Sequence[str]) -> DictConfig:
        cfg = copy.deepcopy(self._loader.load_sweep_config(self._master, [*self.fixed, *overrides]))
        with open_dict(cfg):
            del cfg["hydra"]
        return cfg

    def _check_ends(self) -> None:
        """Checks each searched key at its ends, so that a search does not fail at its tenth trial."""
        ends = {key: getattr(d, "choices", None) or (d.low, d.high) for key, d in self.distributions.items()}
        first = {key: values[0] for key, values in ends.items()}
        try:
            cfg = self.config(first)
        except OmegaConfBaseException:
            cfg = self._composed(self.overrides(first))  # Hydra's error about an unknown key can be explained
        check(cfg)
        for key, distribution in self.distributions.items():
            for value in ends[key]:
                try:
                    check(self.config({**first, key: value}))
                except ConfigError as error:
                    raise ConfigError(f"{error}\n(searched: {key}={distribution})") from error


def without_search(cfg: DictConfig) -> DictConfig:
    """A configuration without the search's keys, as a run of its own has it."""
    return OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key not in SWEEP_KEYS])


def write_best(folder: Path, cfg: DictConfig, config: Config, line: str) -> str:
    """Writes ``best_config.yaml``, a configuration with all its values, and a line about it; returns its command."""
    words = ["--config-dir", short(folder), "--config-name", "best_config", *to_type(config.raw, folder)]
    command = redact(in_shell(["spectro", "train", *words]))
    lines = [
        f"# {line}",
        f"# {command}",
        "defaults:",
        "  - stages",
        "  - override hydra/job_logging: to_file",
        "  - override hydra/hydra_logging: silent",
        "  - _self_",
        "",
        OmegaConf.to_yaml(cfg),
        OmegaConf.to_yaml(OmegaConf.create({"hydra": OmegaConf.load(CONF / "config.yaml").hydra})),
    ]
    write_text(folder / "best_config.yaml", "\n".join(lines))
    return command


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as sections: ``{"svm.C": 1}`` gives ``{"svm": {"C": 1}}``; a key below another stays dotted."""
    tree: dict[str, Any] = {}
    for key, value in sorted(flat.items()):
        *sections, last = key.split(".")
        node: Any = tree
        for section in sections:
            node = node.setdefault(section, {}) if isinstance(node, dict) else None
        if isinstance(node, dict):
            node[last] = value
        else:
            tree[key] = value
    return tree


def in_words(distribution: Any) -> str:
    """A distribution for people: ``8, 16, 32`` or ``0.01 to 1000, log``."""
    if hasattr(distribution, "choices"):
        return ", ".join(map(str, distribution.choices))
    step = "" if distribution.step in (None, 1) else f", step {distribution.step:g}"
    return f"{distribution.low:g} to {distribution.high:g}{', log' if distribution.log else ''}{step}"


def _distribution(key: str, override: Any) -> Any:
    """The Optuna distribution of a sweep override, by the official plugin."""
    from hydra_plugins.hydra_optuna_sweeper._impl import create_optuna_distribution_from_override

    try:
        return create_optuna_distribution_from_override(override)
    except (ValueError, NotImplementedError, AssertionError) as error:
        allowed = f"choice(...), range(...), interval(...), tag(log, interval(...)) above 0 ({error})"
        raise ConfigError(f"{key}: got {str(override.input_line).partition('=')[2]}; allowed: {allowed}") from error

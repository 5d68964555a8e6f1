"""One message for a user error: the key, the value and what is allowed."""

import errno
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import yaml
from hydra.errors import OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from spectro.config.groups import CONFIG, Composition, Groups, search_path
from spectro.errors import ConfigError, SpectroError
from spectro.knobs import did_you_mean

# Launchers that Hydra brings in packages of their own -> the extra of spectro that installs them.
_EXTRAS = {"joblib": "joblib", "ray": "ray", "ray_aws": "ray", "submitit_local": "slurm", "submitit_slurm": "slurm"}
# The same for packages that are imported where they are used.
_PACKAGES = {"cmaes": "cmaes", "psycopg": "postgres"}
# Their options set sections that options of other groups bring.
_RECIPES = ("experiment", "sweeper")


def explain(error: Exception, overrides: Sequence[str], groups: Groups | None = None, name: str = CONFIG) -> str | None:
    """The message for a user error; None for any other.

    Args:
        error: The error.
        overrides: The overrides of the command line.
        groups: The configuration groups; None: those of the command line's search path.
        name: The primary configuration.
    """
    groups = groups or Groups(search_path(overrides))
    if isinstance(error, SpectroError):
        return (conflict(overrides, groups, name) if isinstance(error, ConfigError) else None) or str(error)
    text = str(error).strip()
    if isinstance(error, ValueError) and text.startswith("Config group override must be"):
        return _not_an_option(overrides, groups)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error.filename or 'the disk'}: {error.strerror}"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{mark.name}, line {mark.line + 1}: invalid YAML ({error.problem})"
    if isinstance(error, ModuleNotFoundError) and error.name in _PACKAGES:
        return f"{error.name} is not installed; pip install 'spectro[{_PACKAGES[error.name]}]'"
    if not type(error).__module__.startswith(("hydra.", "omegaconf.")):
        return None
    if isinstance(error, OverrideParseException):
        key, _, value = error.override.partition("=")
        return (
            f"{key}: cannot parse {value!r}; expected KEY=VALUE with closed brackets; quote the whole word if it has "
            "brackets, braces or spaces: 'KEY={a: [b, c]}'; quote the value twice if it has other characters than "
            "letters, digits and -_./:+%@: \"KEY='VALUE'\""
        )
    if several := re.match(r"(?:Ambiguous value for argument|Sweep parameters) '(.+?)=(.*)'", text):
        key, value = several.groups()
        return f"{key}: got several values, {value!r}; for a multirun add --multirun, for a list write {key}=[...]"
    if unknown := re.match(r"Could not override '([^']+)'", text):
        # Where a whole section was given, only the cause has the key in it that is unknown.
        inner = getattr(error.__cause__, "full_key", None) or ""
        given = unknown[1].lstrip("+~")
        return _unknown_key(given, inner if inner.startswith(f"{given}.") else given, overrides, groups, name)
    if (engine := re.search(r"Could not (?:find|load) 'hydra/launcher/(\w+)'", text)) and engine[1] in _EXTRAS:
        return f"hydra/launcher: {engine[1]} is not installed; pip install 'spectro[{_EXTRAS[engine[1]]}]'"
    missing = r"Could not find '([^']+)'\s+Available options in '[^']+':\s+(.*?)(?:\nConfig|$)"
    if option := re.search(missing, text, re.DOTALL):
        group, _, value = option[1].rpartition("/")
        return _no_option(group, value, option[2].split())
    if isinstance(error, OmegaConfBaseException):
        return f"{error.full_key or 'config'}: {text.splitlines()[0]}"
    return " ".join(text.splitlines()[:2])


@contextmanager
def explained(overrides: Sequence[str], groups: Groups, name: str = CONFIG) -> Iterator[None]:
    """Turns every user error inside into a ConfigError with the message of `explain`."""
    try:
        yield
    except Exception as error:
        message = explain(error, overrides, groups, name)
        if message is None:
            raise
        raise ConfigError(message) from error


def conflict(overrides: Sequence[str], groups: Groups, name: str = CONFIG) -> str | None:
    """The message about a recipe or search space for another model: it sets sections that the chosen one lacks."""
    try:
        composition = groups.composition(overrides, name)
    except Exception:
        return None
    for group in _RECIPES:
        option = composition.choices.get(group)
        recipe = [file for file in composition.files if file[0] == f"{group}/{option}"]
        lacking = _sections(groups, recipe) - _sections(groups, composition.files, but=_RECIPES)
        if lacking:
            models = [
                model
                for model in groups.options("model")
                if lacking <= _sections(groups, _with(overrides, "model", model, groups, name).files, but=_RECIPES)
            ]
            return (
                f"model: got {composition.choices.get('model')!r}; allowed with {group}={option}: "
                f"{', '.join(models) or 'none'} (it {'searches' if group == 'sweeper' else 'sets'} "
                f"{', '.join(sorted(lacking))})"
            )
    return None


def _sections(groups: Groups, files: Sequence[tuple[str, str]], but: Sequence[str] = ()) -> set[str]:
    """The top-level keys that files set or search; files of the groups ``but`` are left out."""
    keys = groups.keys([file for file in files if file[0].partition("/")[0] not in but])
    return {key.removeprefix("hydra.sweeper.params.").strip('"').split(".")[0] for key in keys}


def _with(overrides: Sequence[str], group: str, option: str, groups: Groups, name: str) -> Composition:
    """The files that are selected with another option of a group; none if that cannot be composed."""
    try:
        return groups.composition([*_without(overrides, group), f"{group}={option}"], name)
    except Exception:
        return Composition({}, [])


def _without(overrides: Sequence[str], key: str) -> list[str]:
    return [word for word in overrides if word.lstrip("+~").partition("=")[0] != key]


def _no_option(group: str, value: str, options: Sequence[str]) -> str:
    public = [option for option in options if not option.startswith("_")]
    return f"{group}: got {value!r}; allowed: {', '.join(public)}{did_you_mean(value, public, '')}"


def _not_an_option(overrides: Sequence[str], groups: Groups) -> str:
    """The message about a group that got something other than the name of an option."""
    for word in overrides:
        group, _, value = word.partition("=")
        options = groups.options(group) if group else []
        if options and value not in options:
            return _no_option(group, value, options)
        if not group:
            return f"got {word!r}; expected KEY=VALUE"
    return f"got {' '.join(overrides)}; expected GROUP=OPTION KEY=VALUE ..."


def _unknown_key(given: str, key: str, overrides: Sequence[str], groups: Groups, name: str) -> str:
    """The message about a key that the composed configuration does not have; ``given`` is it or a section above it."""
    others = _without(overrides, given)
    value = next((word.partition("=")[2] for word in overrides if word not in others), "")
    if key.startswith("hydra."):
        return f"{key}: unknown key (got {value}); allowed: what --cfg hydra shows"
    try:
        node = groups.compose(others, name)
        composition = groups.composition(others, name)
    except Exception:
        # Something else is wrong as well; this key is still worth naming.
        return f"{key}: unknown key (got {value})"
    parent: list[str] = []
    for part in key.split("."):
        if not isinstance(node, DictConfig) or part not in node:
            break
        node = node[part]
        parent.append(part)
    allowed = sorted(str(k) for k in node if k != "hydra") if isinstance(node, DictConfig) else []
    wrong = key.split(".")[len(parent)]
    hint = did_you_mean(wrong, allowed, ".".join(parent))
    if parent[:1] == ["mapping"] and len(parent) > 1:
        hint = f"; +{key}=... adds one, ~{'.'.join(parent)}.KEY removes one"
    elif owners := _owners(key, [parent[0]] if parent else [], others, composition, groups, name):
        hint = f"; {wrong} belongs to {' or '.join(owners)}"
    group = next(
        (
            path.partition("/")[0]
            for k, path in groups.keys(composition.files).items()
            if k.startswith(f"{'.'.join(parent)}.")
        ),
        "model",
    )
    under = f" under {group}={composition.choices[group]}" if group in composition.choices else ""
    return f"{key}: unknown key{under} (got {value}); allowed: {', '.join(allowed) or 'none'}{hint}"


def _owners(
    key: str, section: list[str], overrides: Sequence[str], now: Composition, groups: Groups, name: str
) -> list[str]:
    """The options, as ``model=hog_svm``, that have a key."""
    candidates = [group for group in now.choices if group not in _RECIPES and section in ([], [group])]
    for pattern in (key,) if section else (key, key.split(".")[0]):
        for group in candidates:
            owners = []
            for option in groups.options(group):
                keys = groups.keys(_with(overrides, group, option, groups, name).files)
                if any(f"{k}.".startswith(f"{pattern}.") for k in keys):
                    owners.append(f"{group}={option}")
            if owners:
                return owners
    return []

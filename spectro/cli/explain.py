"""One message for a user error: the key, the value and what is allowed."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import yaml
from hydra.errors import OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from spectro.cli.near_miss import RECIPES, Corrections
from spectro.config.groups import Composition, Groups, groups_on, search_path
from spectro.errors import ConfigError, SpectroError
from spectro.files import is_disk_full
from spectro.knobs import did_you_mean, not_allowed

# What is installed by an extra of spectro: launchers that Hydra finds in packages, and packages that are imported.
_EXTRAS = {"joblib": "joblib", "ray": "ray", "ray_aws": "ray", "submitit_local": "slurm", "submitit_slurm": "slurm"}
_EXTRAS |= {"cmaes": "cmaes", "psycopg": "postgres", "cleanlab": "audit"}
_EXTRAS |= dict.fromkeys(("onnx", "onnxruntime", "onnxscript"), "export")


def explain(error: Exception, overrides: Sequence[str], groups: Groups | None = None) -> str | None:
    """The message for a user error, one of the command line's overrides among them; None for any other."""
    groups = groups or groups_on(*search_path(overrides))
    text = _message(error, overrides, groups)
    return text and "\n".join(_corrected(line, overrides, groups) for line in text.split("\n"))


def _corrected(line: str, overrides: Sequence[str], groups: Groups) -> str:
    """A line of a message, which begins with a key, and what was probably meant."""
    words = [word for word in overrides if _key(word) == line.partition(":")[0] or line.startswith(f"got {word!r};")]
    try:
        meant = Corrections(overrides, groups).of(words[0]) if words else ""
    except Exception:
        return line  # the groups themselves are damaged
    return f"{re.sub('; did you mean .*', '', line)}; did you mean {meant}?" if meant else line


def _message(error: Exception, overrides: Sequence[str], groups: Groups) -> str | None:
    """`explain` without what was meant."""
    text = str(error).strip()
    if isinstance(error, SpectroError):
        return (conflict(overrides, groups) if isinstance(error, ConfigError) else None) or text
    if is_disk_full(error):
        file = getattr(error, "filename", None)
        return f"{file}: the disk is full" if file else f"outputs: the disk is full ({text})"
    if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark):
        return f"{mark.name}, line {mark.line + 1}: invalid YAML ({error.problem})"
    if type(error).__name__ in ("DatabaseError", "OperationalError", "StorageInternalError"):  # of a study
        return f"storage: {text.splitlines()[0]}; allowed: a database that is not damaged"
    if isinstance(error, ModuleNotFoundError) and error.name in _EXTRAS:
        return _not_installed(error.name)
    if isinstance(error, ValueError) and text.startswith("Config group override must be"):
        return _not_an_option(overrides, groups) or text
    if isinstance(error, OverrideParseException):
        key, is_pair, value = error.override.partition("=")
        if not is_pair:
            return f"got {key!r}; expected KEY=VALUE"
        return (
            f"{key}: cannot parse {value!r}; expected KEY=VALUE with closed brackets; quote the whole word if it has "
            "brackets, braces or spaces: 'KEY={a: [b, c]}'; quote the value twice if it has other characters than "
            "letters, digits and -_./:+%@: \"KEY='VALUE'\""
        )
    if not type(error).__module__.startswith(("hydra.", "omegaconf.")):
        return None
    if several := re.match(r"(?:Ambiguous value for argument|Sweep parameters) '(.+?)=(.*)'", text):
        key, value = several.groups()
        return f"{key}: got several values, {value!r}; for a multirun add --multirun, for a list write {key}=[...]"
    if unknown := re.match(r"Could not override '([^']+)'", text):
        # Where a whole section was given, only the cause has the key in it that is unknown.
        key, inner = unknown[1].lstrip("+~"), getattr(error.__cause__, "full_key", None) or ""
        return _unknown_key(key, inner if inner.startswith(f"{key}.") else key, overrides, groups)
    if (launcher := re.search(r"Could not (?:find|load) 'hydra/launcher/(\w+)'", text)) and launcher[1] in _EXTRAS:
        return f"hydra/launcher: {_not_installed(launcher[1])}"
    if unfit := re.match(r"Error merging override (\S+?)=(.*)", text):
        return f"{unfit[1]}: got {unfit[2]}; allowed: a section with keys"
    missing = r"Could not find '([^']+)/([^'/]+)'\s+Available options in '[^']+':\s+(.*?)(?:\nConfig|$)"
    if option := re.search(missing, text, re.DOTALL):
        # A value with slashes looks like a deeper group.
        typed = [word.partition("=") for word in overrides if word.replace("=", "/", 1) == f"{option[1]}/{option[2]}"]
        group, _, value = typed[0] if typed else (option[1], "", option[2])
        return not_allowed(group, value, [name for name in option[3].split() if not name.startswith("_")])
    if isinstance(error, OmegaConfBaseException):
        return f"{error.full_key or 'config'}: {text.splitlines()[0]}"
    return " ".join(text.splitlines()[:2])


@contextmanager
def explained(overrides: Sequence[str], groups: Groups) -> Iterator[None]:
    """Turns every user error inside into a ConfigError with the message of `explain`."""
    try:
        yield
    except Exception as error:
        message = explain(error, overrides, groups)
        if message is None:
            raise
        raise ConfigError(message) from error


def conflict(overrides: Sequence[str], groups: Groups) -> str | None:
    """The message about a recipe or search space for another model: it sets sections that the chosen one lacks."""
    try:
        choices, files = groups.composition(overrides)
        present = _sections(groups.keys(file for file in files if file[0].split("/")[0] not in RECIPES))
        for group in [group for group in RECIPES if group in choices]:
            option = choices[group]
            lacking = _sections(groups.keys_of(group, option)) - present
            models = [m for m in groups.options("model") if lacking <= _sections(groups.keys_of("model", m))]
            if lacking and models:
                return (
                    f"model: got {choices['model']!r}; allowed with {group}={option}: {', '.join(models)} "
                    f"(it {'searches' if group == 'sweeper' else 'sets'} {', '.join(sorted(lacking))})"
                )
    except Exception:
        pass  # it cannot be composed: the message is another one
    return None


def _sections(keys: Iterable[str]) -> set[str]:
    """The top-level keys that are set or searched."""
    return {key.removeprefix("hydra.sweeper.params.").strip('"').split(".")[0] for key in keys}


def _not_installed(package: str) -> str:
    return f"{package} is not installed; pip install 'spectro[{_EXTRAS[package]}]'"


def _not_an_option(overrides: Sequence[str], groups: Groups) -> str | None:
    """The message about a group that got something other than the name of an option."""
    for word in overrides:
        group, _, value = word.partition("=")
        if not group:
            return f"got {word!r}; expected KEY=VALUE"
        if (options := groups.options(group)) and value not in options:
            return not_allowed(group, value, options)
    return None


def _unknown_key(given: str, key: str, overrides: Sequence[str], groups: Groups) -> str:
    """The message about a key that the configuration lacks; ``given`` is the key or a section above it."""
    value = next((word.partition("=")[2] for word in overrides if _key(word) == given), "")
    if key.startswith("hydra."):
        return f"{key}: unknown key (got {value}); allowed: what --cfg hydra shows"
    others = [word for word in overrides if _key(word) != given]
    try:
        node, composition = groups.compose(others), groups.composition(others)
    except Exception:
        return f"{key}: unknown key (got {value})"  # something else is invalid as well
    *parts, wrong = key.split(".")
    parent = ""
    for part in parts:
        if not isinstance(node, DictConfig) or part not in node:
            wrong = part
            break
        node, parent = node[part], f"{parent}.{part}".lstrip(".")
    allowed = sorted(str(k) for k in node if k != "hydra") if isinstance(node, DictConfig) else []
    if parent.startswith("mapping."):
        hint = f"; +{key}=... adds one, ~{parent}.KEY removes one"
    elif owners := _owners(key, parent, composition, groups):
        hint = f"; {wrong} belongs to {' or '.join(owners)}"
    else:
        hint = did_you_mean(wrong, allowed, parent)
    paths = (path for k, path in groups.keys(composition.files).items() if k.startswith(f"{parent}."))
    group = next(paths, "model/").split("/")[0]
    under = f" under {group}={composition.choices[group]}" if group in composition.choices else ""
    return f"{key}: unknown key{under} (got {value}); allowed: {', '.join(allowed) or 'none'}{hint}"


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]


def _owners(key: str, parent: str, composition: Composition, groups: Groups) -> list[str]:
    """The options, as ``model=hog_svm``, that have a key, or its section where there is none."""
    section = parent.split(".")[0]
    candidates = [group for group in composition.choices if group not in RECIPES and section in ("", group)]
    options = {f"{g}={option}": groups.keys_of(g, option) for g in candidates for option in groups.options(g)}
    for pattern in [key] if section else [key, key.split(".")[0]]:
        if owners := [name for name, keys in options.items() if any(f"{k}.".startswith(f"{pattern}.") for k in keys)]:
            return owners
    return []

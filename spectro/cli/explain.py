"""One message for what a user can mend: the key, what was found and what is allowed."""

import errno
import re
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from spectro.errors import SpectroError
from spectro.paths import CONF

_GRAMMAR = (
    "KEY=VALUE, brackets closed; with braces, brackets or spaces the whole word in quotes, 'KEY={a: [b, c]}'; other "
    "characters than letters, digits and -_./:+%@ in two pairs of them, \"KEY='VALUE'\""
)

# Hydra's launchers that do not come with it -> what installs them.
_EXTRAS = {"joblib": "joblib", "ray": "ray", "ray_aws": "ray", "submitit_local": "slurm", "submitit_slurm": "slurm"}


def explain(error: Exception, arguments: list[str]) -> str | None:
    """The message for an error that the user can mend; None for any other."""
    if isinstance(error, SpectroError):
        return str(error)
    text = str(error).strip()
    if isinstance(error, ValueError) and text.startswith("Config group override must be"):
        return _not_an_option(arguments)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error.filename or 'the disk'}: {error.strerror}"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{mark.name}, line {mark.line + 1}: not valid YAML ({error.problem})"
    if not type(error).__module__.startswith(("hydra.", "omegaconf.")):
        return None
    if isinstance(error, OverrideParseException):
        key, _, value = error.override.partition("=")
        return f"{key}: got {value!r}; allowed: {_GRAMMAR}"
    if several := re.match(r"(?:Ambiguous value for argument|Sweep parameters) '(.+?)=(.*)'", text):
        return (
            f"{several[1]}: got {several[2]!r}; allowed: one value; several of them with --multirun, "
            f"a list as {several[1]}=[...], a comma of your own in quotes"
        )
    if unknown := re.match(r"Could not override '([^']+)'", text):
        # Where a whole section was given, only the cause says which key in it is unknown.
        inner = getattr(error.__cause__, "full_key", None) or ""
        given = unknown[1].lstrip("+~")
        return _unknown_key(given, inner if inner.startswith(f"{given}.") else given, arguments)
    if (engine := re.search(r"Could not (?:find|load) 'hydra/launcher/(\w+)'", text)) and engine[1] in _EXTRAS:
        extra = f"spectro[{_EXTRAS[engine[1]]}]"
        return f"hydra/launcher: got {engine[1]!r}, which is not installed; allowed after pip install '{extra}'"
    missing = r"Could not find '([^']+)'\s+Available options in '[^']+':\s+(.*?)(?:\nConfig|$)"
    if option := re.search(missing, text, re.DOTALL):
        group, _, name = option[1].rpartition("/")
        return f"{group}: got {name!r}; allowed: {', '.join(o for o in option[2].split() if o[0] != '_')}"
    if isinstance(error, OmegaConfBaseException):
        return f"{error.full_key or 'config'}: {text.splitlines()[0]}"
    return " ".join(text.splitlines()[:2])


def _not_an_option(arguments: list[str]) -> str:
    """What to say of a group that was given something other than the name of an option."""
    for argument in arguments:
        group, _, value = argument.partition("=")
        options = sorted(path.stem for path in (CONF / group).glob("*.yaml")) if group else []
        if options and value not in options:
            return f"{group}: got {value!r}; allowed: {', '.join(options)}"
        if not group:
            return f"got {argument!r}; allowed: KEY=VALUE"
    return f"got {' '.join(arguments)}; allowed: GROUP=OPTION KEY=VALUE ..."


def _unknown_key(given: str, key: str, arguments: list[str]) -> str:
    """What to say of a key that the composed configuration does not have; ``given`` is it or a section above it."""
    from hydra import compose, initialize_config_dir

    from spectro.cli.help import groups
    from spectro.knobs import did_you_mean

    about = [a for a in arguments if a.lstrip("+~").startswith(f"{given}=")]
    value = next((a.partition("=")[2] for a in about), "")
    if key.startswith("hydra."):
        return f"{key}: unknown key (got {value}); allowed: what --cfg hydra shows"
    kept = [a for a in arguments if not a.startswith("-") and a not in about]
    try:
        with initialize_config_dir(str(CONF)):
            here: Any = compose("config", overrides=kept)
    except Exception:
        # Something else is wrong as well; this key is still worth naming.
        return f"{key}: unknown key (got {value})"
    chosen = groups() | {g: o for g, _, o in (a.partition("=") for a in arguments) if g in groups()}
    for group in ("experiment", "sweeper"):
        chosen.pop(group)  # they set what others bring
    top = key.split(".")[0]
    bringing = (g for g, option in chosen.items() if g == top or _brings(CONF / g / f"{option}.yaml", top))
    under = next((f"{g}={chosen[g]}" for g in bringing), f"model={chosen['model']}")
    parent: list[str] = []
    for part in key.split("."):
        if not isinstance(here, DictConfig) or part not in here:
            break
        here = here[part]
        parent.append(part)
    allowed = sorted(str(k) for k in here) if isinstance(here, DictConfig) else []
    wrong = ".".join(key.split(".")[len(parent) :])
    hint = did_you_mean(wrong.split(".")[0], allowed, ".".join(parent))
    if parent[:1] == ["mapping"] and len(parent) > 1:
        hint = f"; +{key}=... adds one, ~{'.'.join(parent)}.KEY takes one away"
    owners = [f"{g}={p.stem}" for g in chosen for p in sorted((CONF / g).glob("*.yaml")) if _brings(p, top)]
    if owners and not parent:
        hint = f"; {top} belongs to {' or '.join(owners)}"
    elif parent == [top] and top in chosen:
        others = [p.stem for p in sorted((CONF / top).glob("*.yaml")) if wrong in list(OmegaConf.load(p))]
        hint += f"; {wrong} belongs to {' or '.join(f'{top}={option}' for option in others)}" if others else ""
    return f"{key}: unknown key under {under} (got {value}); allowed: {', '.join(allowed) or 'none'}{hint}"


def _brings(path: Path, top: str) -> bool:
    """Whether an option of a group brings a section of its own."""
    return "@package _global_" in path.read_text(encoding="utf-8") and top in OmegaConf.load(path)

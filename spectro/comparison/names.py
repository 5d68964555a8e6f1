"""Short names of models: the family, and of the settings what differs and matters."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from spectro.comparison.load import Run
from spectro.config.check import model_defaults
from spectro.errors import ConfigError
from spectro.paths import flatten, setting, typed

# The settings of a model by dotted keys, see `spectro.comparison.models.settings_of`, and its runs.
Contender = tuple[Mapping[str, Any], Sequence[Run]]
MAJORITY = "majority class"
# More changed settings than these are in the table of settings and not in the name.
_MAX_KEYS = 2


def check_names(names: Sequence[str] | None, models: Sequence[Contender]) -> Sequence[str]:
    """The names that a user gives the models.

    Raises:
        ConfigError: Another number than there are models, or two that are equal.
    """
    if names is None:
        return ()
    names = [name.strip() for name in names]
    if len(names) != len(models) or len({*names} - {"", MAJORITY}) < len(names):
        unnamed = ", ".join(short_names(models))
        raise ConfigError(f"--names: got {', '.join(names)}; allowed: {len(models)} different names, for {unnamed}")
    return names


def short_names(models: Sequence[Contender], given: Sequence[str] = ()) -> list[str]:
    """Unique names: of the first models those that are given, of the others by what differs and matters.

    A name is that of the run (``name=``), else the option of ``model``; with another backbone than the option's
    default it is the family and the backbone. Behind it stand a search's trial and the number of members; and, where
    two models would have one name, as many as are needed of: the option, ``default`` or what was changed, the stage,
    the refit, the number of seeds, the settings that differ.
    """
    defaults = {option: flatten(model_defaults(option)) for option in {_option(*model) for model in models}}
    names = [*given, *(_base(*model, defaults[_option(*model)]) for model in models[len(given) :])]
    facets: list[Callable[[Mapping[str, Any], Sequence[Run]], str]] = [
        _option,
        lambda settings, runs: _state(settings, runs, defaults[_option(settings, runs)]),
        _stage,
        lambda settings, _: "refit" if settings["validation.refit"] else "train only",
        lambda _, runs: f"{len(runs)} seeds" if len(runs) > 1 else "",
    ]
    for facet in facets:
        for alike in _alike(names):
            values = {i: facet(*models[i]) for i in alike}
            if len(set(values.values())) > 1:
                if facet is _stage:  # a name without one would be taken for either
                    values = {i: facet(*models[i]) for i in range(len(given), len(models))}
                for i, value in values.items():
                    names[i] += f" {value}" if value and value not in names[i].split() else ""
    for alike in _alike(names):
        for i, text in zip(alike, _differences([models[i][0] for i in alike]), strict=True):
            names[i] += f" {text}" if text else ""
    return [f"{name} #{names[:i].count(name) + 1}" if names.count(name) > 1 else name for i, name in enumerate(names)]


def differing(settings: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The keys in which some of the settings differ or that some lack, each with its values as they are typed."""
    table = {key: [typed(values.get(key, "–")) for values in settings] for values in settings for key in values}
    return {key: values for key, values in table.items() if len(set(values)) > 1}


def _option(settings: Mapping[str, Any], _: Sequence[Run]) -> str:
    return str(settings["model.name"])


def _stage(settings: Mapping[str, Any], _: Sequence[Run]) -> str:
    return {"full": "cascade"}.get(stage := str(settings["cascade_stage.name"]), stage)


def _base(settings: Mapping[str, Any], runs: Sequence[Run], defaults: Mapping[str, Any]) -> str:
    if "name" in settings:
        name = str(settings["name"])
        return f"{name} ({settings['model.name']})" if name == MAJORITY else name
    config, tags, name = runs[0].info.config, runs[0].info.tags, str(settings["model.name"])
    for key in [key for key in defaults if key.endswith(".backbone")]:
        backbone = settings.get(key)
        if backbone not in (None, defaults[key]):
            # OWNER/NAME of a hub, a folder's path, or timm's name with the tag of its weights.
            name = f"{config['model']['family']} {re.split('[/:]', str(backbone).rstrip('/'))[-1].partition('.')[0]}"
    if "final" in tags:
        trials = tags["trial"].split()
        name += f" tuned (trial{'s' * (len(trials) > 1)} {', '.join(trials)})"
    members = settings.get("ensemble.members", 1)
    return f"{name}, {members} members" if members != 1 else name


def _state(settings: Mapping[str, Any], runs: Sequence[Run], defaults: Mapping[str, Any]) -> str:
    """``default``, or up to two settings that were changed; empty for more, for a search's and without defaults."""
    if "final" in runs[0].info.tags or not defaults:
        return ""
    changed = [
        key
        for key, value in settings.items()
        if (key in defaults and value != defaults[key] and not key.endswith((".weights", ".backbone")))
        or key.startswith("stages.")
    ]
    if not changed:
        return "default"
    return "" if len(changed) > _MAX_KEYS else ", ".join(setting(key, settings[key]) for key in changed)


def _alike(names: Sequence[str]) -> list[list[int]]:
    """The places of names that occur several times."""
    return [[i for i, n in enumerate(names) if n == name] for name, count in Counter(names).items() if count > 1]


def _differences(all_settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """For each the values of the fewest keys that tell them apart: those that tell most of them apart first."""
    table, chosen = differing(all_settings), list[str]()
    rows: list[tuple[str, ...]] = [() for _ in all_settings]
    while len(set(rows)) < len(rows) and len(chosen) < len(table):
        rest = [key for key in table if key not in chosen]
        best = max(rest, key=lambda key: len({(*row, value) for row, value in zip(rows, table[key], strict=True)}))
        chosen.append(best)
        rows = [(*row, value) for row, value in zip(rows, table[best], strict=True)]
    return [", ".join(setting(key, settings.get(key, "–")) for key in chosen) for settings in all_settings]

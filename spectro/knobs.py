"""Validation of settings: no unknown keys, no silent conversion of types, all problems in one message."""

import difflib
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from operator import attrgetter
from typing import Any, get_type_hints

import numpy as np
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model

from spectro.errors import ConfigError


class Section(BaseModel):
    """A group of settings."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=())


def validate(schema: Any, values: Any, prefix: str = "", context: str = "") -> Any:
    """Values as a pydantic model.

    Args:
        prefix: Stands before every key in a message.
        context: Stands behind "unknown key" in a message.

    Raises:
        ConfigError: One line for each invalid key: the dotted key, the value, what is allowed.
    """
    try:
        return TypeAdapter(schema).validate_python(values)
    except ValidationError as error:
        # A key that may be of several types gives one error for each of them.
        allowed: dict[str, dict[str, None]] = {}
        for problem in error.errors(include_url=False):
            head, tail = _line(problem, schema, values, prefix, context)
            allowed.setdefault(head, {})[tail] = None
        raise ConfigError("\n".join(head + " or ".join(tails) for head, tails in allowed.items())) from error


def build(cls: Any, values: Mapping[str, Any], prefix: str = "", context: str = "") -> Any:
    """An object from sections of a configuration, whose keys are declared by the constructor.

    The annotation of a keyword argument holds its type and range, and its dotted key as a text:
    ``cell_px: Annotated[int, "hog.cell_px", Field(ge=2)] = 8``. ``{family}`` in a key is the class's family; without a
    text the key is ``<family>.<argument>``, and with an empty one the argument is no key. An argument whose default has
    parameters of its own (``get_params``) is a section of them. Keys that are not in ``values`` have their defaults.

    Args:
        cls: The class; all arguments of its constructor have defaults.
        prefix, context: See `validate`.

    Raises:
        ConfigError: See `validate`.
    """
    model, defaults, arguments = validate(_schema(cls), values, prefix, context), cls(), dict[str, Any]()
    for name, key, _ in _arguments(cls):
        value = attrgetter(key)(model)
        arguments[name] = type(getattr(defaults, name))(**dict(value)) if isinstance(value, Section) else value
    return cls(**arguments)


def sections(cls: Any) -> list[str]:
    """The top-level keys of a configuration that `build` takes for a class."""
    return list(_schema(cls).model_fields)


def check(instance: Any) -> None:
    """Validates the parameters of an object as `build` validates the keys of a configuration.

    Raises:
        ConfigError: See `validate`.
    """
    cls: Any = type(instance)
    values: dict[str, Any] = {}
    for name, key, _ in _arguments(cls):
        value = getattr(instance, name)
        if isinstance(value, np.generic):
            value = value.item()
        _put(values, key, value.get_params() if hasattr(value, "get_params") else value)
    validate(_schema(cls), values)


def not_allowed(key: str, value: str, allowed: Iterable[str]) -> str:
    """The message about a name that is not one of those that are allowed."""
    return f"{key}: got {value!r}; allowed: {', '.join(allowed)}{did_you_mean(value, allowed)}"


def did_you_mean(wrong: str, allowed: Iterable[str], parent: str = "") -> str:
    """A hint at the nearest key, whatever the case of its letters; empty if none is near."""
    by_lower = {key.lower(): key for key in allowed}
    close = difflib.get_close_matches(wrong.lower(), by_lower, n=1, cutoff=0.65)
    return f"; did you mean {f'{parent}.{by_lower[close[0]]}'.lstrip('.')}?" if close else ""


def _arguments(cls: Any) -> Iterator[tuple[str, str, Any]]:
    """The arguments of a constructor that are keys: name, dotted key as `build` has it, type."""
    hints, family = get_type_hints(cls.__init__, include_extras=True), getattr(cls, "family", "")
    for name in inspect.signature(cls).parameters:
        hint = hints.get(name, Any)
        texts = [text for text in getattr(hint, "__metadata__", ()) if isinstance(text, str)]
        if key := texts[0] if texts else f"{{family}}.{name}":
            yield name, key.format(family=family), hint


@cache
def _schema(cls: type) -> type[Section]:
    """The pydantic model of the sections that `build` takes."""
    defaults, tree = cls(), dict[str, Any]()
    for name, key, hint in _arguments(cls):
        default = getattr(defaults, name)
        if hasattr(default, "get_params"):
            parts = _arguments(type(default))
            _put(tree, key, {part: (part_hint, getattr(default, part)) for part, _, part_hint in parts})
        else:
            _put(tree, key, (hint, default))
    return _model(tree)


def _model(tree: dict[str, Any]) -> type[Section]:
    """A model of nested dictionaries whose leaves are types and defaults."""
    models = {key: _model(entry) for key, entry in tree.items() if isinstance(entry, dict)}
    fields: dict[str, Any] = tree | {key: (model, model()) for key, model in models.items()}
    return create_model("Knobs", __base__=Section, **fields)


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    """Sets a dotted key in nested dictionaries."""
    *sections, last = key.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
    tree[last] = value


def _shown(value: Any) -> str:
    """A value as it is written in YAML, text in quotes."""
    return str(value).lower().replace("none", "null") if value is None or isinstance(value, bool) else repr(value)


def _line(error: Any, schema: Any, values: Any, prefix: str, context: str) -> tuple[str, str]:
    """Key and value, and what is allowed."""
    kind, path, node = error["type"], [], values
    # Names of union members stand in the location beside keys; only keys lead on into the values.
    for part in error["loc"]:
        if (isinstance(node, dict) and part in node) or (isinstance(node, list) and isinstance(part, int)):
            path.append(str(part))
            node = node[part]
    if kind == "missing":
        path.append(error["loc"][-1])
    if kind.startswith("union_tag"):
        path.append(error["ctx"]["discriminator"].strip("'"))
    key, got = prefix + ".".join(path), f"got {_shown(error['input'])}"
    if kind in ("missing", "union_tag_not_found"):
        return f"{key}: got nothing; it must be given", ""
    if kind == "union_tag_invalid":
        return f"{key}: got {_shown(error['ctx']['tag'])}; allowed: ", error["ctx"]["expected_tags"]
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        siblings = _siblings(schema, values, path[:-1])
        hint = did_you_mean(path[-1], siblings, key.rpartition(".")[0])
        return f"{key}: unknown key{context} ({got}); allowed: ", f"{', '.join(siblings) or 'none'}{hint}"
    if kind in ("model_type", "model_attributes_type", "dataclass_type"):
        return f"{key}: {got}; allowed: ", f"a section with the keys {', '.join(_siblings(schema, values, path))}"
    return f"{key}: {got}; allowed: ", re.sub(
        r"^(Input should be|String should have|Value error,)( a valid)? ", "", error["msg"]
    )


def _siblings(schema: Any, values: Any, path: list[str]) -> list[str]:
    """The keys that are allowed beside a wrong one."""
    for part in path:
        field = schema.model_fields[part]
        schema, values = field.annotation, values[part]
        if tag := field.discriminator:
            schema = next(m for m in schema.__args__ if values[tag] in m.model_fields[tag].annotation.__args__)
    fields: Any = getattr(schema, "model_fields", None) or getattr(schema, "__dataclass_fields__", ())
    return sorted(fields)

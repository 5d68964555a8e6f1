"""The base of everything that a user can set: no unknown keys, no silent conversion of types, messages that help."""

import difflib
import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from spectro.errors import ConfigError


class Section(BaseModel):
    """A group of settings."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def validate(schema: Any, values: Any, prefix: str, context: str = "") -> Any:
    """Values as a pydantic model.

    Args:
        schema: The model.
        values: What a user set.
        prefix: Stands before every key in a message.
        context: Stands behind "unknown key" in a message.

    Returns:
        The model.

    Raises:
        ConfigError: One line for each key that is wrong: the key with its dots, the value found, what is allowed.
    """
    try:
        return TypeAdapter(schema).validate_python(values)
    except ValidationError as error:
        # A key that may be of several types gives one error for each of them.
        allowed: dict[str, list[str]] = {}
        for found in error.errors(include_url=False):
            head, tail = _line(found, schema, values, prefix, context)
            allowed.setdefault(head, []).append(tail)
        lines = [head + " or ".join(dict.fromkeys(tails)) for head, tails in allowed.items()]
        raise ConfigError("\n".join(lines)) from error


def did_you_mean(wrong: str, allowed: Iterable[str], parent: str) -> str:
    """A hint at the key nearest to a wrong one, whatever the case of its letters; empty if none is near."""
    by_lower = {key.lower(): key for key in allowed}
    close = difflib.get_close_matches(wrong.lower(), by_lower, n=1, cutoff=0.65)
    return f"; did you mean {f'{parent}.{by_lower[close[0]]}'.lstrip('.')}?" if close else ""


def _shown(value: Any) -> str:
    """A value as it is written in YAML, text in quotes."""
    return str(value).lower().replace("none", "null") if value is None or isinstance(value, bool) else repr(value)


def _line(error: Any, schema: Any, values: Any, prefix: str, context: str) -> tuple[str, str]:
    """Key and value found, and what is allowed."""
    # Names of union members stand in the location beside keys; only keys lead on into the values.
    path: list[str] = []
    here = values
    for part in (part for part in error["loc"] if part != "[key]"):
        if isinstance(here, dict) and (part in here or part == error["loc"][-1]):
            path.append(str(part))
            here = here.get(part)
        elif isinstance(here, list) and isinstance(part, int):
            path.append(str(part))
            here = here[part]
    key = prefix + ".".join(path)
    found = _shown(error["input"])
    if error["type"] == "union_tag_not_found":
        return f"{key}.{error['ctx']['discriminator'].strip(chr(39))}: got nothing; it must be given", ""
    if error["type"] == "union_tag_invalid":
        tag, options = error["ctx"]["discriminator"].strip("'"), error["ctx"]["expected_tags"]
        return f"{key}.{tag}: got {_shown(error['ctx']['tag'])}; allowed: ", options
    if error["type"] == "extra_forbidden":
        siblings = _siblings(schema, values, path[:-1])
        hint = did_you_mean(path[-1], siblings, key.rpartition(".")[0])
        return f"{key}: unknown key{context} (got {found}); allowed: ", f"{', '.join(siblings) or 'none'}{hint}"
    if error["type"] == "missing":
        return f"{key}: got nothing; it must be given", ""
    if error["type"] in ("model_type", "model_attributes_type", "dataclass_type"):
        keys = ", ".join(_siblings(schema, values, path))
        return f"{key}: got {found}; allowed: ", f"a section with the keys {keys}"
    allowed = re.sub(r"^(Input should be |String should have |Value error, )(a valid )?", "", error["msg"])
    return f"{key}: got {found}; allowed: ", allowed


def _siblings(schema: Any, values: Any, path: list[str]) -> list[str]:
    """The keys that are allowed beside a wrong one."""
    for part in path:
        field = schema.model_fields[part]
        schema, values = field.annotation, values[part]
        if field.discriminator:
            tag = field.discriminator
            schema = next(m for m in schema.__args__ if values[tag] in m.model_fields[tag].annotation.__args__)
    return sorted(getattr(schema, "model_fields", None) or getattr(schema, "__dataclass_fields__", ()))

"""The base of everything that a user can set: no unknown keys, no silent conversion of types."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A group of settings."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

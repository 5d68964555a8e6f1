"""Augmentation: fixed views of training records, and random transforms that are drawn anew."""

import inspect
import pkgutil
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from spectro.data.transforms import BUILT_IN_VIEWS, Pixels, Transform, apply, identity, is_module, like
from spectro.errors import ConfigError
from spectro.knobs import Section, validate
from spectro.plugins import find_here

ORIGINAL = "original"
# The seed of a row that no random transform is applied to.
NOT_DRAWN = -1


class Part(Section, extra="allow"):
    """One augmentation of a list: fixed views, or a random transform; further keys are arguments of the transform."""

    views: list[str] | None = None
    transform: str | None = None


class AugmentationKnobs(Section, extra="allow"):
    """What is done to training images."""

    __pydantic_extra__: dict[str, Part]
    mode: Literal["sample", "expand"] = "sample"
    exclude: dict[str, list[str]] | None = None
    draws: Annotated[int, Field(ge=1)] = 4

    @property
    def parts(self) -> dict[str, Part]:
        """The augmentations by name, in order."""
        return self.__pydantic_extra__

    @property
    def label(self) -> str:
        """The names of the parts, joined by a plus; ``none`` without any."""
        return "+".join(self.parts) or "none"


@dataclass(frozen=True)
class Augmentation:
    """Fixed views of training records, and random transforms on top of them.

    Attributes:
        views: Name -> a transform that always gives the same; the original is a view besides.
        transforms: Name -> a random transform; applied one after another.
        mode: ``sample``: a family with epochs draws one view per record and epoch. ``expand``: every view is a row, as
            always for families without epochs.
        exclude: Source -> views of it that are known to be wrong.
        draws: How many random copies of each view a family without epochs is fitted to, besides the view itself.
        seed: Seed of those copies.
    """

    views: Mapping[str, Transform] = field(default_factory=dict)
    transforms: Mapping[str, Transform] = field(default_factory=dict)
    mode: Literal["sample", "expand"] = "sample"
    exclude: Mapping[str, Collection[str]] = field(default_factory=dict)
    draws: int = 4
    seed: int = 0

    @classmethod
    def from_config(cls, knobs: AugmentationKnobs, *, seed: int) -> "Augmentation":
        """Imports what the configuration names, and tries it on a small image.

        Raises:
            ConfigError: Names each key that is wrong: it cannot be imported, does not keep shape or type, is not
                reproducible, or excludes a view that there is not.
        """
        views: dict[str, Transform] = {}
        transforms: dict[str, Transform] = {}
        problems = []
        for name, part in knobs.parts.items():
            key, arguments = f"augmentation.{name}", part.model_extra or {}
            try:
                if (part.views is None) == (part.transform is None):
                    shown = ", ".join(part.model_fields_set) or "nothing"
                    raise ConfigError(f"{key}: got {shown}; allowed: views or transform")
                if part.views is not None and arguments:
                    raise ConfigError(f"{key}: got {', '.join(arguments)}; allowed beside views: nothing")
                for path in part.views or ():
                    views[re.split("[.:]", path)[-1]] = _resolved(path, {}, f"{key}.views", is_random=False)
                if part.transform is not None:
                    transforms[name] = _resolved(part.transform, arguments, f"{key}.transform", is_random=True)
            except ConfigError as error:
                problems.append(str(error))
        allowed = (ORIGINAL, *views)
        for source, names in (knobs.exclude or {}).items():
            wrong = [view for view in names if view not in allowed]
            problems += [f"augmentation.exclude.{source}: got {v!r}; allowed: {', '.join(allowed)}" for v in wrong]
        if problems:
            raise ConfigError("\n".join(problems))
        return cls(views, transforms, knobs.mode, knobs.exclude or {}, knobs.draws, seed)

    def __call__(self, pixels: Pixels, views: np.ndarray, seeds: np.ndarray) -> Pixels:
        """Turns images into their views, and applies the random transforms to those with a seed.

        Args:
            pixels: uint8 ``(n, height, width)`` or ``(n, height, width, 3)``, numpy or PyTorch; it is changed.
            views: Names, ``(n,)``.
            seeds: Not negative, or `NOT_DRAWN`, ``(n,)``.
        """
        for view in sorted(set(views) - {ORIGINAL}):
            index = like(pixels, np.flatnonzero(views == view))
            pixels[index] = apply(self.views[view], pixels[index], None)
        drawn = np.flatnonzero(seeds != NOT_DRAWN)
        for number, transform in enumerate(self.transforms.values() if len(drawn) else ()):
            index = like(pixels, drawn)
            rngs = [np.random.default_rng([number, seed]) for seed in seeds[drawn]]
            pixels[index] = apply(transform, pixels[index], rngs)
        return pixels

    def key(self, view: str, seed: int) -> str:
        """Names what is done to an image, for caches of features."""
        name = view if view == ORIGINAL else f"{view}:{self._identities[view]}"
        return name if seed == NOT_DRAWN else f"{name}:{self._identities[None]}:{seed}"

    @cached_property
    def _identities(self) -> dict[str | None, str]:
        """Of each view, and of the random transforms together."""
        return {None: identity(*self.transforms.values())} | {view: identity(t) for view, t in self.views.items()}


def _resolved(path: str, arguments: dict[str, Any], key: str, *, is_random: bool) -> Transform:
    """The transform that a configuration names, tried on two small images."""
    try:
        if (target := BUILT_IN_VIEWS.get(path)) is None:
            find_here(path.partition(":")[0])
            target = pkgutil.resolve_name(path)
    except Exception as error:
        built_in = "" if is_random else f"{', '.join(BUILT_IN_VIEWS)}, or "
        raise ConfigError(
            f"{key}: got {path!r}, which cannot be imported ({error}); allowed: {built_in}package.module.name of a "
            "function or class"
        ) from error
    prefix = key.rpartition(".")[0]
    # A configuration may be anybody's: a class like subprocess.Popen acts when it is made.
    bases = target.__mro__[:-1] if isinstance(target, type) else ()
    if not callable(target) or (bases and not any("__call__" in base.__dict__ for base in bases)):
        raise ConfigError(f"{key}: got {path!r}; allowed: a function, or a class whose objects can be called")
    if hasattr(target, "__pydantic_config__"):
        transform = validate(target, arguments, f"{prefix}.")
    else:
        try:
            if isinstance(target, type):
                transform = target(**arguments)
            else:
                transform = partial(target, **arguments) if arguments else target
        except Exception as error:
            raise ConfigError(f"{prefix}: got {arguments}; {path} refuses it ({error})") from error
    if is_random and not is_module(transform) and not {"rng", "rngs"} & set(inspect.signature(transform).parameters):
        raise ConfigError(f"{key}: got {path!r}, which takes no argument rng; one without chance belongs to views")
    for shape in ((2, 64, 64), (2, 64, 64, 3)):
        probe = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        try:
            first, second = (
                apply(transform, probe.copy(), [np.random.default_rng(1)] * 2 if is_random else None) for _ in range(2)
            )
        except Exception as error:
            raise ConfigError(f"{key}: got {path!r}, which fails on an image {shape[1:]} ({error})") from error
        if not np.array_equal(first, second):
            raise ConfigError(
                f"{key}: got {path!r}, which gives other pixels each time; allowed: chance from rng alone"
            )
    return transform

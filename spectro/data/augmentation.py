"""Augmentation: fixed views of training records, and random transforms that are drawn anew."""

import hashlib
import inspect
import pkgutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from spectro.data.transforms import BUILT_IN_VIEWS, Pixels, Transform, apply, identity, is_module, like
from spectro.errors import ConfigError
from spectro.knobs import Section, validate

if TYPE_CHECKING:
    from spectro.data.images import Images

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
    mode: Literal["expand", "sample"] = "expand"
    exclude: dict[str, list[str]] | None = None
    draws: Annotated[int, Field(ge=1)] = 4
    # Of configurations that were saved before augmentations were lists of parts.
    name: str | None = None

    @property
    def parts(self) -> dict[str, Part]:
        """The augmentations by name, in order."""
        old = {"mirror": ["mirrored"], "mirror_halves": list(BUILT_IN_VIEWS)}
        return dict(self.__pydantic_extra__) or {k: Part(views=v) for k, v in old.items() if k == self.name}

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
        mode: ``expand``: every view is a row of its own. ``sample``: a network draws one view per record and epoch.
        exclude: Source -> views of it that are known to be wrong.
        draws: How many random copies of each view a family without epochs is fitted to, besides the view itself.
        seed: Seed of those copies.
    """

    views: Mapping[str, Transform] = field(default_factory=dict)
    transforms: Mapping[str, Transform] = field(default_factory=dict)
    mode: Literal["expand", "sample"] = "expand"
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
            key, arguments = f"augmentation.{name}", dict(part.model_extra or {})
            try:
                if (part.views is None) == (part.transform is None):
                    raise ConfigError(
                        f"{key}: got {', '.join(part.model_fields_set) or 'nothing'}; allowed: views or transform"
                    )
                if part.transform is not None:
                    transforms[name] = _resolved(part.transform, arguments, f"{key}.transform", is_random=True)
                elif arguments:
                    raise ConfigError(f"{key}: got {', '.join(arguments)}; allowed beside views: nothing")
                for path in part.views or ():
                    views[path.replace(":", ".").rsplit(".", 1)[-1]] = _resolved(
                        path, {}, f"{key}.views", is_random=False
                    )
            except ConfigError as error:
                problems.append(str(error))
        allowed = (ORIGINAL, *views)
        for source, names in (knobs.exclude or {}).items():
            wrong = [view for view in names if view not in allowed]
            problems += [f"augmentation.exclude.{source}: got {v!r}; allowed: {', '.join(allowed)}" for v in wrong]
        if problems:
            raise ConfigError("\n".join(problems))
        return cls(views, transforms, knobs.mode, knobs.exclude or {}, knobs.draws, seed)

    def apply(self, images: "Images", sources: Sequence[str], *, per_epoch: bool) -> tuple["Images", np.ndarray]:
        """The augmented training set.

        Args:
            images: Training records as they are, ``n`` of them.
            sources: Their sources, ``(n,)``.
            per_epoch: Whether the family has epochs, for each of which views and random transforms are drawn anew.

        Returns:
            The images, and for each of their rows the index of its record: all rows of the first record come first.
        """
        sampled = self.mode == "sample" and per_epoch
        draws = range(self.draws if self.transforms and not per_epoch else 0)
        # Record, view, seed, and the views of which one is drawn in each epoch.
        rows: list[tuple[int, str, int, tuple[str, ...]]] = []
        for i, (digest, source) in enumerate(zip(images.digests, sources, strict=True)):
            names = [view for view in (ORIGINAL, *self.views) if view not in self.exclude.get(source, ())]
            for view in names[:1] if sampled else names:
                seeds = [NOT_DRAWN, *(_seed(self.seed, digest, view, draw) for draw in draws)]
                rows += [(i, view, seed, tuple(names) if sampled else (view,)) for seed in seeds]
        index = np.array([row[0] for row in rows], dtype=int)
        choices = [row[3] for row in rows] if per_epoch and (sampled or self.transforms) else None
        return images[index].augmented(self, [row[1] for row in rows], [row[2] for row in rows], choices), index

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
        name = view
        if view in self.views and self.views[view] is not BUILT_IN_VIEWS.get(view):
            name += f":{identity([self.views[view]])}"
        return name if seed == NOT_DRAWN else f"{name}:{self._transforms_key}:{seed}"

    @cached_property
    def _transforms_key(self) -> str:
        return identity(list(self.transforms.values()))


def _resolved(path: str, arguments: dict[str, Any], key: str, *, is_random: bool) -> Transform:
    """The transform that a configuration names, tried on two small images."""
    if path in BUILT_IN_VIEWS:
        return BUILT_IN_VIEWS[path]
    try:
        target = pkgutil.resolve_name(path)
    except Exception as error:
        built_in = "" if is_random else f"{', '.join(BUILT_IN_VIEWS)}, or "
        raise ConfigError(
            f"{key}: got {path!r}, which cannot be imported ({error}); allowed: {built_in}package.module.name of a "
            "function or class"
        ) from error
    prefix = key.rpartition(".")[0]
    if is_dataclass(target) and hasattr(target, "__pydantic_config__"):
        transform = validate(target, arguments, f"{prefix}.")
    else:
        try:
            transform = target(**arguments) if isinstance(target, type) else partial(target, **arguments)
        except Exception as error:
            raise ConfigError(f"{prefix}: got {arguments}; {path} refuses it ({error})") from error
    if is_random and not is_module(transform) and not {"rng", "rngs"} & set(inspect.signature(transform).parameters):
        raise ConfigError(f"{key}: got {path!r}, which takes no argument rng; one without chance belongs to views")
    for shape in ((2, 64, 64), (2, 64, 64, 3)):
        probe = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        try:
            tries = [
                apply(transform, probe.copy(), [np.random.default_rng(1)] * 2 if is_random else None) for _ in range(2)
            ]
        except Exception as error:
            raise ConfigError(f"{key}: got {path!r}, which fails on an image {shape[1:]} ({error})") from error
        if not np.array_equal(*tries):
            raise ConfigError(
                f"{key}: got {path!r}, which gives other pixels each time; allowed: chance from rng alone"
            )
    return transform


def _seed(seed: int, digest: str, view: str, draw: int) -> int:
    """Of one random copy of one record: the same in every fold, and whatever other records there are."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{digest}:{view}:{draw}".encode()).digest()[:7])

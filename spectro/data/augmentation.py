"""Label-preserving variants of a record whose two sides mean the same: the source is in the middle of the top."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

# Part of the key of whatever is made from variants: raise it when a variant gives other pixels.
CODE_VERSION = 1
ORIGINAL = "original"
VARIANTS: dict[str, tuple[str, ...]] = {
    "none": (ORIGINAL,),
    "mirror": (ORIGINAL, "mirrored"),
    "mirror_halves": (ORIGINAL, "mirrored", "double_l", "double_r"),
}


def vary(images: np.ndarray, variant: str) -> np.ndarray:
    """One variant of each image.

    Args:
        images: ``(n, height, width)`` or ``(n, height, width, channels)``.
        variant: ``original``; ``mirrored``: left-right; ``double_l``: the left half, mirrored onto the right;
            ``double_r``: the right half, mirrored onto the left. The middle column of an odd width stays.

    Returns:
        An array of the same shape.

    Raises:
        ValueError: The variant is not known.
    """
    if variant == ORIGINAL:
        return images
    mirrored = images[:, :, ::-1]
    if variant == "mirrored":
        return mirrored
    if variant not in VARIANTS["mirror_halves"]:
        raise ValueError(f"variant: got {variant!r}; allowed: {', '.join(VARIANTS['mirror_halves'])}")
    width = images.shape[2]
    left_is_kept = variant == "double_l"
    doubled = images.copy()
    halves = slice(width - width // 2, width) if left_is_kept else slice(0, width // 2)
    doubled[:, :, halves] = mirrored[:, :, halves]
    return doubled


def source_columns(width: int) -> np.ndarray:
    """For each variant, in the order of ``VARIANTS["mirror_halves"]``, the column that each of its columns comes from.

    Args:
        width: Width of the images, in pixels.

    Returns:
        Integers ``(variants, width)``: ``image[:, columns[v]]`` is variant ``v`` of ``image``.
    """
    numbers = np.arange(width)[None, None, :]
    return np.concatenate([vary(numbers, variant)[0] for variant in VARIANTS["mirror_halves"]])


def expand(
    sources: Sequence[str], variants: Sequence[str], exclude: Mapping[str, Collection[str]] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """All variants of all records, record by record.

    Args:
        sources: The source of each record.
        variants: Names of the variants to make.
        exclude: Source -> variants of it that are known to be wrong.

    Returns:
        For each row of the augmented set the index of its record, and the name of its variant.
    """
    exclude = exclude or {}
    rows = [(i, v) for i, source in enumerate(sources) for v in variants if v not in exclude.get(source, ())]
    return np.array([i for i, _ in rows], dtype=int), np.array([v for _, v in rows], dtype=object)

"""Attribution maps: which places of an image raise one label's score above another's."""

from dataclasses import dataclass

import numpy as np

# What a family computes of n records: effects of places on the margin between two scores ``(n, h, w)``, in any unit;
# the records as the model sees them, uint8 ``(n, height, width)`` or ``(n, height, width, 3)``; the method's name.
Effects = tuple[np.ndarray, np.ndarray, str]


@dataclass(frozen=True)
class Attribution:
    """The attribution map of one record.

    Attributes:
        map: ``(h, w)``, 0 to 1: 0 does not raise the label's score, 1 is the largest effect in this image; all 0 where
            nothing raises it. It covers the whole of ``seen``, mostly in far fewer places.
        seen: The record as the model sees it, uint8 ``(height, width)`` or ``(height, width, 3)``.
        method: How the map was computed, a few words.
        stage: The stage of a cascade that separates the two labels; empty: no stages.
    """

    map: np.ndarray
    seen: np.ndarray
    method: str
    stage: str = ""


def attributions(effects: Effects) -> list[Attribution]:
    """One for each record; negative effects are cut off, and the largest effect of a record becomes 1."""
    values, seen, method = effects
    values = np.maximum(np.asarray(values, dtype=np.float64), 0.0)
    largest = values.max(axis=(1, 2), keepdims=True)
    maps = np.divide(values, largest, out=np.zeros_like(values), where=largest > 0).astype(np.float32)
    return [Attribution(record_map, image, method) for record_map, image in zip(maps, seen, strict=True)]

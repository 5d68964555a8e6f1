"""What in an image speaks for one label and not for another: the form in which every family says it."""

from dataclasses import dataclass, replace

import numpy as np

# Effects ``(n, h, w)`` of places on how far the label lies above the other one, in any unit; what the model sees of the
# records, uint8 ``(n, height, width)`` or ``(n, height, width, 3)``, over which they lie; and a line that says what
# they are.
Effects = tuple[np.ndarray, np.ndarray, str]


@dataclass(frozen=True)
class Attribution:
    """One record's places, by how much they speak for a label and against another.

    Attributes:
        map: ``(h, w)``, 0 to 1: 0 speaks not for the label or against it, 1 most of all places of this image; all 0
            where nothing speaks for it. It covers the whole of ``seen``, mostly in far fewer places.
        seen: What the model sees of the record, uint8 ``(height, width)`` or ``(height, width, 3)``.
        says: What the map is, a few words.
        stage: The stage of a cascade that told the two labels apart; empty: there are no stages.
    """

    map: np.ndarray
    seen: np.ndarray
    says: str
    stage: str = ""

    def of(self, stage: str) -> "Attribution":
        """The same as that of a stage."""
        return replace(self, stage=stage)


def attributions(effects: Effects) -> list[Attribution]:
    """One for each record: what speaks against the label is cut off, and the largest effect becomes 1."""
    values, seen, says = effects
    found = []
    for own, image in zip(np.maximum(np.asarray(values, dtype=np.float64), 0.0), seen, strict=True):
        most = own.max()
        found.append(Attribution((own / most if most > 0 else own).astype(np.float32), image, says))
    return found

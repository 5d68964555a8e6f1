"""How often does ``spectro look-alikes`` find a pair, in simulated predictions? (docs/how-to/labels.md)

    python scripts/benchmarks/look_alikes.py

Four classes of 8, 7, 78 and 23 records, as in the demo data, of which a share is predicted wrong. ``chance``: every
record is wrong with the same probability, and a wrong one gets another class in proportion to their records. ``rare``:
only records of the two small classes are wrong. ``pair``: wrong records of the two large classes get the other one.
Prints a row for each share: the share of 1,000 data sets in which any pair is found, and in which the pair of the large
classes is.
"""

import numpy as np

from spectro.data import Record
from spectro.labels.look_alikes import confusions
from spectro.runs.predictions import Predictions

SIZES, ROUNDS = np.array([8, 7, 78, 23]), 1000


def predicted(kind: str, true: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Numbers of the predicted classes, (n,)."""
    other = np.array([rng.choice(4, p=np.where(np.arange(4) == y, 0, SIZES) / (len(true) - SIZES[y])) for y in true])
    is_wrong = rng.random(len(true)) < share * (len(true) / SIZES[:2].sum() if kind == "rare" else 1)
    if kind == "rare":
        is_wrong &= true < 2
    if kind == "pair":
        other = np.where(true >= 2, 5 - true, other)
    return np.where(is_wrong, other, true)


def main() -> None:
    """Prints the table."""
    true = np.repeat(np.arange(4), SIZES)
    records = [Record(".", "", "", str(i), label=str(y)) for i, y in enumerate(true.tolist())]  # type: ignore[arg-type]
    for kind in ("chance", "rare", "pair"):
        for share in (0.05, 0.1):
            rng, found = np.random.default_rng(0), []
            for _ in range(ROUNDS):
                p = np.eye(4)[predicted(kind, true, share, rng)]
                pairs = confusions([Predictions(records, true.astype(str).astype(object), np.array(list("0123")), p)])
                hits = {pair.classes for pair in pairs if pair.is_beyond_chance}
                found.append((bool(hits), ("2", "3") in hits))
            print(
                f"| {kind} | {share} | {np.mean(found, axis=0)[0]:.3f} | {np.mean(found, axis=0)[1]:.3f} |", flush=True
            )


if __name__ == "__main__":
    main()

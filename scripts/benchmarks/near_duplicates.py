"""Which changed copies of an image does ``spectro audit`` find as near-duplicates? (docs/how-to/labels.md)

    python scripts/benchmarks/near_duplicates.py outputs/runs/RUN ...

Of 20 records drawn from a run's data, copies are made and read as its images are; margins are to be 0. Prints a row for
each run: the largest cosine between unchanged records of different sources, and the share of copies that has the cosine
of a near-duplicate to its original.
"""

import io
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from spectro.classifiers import load
from spectro.comparison.baselines import load_dataset
from spectro.comparison.load import read_run
from spectro.data import Images
from spectro.data.images import file_digest
from spectro.labels.audit import NEAR


def copies(image: Image.Image, rng: np.random.Generator) -> Iterator[tuple[str, Image.Image]]:
    """Copies of an image, with what was done."""
    width, height = image.size
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=50)
    yield "JPEG", Image.open(buffer)
    yield "10 % brighter", ImageEnhance.Brightness(image).enhance(1.1)
    yield "70 % of the size", image.resize((round(0.7 * width), round(0.7 * height)))
    yield "noise", Image.fromarray(np.clip(rng.normal(image, 10), 0, 255).astype(np.uint8))
    for cut in (0.01, 0.03):
        box = (round(cut * width), round(cut * height), round((1 - cut) * width), round((1 - cut) * height))
        yield f"{cut:.0%} cut off each side", image.crop(box)


def main() -> None:
    """Prints the table."""
    for name in sys.argv[1:]:
        run, rng = read_run(Path(name), "test"), np.random.default_rng(0)
        dataset, classifier = load_dataset(run, Path("outputs")), load(Path(name) / "model")
        records = list(dataset.records)
        features = classifier.features(dataset.images(records))
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        sources = np.array([record.source for record in records])
        largest = np.where(sources[:, None] == sources, -1, unit @ unit.T).max()
        found: dict[str, list[bool]] = {}
        with tempfile.TemporaryDirectory() as folder:
            for i in rng.choice(len(records), 20, replace=False).tolist():
                for kind, image in copies(Image.open(records[i].path).convert("RGB"), rng):
                    image.save(path := Path(folder, f"{i} {kind}.png"))
                    dataset.store.add([path], [digest := file_digest(path)], classifier.specs)
                    copy = classifier.features(Images(dataset.store, [digest]))[0]
                    found.setdefault(kind, []).append(float(copy @ unit[i]) >= NEAR * np.linalg.norm(copy))
        shares = ", ".join(f"{kind} {np.mean(hits):.2f}" for kind, hits in found.items())
        print(f"| {run.info.data and run.info.data.name} | {run.model} | {largest:.3f} | {shares} |")


if __name__ == "__main__":
    main()

"""Images per second from PNG to row, beside a plain loop, and a network's share of its forward speed.

    python scripts/benchmarks/predict.py --images 2000
    python scripts/benchmarks/predict.py --models resnet18,deit_vpt --images 384

Models are fitted to demo data with random weights; the images are demo records of 300x220 pixels. ``plain`` reads,
decodes and classifies one image after another with the same classifier. ``forward`` is `classifier.outputs` of batches
that are decoded already; for a network, what ours is slower is what decoding and the table cost. Medians over --repeats
alternating rounds; run it on a quiet machine.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from common import seconds
from PIL import Image

from spectro.classifiers import load
from spectro.cli import main as cli
from spectro.data import Images, ImageStore
from spectro.data.inputs import find_inputs
from spectro.demo.generate import CROP_PX, make_demo
from spectro.runs.predict import _BATCH, Predictor
from spectro.runs.prediction_table import PredictionTable
from spectro.runs.run import run

SIZE_PX = 300, 220


def make_images(folder: Path, n: int) -> list[Path]:
    """Writes demo records without their margins, each with a name of its own."""
    paths = sorted(make_demo(folder / "demo", "field", scale=0.5).rglob("*.png"))
    (folder / "new").mkdir()
    for number in range(n):
        with Image.open(paths[number % len(paths)]) as image:
            box = CROP_PX["left"], CROP_PX["top"], image.width - CROP_PX["right"], image.height
            image.convert("RGB").crop(box).resize(SIZE_PX).save(folder / "new" / f"{number}.png")
    return sorted((folder / "new").iterdir())


def measure(model: str, folder: Path, paths: list[Path], repeats: int) -> None:
    """Prints a row of the table."""
    run_dir = folder / model
    run_dir.mkdir()
    words = [f"data.demo_dir={folder / 'demo'}", "data.scale=0.5", "data.cache_dir=null", "tracking.uri=null"]
    words += ["figures=none", "data.crop={left: 0, top: 0, right: 0, bottom: 0}", f"model={model}"]
    if model in ("resnet18", "deit_vpt"):
        name = {"resnet18": "cnn", "deit_vpt": "vpt"}[model]
        words += ["cascade_stage=flat", f"{name}.pretrained=false", "train.epochs=1"]
    run(cli.composed(words), run_dir, quiet=True)
    inputs, classifier = find_inputs([paths[0].parent]), load(run_dir / "model")

    def ours(number: int) -> None:
        predictor = Predictor(run_dir / "model")
        table = PredictionTable(folder / f"{model}_{number}.csv", predictor.columns)
        for batch in predictor.stream(inputs):
            table.append(predictor.rows_of(batch))
        table.finish()

    def plain() -> None:
        for path in paths:
            store = ImageStore()
            store.put("x", path.read_bytes(), classifier.specs)
            classifier.predict_proba(Images(store, ["x"]))

    store, keys = ImageStore(), [str(i) for i in range(len(paths))]
    for key, path in zip(keys, paths, strict=True):
        store.put(key, path.read_bytes(), classifier.specs)
    chunks = [keys[i : i + _BATCH] for i in range(0, len(keys), _BATCH)]

    def forward() -> None:
        for chunk in chunks:
            classifier.outputs(Images(store, chunk))

    times: dict[str, list[float]] = {"ours": [], "plain": [], "forward": []}
    for number in range(repeats):
        times["ours"].append(seconds(lambda number=number: ours(number)))  # type: ignore[misc]
        times["plain"].append(seconds(plain))
        times["forward"].append(seconds(forward))
    speed: dict[str, Any] = {name: len(paths) / statistics.median(values) for name, values in times.items()}
    shares = [f / o for f, o in zip(times["forward"], times["ours"], strict=True)]
    print(
        f"| `{model}` | {speed['ours']:.0f} | {speed['plain']:.0f} | {speed['ours'] / speed['plain']:.1f} | "
        f"{speed['forward']:.0f} | {100 * statistics.median(shares):.0f} % |",
        flush=True,
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="hog_svm,pixels", help="default: %(default)s")
    parser.add_argument("--images", type=int, default=2000, help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=3, help="default: %(default)s")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        start = time.perf_counter()
        paths = make_images(folder, arguments.images)
        print(f"{len(paths)} images made in {time.perf_counter() - start:.0f} s")
        print(
            "| model | ours, images per second | plain loop | ratio | forward | ours : forward |",
            "|---" * 6 + "|",
            sep="\n",
        )
        for model in arguments.models.split(","):
            measure(model, folder, paths, arguments.repeats)


if __name__ == "__main__":
    main()

"""Images per second from PNG to row, beside a plain loop, and a network's share of its forward speed.

    python scripts/benchmarks/predict.py --images 600
    python scripts/benchmarks/predict.py --models resnet18,deit_vpt --images 192

Models are fitted to demo data, networks from random weights, and loaded before the clock runs; the images are demo
records of 300x220 pixels. ``plain`` reads, decodes and classifies one image after another with the same classifier.
``forward`` is `classifier.outputs` of batches that are decoded already; for a network, what ours is slower is what
decoding and the table cost. Speeds are images per second of wall time and of processor time, which other processes on
the machine change less; two cores that are never idle do twice the latter. Medians over --repeats alternating rounds.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from spectro.cli import main as cli
from spectro.data import Images, ImageStore
from spectro.data.inputs import find_inputs
from spectro.demo.generate import CROP_PX, make_demo
from spectro.runs.predict import _BATCH, Predictor
from spectro.runs.prediction_table import PredictionTable
from spectro.runs.run import run

SIZE_PX = 300, 220
PREFIXES = {"resnet18": "cnn", "deit_vpt": "vpt"}


def make_images(folder: Path, n: int) -> list[Path]:
    """Writes demo records without their margins, each with a name of its own."""
    paths = sorted(make_demo(folder / "demo", "field", scale=0.1).rglob("*.png"))
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
    words = [f"data.demo_dir={folder / 'demo'}", "data.scale=0.1", "data.cache_dir=null", "tracking.uri=null"]
    words += ["figures=none", "data.crop={left: 0, top: 0, right: 0, bottom: 0}", f"model={model}"]
    if model in PREFIXES:
        words += ["cascade_stage=flat", f"{PREFIXES[model]}.pretrained=false", "train.epochs=1"]
    run(cli.composed(words), run_dir, quiet=True)
    inputs, predictor = find_inputs([paths[0].parent]), Predictor(run_dir / "model")
    classifier = predictor.classifier

    def ours(number: int) -> None:
        table = PredictionTable(folder / f"{model}_{number}.csv", predictor.columns)
        for batch in predictor.stream(inputs):
            table.append(predictor.rows_of(batch))
        table.finish()

    def plain() -> None:
        for path in paths:
            store = ImageStore()
            store.put("x", path.read_bytes(), classifier.specs)
            classifier.predict_proba(Images(store, ["x"]))

    def decoded() -> list[Images]:
        batches = []
        for i in range(0, len(paths), _BATCH):
            store, chunk = ImageStore(), paths[i : i + _BATCH]
            for path in chunk:
                store.put(path.name, path.read_bytes(), classifier.specs)
            batches.append(Images(store, [path.name for path in chunk]))
        return batches

    def forward(batches: list[Images]) -> None:
        for batch in batches:
            classifier.outputs(batch)

    times: dict[str, list[tuple[float, float]]] = {"ours": [], "plain": [], "forward": []}
    for number in range(repeats):
        times["ours"].append(seconds(lambda number=number: ours(number)))  # type: ignore[misc]
        times["plain"].append(seconds(plain))
        batches = decoded()  # anew: features stay beside images
        times["forward"].append(seconds(lambda batches=batches: forward(batches)))  # type: ignore[misc]
    speeds = [{name: [len(paths) / pair[i] for pair in pairs] for name, pairs in times.items()} for i in (0, 1)]
    cells = [f"{statistics.median(speed[name]):.0f}" for speed in speeds for name in times]
    share = statistics.median(o / f for o, f in zip(speeds[1]["ours"], speeds[1]["forward"], strict=True))
    print("| " + " | ".join([f"`{model}`", *cells, f"{100 * share:.0f} %"]) + " |", flush=True)


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Wall seconds and processor seconds of one call."""
    start = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="hog_svm,pixels", help="default: %(default)s")
    parser.add_argument("--images", type=int, default=600, help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=3, help="default: %(default)s")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        paths = make_images(Path(scratch), arguments.images)
        columns = [f"{name}, {unit}" for unit in ("wall", "processor") for name in ("ours", "plain", "forward")]
        print("| " + " | ".join(["model", *columns, "ours : forward"]) + " |", "|---" * 8 + "|", sep="\n", flush=True)
        for model in arguments.models.split(","):
            measure(model, Path(scratch), paths, arguments.repeats)


if __name__ == "__main__":
    main()

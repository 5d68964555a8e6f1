"""Images per second from PNG to row, beside a plain loop, and a network's share of its forward speed.

    python scripts/benchmarks/predict.py --images 600
    python scripts/benchmarks/predict.py --models resnet18,deit_vpt --images 192

Models are fitted to demo data, networks from random weights. Start-up and loading are not in any number. The images
are demo records of 300x220 pixels, or copies of --records.

``ours``: `Predictor.stream` and the rows of the table, as in ``spectro predict``. ``plain``: reads, decodes and
classifies one image after another with the same classifier. ``forward``: `classifier.outputs` of batches that are
decoded already, as large as those of ``ours`` and with as many threads. ``decode``: one thread reads and decodes, and
measures what the image looks like. Wall time is in images per second, processor time in milliseconds an image: other
processes on the machine change the latter less. Decoding and a forward pass on a processor share the cores, so that of
the speed of ``forward`` no more than the ``limit``, forward / (forward + decode), is to be had; the ``share`` that ours
has is forward / ours, all in processor time. Medians over --repeats alternating rounds.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from spectro.cli import main as cli
from spectro.data import Images, ImageStore
from spectro.data.inputs import find_inputs
from spectro.data.look import look_of
from spectro.demo.generate import CROP_PX, make_demo
from spectro.runs.predict import _BATCH, Predictor
from spectro.runs.prediction_table import PredictionTable
from spectro.runs.run import run

SIZE_PX = 300, 220
COLUMNS = "ours", "plain", "decode", "forward"
PREFIXES = {"resnet18": "cnn", "deit_vpt": "vpt"}


def make_images(folder: Path, n: int, records: Path | None = None) -> list[Path]:
    """Writes demo records without their margins, or copies records, each with a name of its own."""
    paths = sorted(make_demo(folder / "demo", "field", scale=0.1).rglob("*.png"))
    (folder / "new").mkdir()
    if records is not None:
        found = find_inputs([records])
        return [
            Path(shutil.copy(found[number % len(found)].path, folder / "new" / f"{number}.png")) for number in range(n)
        ]
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

    batches: list[Images] = []

    def decode() -> None:
        batches.clear()  # anew: features stay beside images
        for i in range(0, len(paths), _BATCH):
            store, chunk = ImageStore(), paths[i : i + _BATCH]
            for path in chunk:
                look_of(store.put(path.name, path.read_bytes(), classifier.specs))
            batches.append(Images(store, [path.name for path in chunk]))

    def forward() -> None:
        for batch in batches:
            classifier.outputs(batch)

    times: dict[str, list[tuple[float, float]]] = {name: [] for name in COLUMNS}
    for number in range(repeats):
        for name, work in zip(COLUMNS, (lambda number=number: ours(number), plain, decode, forward), strict=True):
            times[name].append(seconds(work))  # type: ignore[arg-type]
    wall, processor = ({name: statistics.median(pair[i] for pair in times[name]) for name in COLUMNS} for i in (0, 1))
    cells = [f"{len(paths) / wall[name]:.0f}" for name in COLUMNS]
    cells += [f"{1000 * processor[name] / len(paths):.2f}" for name in COLUMNS]
    limit = processor["forward"] / (processor["forward"] + processor["decode"])
    share = statistics.median(f[1] / o[1] for f, o in zip(times["forward"], times["ours"], strict=True))
    print("| " + " | ".join([f"`{model}`", *cells, f"{100 * limit:.0f} %", f"{100 * share:.0f} %"]) + " |", flush=True)


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
    parser.add_argument("--records", type=Path, help="a folder of PNG files that are copied; default: demo records")
    parser.add_argument("--repeats", type=int, default=3, help="default: %(default)s")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        paths = make_images(Path(scratch), arguments.images, arguments.records)
        columns = [f"{name}, {unit}" for unit in ("images/s", "processor ms") for name in COLUMNS]
        print("| " + " | ".join(["model", *columns, "limit", "share"]) + " |", "|---" * 11 + "|", sep="\n", flush=True)
        for model in arguments.models.split(","):
            measure(model, Path(scratch), paths, arguments.repeats)


if __name__ == "__main__":
    main()

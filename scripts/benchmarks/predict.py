"""Images per second from PNG to row, beside plain loops, and a network's share of its forward speed.

    python scripts/benchmarks/predict.py --images 600
    python scripts/benchmarks/predict.py --models resnet18,deit_vpt --images 192

Models are fitted to demo data, networks from random weights. Start-up and loading are not in any number. The images
are demo records of 300x220 pixels, or copies of --records.

``ours``: `Predictor.stream` and the rows of the table, as in ``spectro predict``. ``plain``: reads, decodes and
classifies one image after another with the same classifier. ``forward``: `classifier.outputs` of batches that are
decoded already, as large as those of ``ours`` and with as many threads. ``decode``: one thread reads and decodes, and
measures what the image looks like. ``model(x)``: the network alone in a plain loop over contiguous fp32 tensors of 16
images, in one thread; with ``bf16`` under autocast. Wall time is in images per second, processor time in milliseconds
an image: other processes on the machine change the latter less. Decoding and a forward pass on a processor share the
cores, so that of the speed of ``forward`` no more than the ``limit``, forward / (forward + decode), is to be had. The
``share`` that ours has is forward / ours, and the same of each model(x), all in processor time. Medians over --repeats
alternating rounds.
"""

import argparse
import copy
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
COLUMNS = "ours", "plain", "decode", "forward", "model(x)", "model(x) bf16"
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

    def ours() -> None:
        (folder / f"{model}.csv").unlink(missing_ok=True)
        table = PredictionTable(folder / f"{model}.csv", predictor.columns)
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

    loops = plain_loops(classifier, paths) if model in PREFIXES else []
    works = dict(zip(COLUMNS, (ours, plain, decode, forward, *loops), strict=False))
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            times[name].append(seconds(work))
    wall, processor = ({name: statistics.median(pair[i] for pair in times[name]) for name in works} for i in (0, 1))
    cells = [f"{len(paths) / wall[name]:.0f}" if name in wall else "" for name in COLUMNS]
    cells += [f"{1000 * processor[name] / len(paths):.2f}" if name in wall else "" for name in COLUMNS]
    limit = processor["forward"] / (processor["forward"] + processor["decode"])
    shares = [
        statistics.median(network[1] / whole[1] for network, whole in zip(times[name], times["ours"], strict=True))
        for name in COLUMNS[3 : 4 + len(loops)]
    ]
    cells += [f"{100 * limit:.0f} %", " / ".join(f"{100 * share:.0f}" for share in shares) + " %"]
    print("| " + " | ".join([f"`{model}`", *cells]) + " |", flush=True)


def plain_loops(classifier: Any, paths: list[Path]) -> list[Callable[[], None]]:
    """The network alone over tensors that are ready, in fp32 and under autocast to bf16."""
    import torch

    from spectro.classifiers.networks.device import Place

    network = copy.deepcopy(classifier.network_).float().to(memory_format=torch.contiguous_format).eval()
    network.place = Place(torch.device("cpu"), "fp32")
    store, names = ImageStore(), [path.name for path in paths]
    for path in paths:
        store.put(path.name, path.read_bytes(), classifier.specs)
    pixels = torch.from_numpy(Images(store, names).pixels(classifier.specs[0])).permute(0, 3, 1, 2)
    batches = (pixels.float().contiguous() / 127.5 - 1).split(16)

    def loop(is_bf16: bool) -> None:
        n_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
            for batch in batches:
                network(batch)
        torch.set_num_threads(n_threads)

    return [lambda: loop(False), lambda: loop(True)]


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
        print("| " + " | ".join(["model", *columns, "limit", "share"]) + " |", "|---" * 15 + "|", sep="\n", flush=True)
        for model in arguments.models.split(","):
            measure(model, Path(scratch), paths, arguments.repeats)


if __name__ == "__main__":
    main()

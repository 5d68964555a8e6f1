"""Times and memory of the data path, each against the plain way in the same run.

    python scripts/benchmarks/data_path.py hog

``hog`` is HOG of 400 records, in a plain loop, in ours and from the cache; ``command`` the phases of the default
command; ``cv`` one 5-fold cross-validation of 379 records, as a trial of a sweep needs it; ``memory`` the peak memory
of decoding many records to 224x224 and reading them twice.

Ratios are medians over --repeats alternating rounds; run it on a quiet machine.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import TRAIN, seconds


def hog(repeats: int) -> None:
    """400 records of 128x128: decoding and HOG the plain way, ours, and ours again from the cache."""
    from PIL import Image
    from skimage.feature import hog as skimage_hog

    from spectro.classifiers.hog.descriptor import Hog
    from spectro.data import Crop, Images, ImageStore, RowCache
    from spectro.data.images import file_digest
    from spectro.demo.generate import CROP_PX, make_demo

    box = (CROP_PX["left"], CROP_PX["top"])
    descriptor = Hog()
    with tempfile.TemporaryDirectory() as folder:
        root = make_demo(Path(folder) / "demo", "field", scale=3.0)
        paths = sorted(root.rglob("*.png"))[:400]

        def plain_decode() -> list[np.ndarray]:
            images = []
            for path in paths:
                image = Image.open(path)
                cropped = image.crop((*box, image.width - CROP_PX["right"], image.height - CROP_PX["bottom"]))
                images.append(np.asarray(cropped.convert("L").resize((128, 128), Image.Resampling.BILINEAR)))
            return images

        def plain_hog(images: list[np.ndarray]) -> list[np.ndarray]:
            return [skimage_hog(p, 9, (8, 8), (2, 2), "L2-Hys") for p in images]

        def ours(cache: Path) -> tuple[float, float]:
            store = ImageStore(RowCache(cache), Crop(**CROP_PX))
            start = time.perf_counter()
            digests = [file_digest(path) for path in paths]
            store.add(paths, digests, [descriptor.spec])
            reading = time.perf_counter() - start
            return reading, seconds(lambda: descriptor.features(Images(store, digests)))

        rounds = []
        for number in range(repeats):
            images = plain_decode()
            plain = seconds(plain_decode), seconds(lambda p=images: plain_hog(p))
            first = ours(Path(folder) / f"cache{number}")
            second = ours(Path(folder) / f"cache{number}")
            rounds.append((*plain, *first, *second))
        decode, describe, d1, h1, d2, h2 = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"{len(paths)} records, {len(os.sched_getaffinity(0))} cores, medians of {repeats}")
        print(f"{'':28}{'decode':>9}{'HOG':>9}")
        print(f"{'plain loop':28}{decode:8.3f}s{describe:8.3f}s")
        print(f"{'ours, first run':28}{d1:8.3f}s{h1:8.3f}s   {decode / d1:.1f} and {describe / h1:.1f} times faster")
        print(f"{'ours, second run':28}{d2:8.3f}s{h2:8.3f}s   {100 * (d2 + h2) / (d1 + h1):.1f} % of the first")


def command(repeats: int) -> None:
    """``python train.py`` on demo data that are there, in a new process each time; a first call makes everything."""
    with tempfile.TemporaryDirectory() as folder:
        total, phases, cpu = [], [], []
        for number in range(repeats + 1):
            run = [sys.executable, TRAIN]
            before = os.times()
            wall = seconds(lambda: subprocess.run(run, cwd=folder, check=True, stdout=subprocess.DEVNULL))  # noqa: B023
            after = os.times()
            cpu.append(after.children_user + after.children_system - before.children_user - before.children_system)
            runs = sorted(Path(folder).glob("outputs/runs/*/run.json"), key=lambda p: p.stat().st_mtime)
            phases.append(json.loads(runs[-1].read_text())["wall_s"])
            total.append(wall)
            if number == 0:
                print(f"first ever (makes demo data, cache and database): {wall:.1f} s  {phases[0]}")
        print(f"after that, median of {repeats}: {statistics.median(total[1:]):.1f} s")
        for name in phases[-1]:
            print(f"  {name:12}{statistics.median(p[name] for p in phases[1:]):7.2f} s")
        rest = [t - sum(p.values()) for t, p in zip(total[1:], phases[1:], strict=True)]
        print(f"  {'start-up':12}{statistics.median(rest):7.2f} s")
        print(f"CPU of both processes, median: {statistics.median(cpu[1:]):.1f} s")


def cv(repeats: int) -> None:
    """379 records, 8,100 features, 5 folds, no cascade: scikit-learn's pipeline, then ours, cold and warm."""
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC
    from threadpoolctl import threadpool_limits

    from spectro.cli import main as cli
    from spectro.data import RowCache
    from spectro.runs import task
    from spectro.runs.crossval import Folds, cross_validate

    with tempfile.TemporaryDirectory() as folder:
        words = ["validation=kfold", "cascade_stage=flat", "augmentation=none", "data.scale=3.26", f"outputs={folder}"]
        config = cli.composed(words)
        dataset = task.load_data(config)
        cache = dataset.store.cache
        setup = task.Task(config, dataset)
        (first,) = cross_validate(setup, Folds.of(setup)).stages[""]
        fold, records = first.fold, first.records
        features = config.estimator().hog.features(dataset.images(records)).astype(float)
        y = np.array([record.label for record in records])

        def plain() -> None:
            with threadpool_limits(1, user_api="blas"):
                for number in range(5):
                    train = fold != number
                    machine = make_pipeline(StandardScaler(), PCA(0.95), SVC(class_weight="balanced"))
                    machine.fit(features[train], y[train]).predict(features[~train])

        def ours() -> None:
            cross_validate(setup, Folds.of(setup)).averages()

        def forget(disk: bool) -> None:
            if disk:
                shutil.rmtree(cache.folder / "arrays")
            dataset.store.cache = RowCache(cache.folder)

        times: dict[str, list[float]] = {"plain": [], "new components": [], "warm disk": [], "warm memory": []}
        for _ in range(repeats):
            times["plain"].append(seconds(plain))
            forget(disk=True)
            times["new components"].append(seconds(ours))
            forget(disk=False)
            times["warm disk"].append(seconds(ours))
            times["warm memory"] += [seconds(ours) for _ in range(10)]
        print(f"{len(y)} records, {features.shape[1]} features; milliseconds")
        for name, values in times.items():
            print(f"{name:15} median {1e3 * statistics.median(values):6.0f}   least {1e3 * min(values):6.0f}")


def memory(records: int, root: Path | None) -> None:
    """Peak resident memory of a process that decodes ``records`` images and reads them twice in batches of 64."""
    with tempfile.TemporaryDirectory() as folder:
        if root is None:
            from spectro.demo.generate import COUNTS, make_demo

            in_one = sum(n for classes in COUNTS["field"].values() for n in classes.values())
            root = Path(folder) / "demo"
            taken = seconds(lambda: make_demo(root, "field", scale=records / in_one))
            print(f"made the images in {taken:.0f} s")
        code = f"""
import numpy as np, time
from pathlib import Path
from spectro.data import Crop, Mapping, ImageSpec, ImageStore, RowCache, load_dataset
from spectro.demo.generate import CROP_PX
from spectro.runs.runinfo import peak_memory_mb
store, spec = ImageStore(RowCache(Path({str(folder)!r}) / "cache"), Crop(**CROP_PX)), ImageSpec(224, "RGB")
print(f"imports: {{peak_memory_mb():.0f}} MB")
start = time.perf_counter()
data = load_dataset(Path({str(root)!r}), Mapping(), store=store, specs=[spec])
n = len(data.records)
print(f"decoded {{n}} records in {{time.perf_counter() - start:.0f}} s, peak {{peak_memory_mb():.0f}} MB")
X = data.images(data.records)
for epoch in range(2):
    start, order = time.perf_counter(), np.random.default_rng(epoch).permutation(n)
    for i in range(0, n, 64):
        X[order[i : i + 64]].pixels(spec)
    taken = time.perf_counter() - start
    print(f"read {{n * 150528 / 1e9:.1f}} GB in random batches in {{taken:.0f}} s, peak {{peak_memory_mb():.0f}} MB")
"""
        subprocess.run([sys.executable, "-c", code], check=True)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("hog", "command", "cv", "memory"))
    parser.add_argument("--repeats", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--records", type=int, default=20_000, help="for memory: how many records (default 20000)")
    parser.add_argument("--root", type=Path, help="for memory: demo images that are there already")
    arguments = parser.parse_args()
    if arguments.what == "memory":
        memory(arguments.records, arguments.root)
    else:
        {"hog": hog, "command": command, "cv": cv}[arguments.what](arguments.repeats)


if __name__ == "__main__":
    main()

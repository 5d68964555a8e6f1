"""Classifies new images with a fitted model: ``spectro predict RUN IMAGE [IMAGE ...] [--out table.csv]``.

RUN is a run directory or a model folder; an IMAGE may be a folder, which is searched for images. Margins are cropped as
for training. The table has a row for each image: path, predicted class, probability of every class. Without --out it
goes to the terminal.

Exit code: 0 all images are classified, 1 some files hold no image (they are named), 2 invalid arguments.
"""

import argparse
import csv
import sys
from contextlib import nullcontext
from pathlib import Path

from spectro.cli import main as cli


def main() -> None:
    """Entry point of ``spectro predict`` and ``python scripts/predict.py``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run directory or a model folder")
    parser.add_argument("images", type=Path, nargs="+", help="image files, or folders of them")
    parser.add_argument("--out", type=Path, help="a CSV file to write; it must not exist yet")
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="MODULE", help="module that registers the model's family"
    )
    arguments = parser.parse_args()
    out = arguments.out
    if out is not None and (out.exists() or not out.absolute().parent.is_dir()):
        parser.error(f"--out: got {out}; allowed: a new file in a folder that exists")
    cli.guard(lambda: _predict(arguments.run, arguments.images, out, arguments.plugin))


def _predict(run: Path, images: list[Path], out: Path | None, plugins: list[str]) -> None:
    from spectro.plugins import load_plugins
    from spectro.runs.predict import predict_files

    load_plugins(plugins)
    predictions, bad = predict_files(run / "model" if (run / "model").is_dir() else run, images)
    rows = [["path", "predicted", *(f"p_{label}" for label in predictions.classes)]]
    columns = predictions.records, predictions.predicted, predictions.probabilities.tolist()
    rows += [[record.path.as_posix(), label, *row] for record, label, row in zip(*columns, strict=True)]
    with out.open("x", newline="", encoding="utf-8") if out else nullcontext(sys.stdout) as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    for path, reason in bad.items():
        print(f"left out: {path}: {reason}", file=sys.stderr)
    if bad:
        sys.exit(1)

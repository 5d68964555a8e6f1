"""Classifies new images with a fitted model: ``spectro predict RUN IMAGE [IMAGE ...] [--out table.csv]``.

RUN is a run directory or a model folder; an IMAGE may be a folder, which is searched for images. Margins are cropped as
for training. The table has a row for each image: path, predicted class, probability of every class. Without --out it
goes to the terminal.

Exit code: 0 all images are classified, 2 invalid arguments, 3 some files hold no image (they are named).
"""

import argparse
import os
import sys
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
    if out is not None and out.exists():
        parser.error(f"--out: got {out}, which exists already; allowed: a new file")
    if out is not None and not out.absolute().parent.is_dir():
        parser.error(f"--out: got {out}, but {out.parent} does not exist; allowed: a new file in a folder that exists")
    cli.guard(lambda: _predict(arguments.run, arguments.images, out, arguments.plugin))


def _predict(run: Path, images: list[Path], out: Path | None, plugins: list[str]) -> None:
    from spectro.errors import ModelError
    from spectro.files import as_csv, write_text
    from spectro.plugins import load_plugins
    from spectro.runs.predict import predict_files

    load_plugins(plugins)
    if not (run / "model.json").exists() and not (run / "model").is_dir():
        inside = sorted(path.parent.parent for path in run.glob("*/model/model.json"))
        allowed = f"one of its runs, such as {inside[0]}" if inside else "a run directory with a model"
        raise ModelError(f"RUN: got {str(run)!r}, which has no model; allowed: {allowed}")
    predictions, bad = predict_files(run / "model" if (run / "model").is_dir() else run, images)
    header = ["path", "predicted", *(f"p_{label}" for label in predictions.classes)]
    columns = predictions.records, predictions.predicted, predictions.probabilities.tolist()
    rows = [[shown(record.path), label, *row] for record, label, row in zip(*columns, strict=True)]
    if out:
        write_text(out, as_csv(header, rows))
    else:
        sys.stdout.write(as_csv(header, rows))
    for path, reason in bad.items():
        print(f"left out: {shown(path)}: {reason}", file=sys.stderr)
    if bad:
        sys.exit(3)


def shown(path: Path) -> str:
    """A path as text; bytes of a name that are not UTF-8 as ``\\xff``."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")

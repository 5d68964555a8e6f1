"""Classifies new images with a fitted model, and writes a row for each while it works.

    spectro predict outputs/runs/RUN new_images/ --out predictions.csv
    spectro predict outputs/runs/RUN archive.zip 'days/*/*.png' --out predictions.parquet --sort-into sorted

MODEL is a run directory, a model folder, the folder of a search, whose final run is taken, the id of an MLflow run, or
models:/NAME@ALIAS. An INPUT is an image, a folder, which is searched, a glob, or a zip archive. See
docs/how-to/predict.md.

Exit code: 0 all images are classified, 2 invalid arguments, 3 some files hold no image (their rows have the reason).
"""

import argparse
import glob
import heapq
import os
import sys
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from spectro.cli import main as cli

if TYPE_CHECKING:
    from spectro.data.inputs import ImageInput
    from spectro.runs.predict import Predictor
    from spectro.runs.prediction_table import PredictionTable

# Images of a contact sheet, and their longer side in pixels.
_SHEET, _SHEET_PX = 24, 260
# Bad images that are named on the terminal, and seconds between two messages of how far it is.
_NAMED, _SAY_S = 5, 10


def main() -> None:
    """Entry point of ``spectro predict`` and ``python scripts/predict.py``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL", help="a run directory, a folder of a search, an MLflow id or name")
    parser.add_argument("inputs", type=Path, nargs="+", metavar="INPUT", help="images, folders, globs, zip archives")
    parser.add_argument("--out", type=Path, help="a new .csv, .jsonl or .parquet file; default: CSV on the terminal")
    parser.add_argument("--resume", action="store_true", help="go on with the table of a command that was killed")
    parser.add_argument(
        "--sort-into", type=Path, metavar="DIR", help="link or copy images into a folder for each class"
    )
    parser.add_argument(
        "--contact-sheet", type=Path, metavar="PNG", help=f"a new image file with the {_SHEET} most uncertain images"
    )
    parser.add_argument(
        "--tracking-uri", metavar="URI", help="MLflow store; default: MLFLOW_TRACKING_URI, or that of outputs"
    )
    cli.add_plugin_option(parser)
    arguments = parser.parse_args()
    from spectro.runs.prediction_table import ENDINGS

    for option, path, endings in (
        ("--out", arguments.out, ENDINGS),
        ("--contact-sheet", arguments.contact_sheet, (".png",)),
    ):
        if path is not None and path.suffix.lower() not in endings:
            parser.error(f"{option}: got {path}; allowed: {', '.join(endings)}")
        if path is not None and path.exists() and not arguments.resume:
            parser.error(f"{option}: got {path}, which exists already; allowed: a new file")
        if path is not None and not path.absolute().parent.is_dir():
            parser.error(f"{option}: got {path}, but {path.parent} does not exist; allowed: a folder that exists")
    if arguments.resume and arguments.out is None:
        parser.error("--resume: got no --out; allowed: the --out of the command that was killed")
    cli.guard(lambda: _predict(arguments), plugins=arguments.plugin)


def _predict(arguments: argparse.Namespace) -> None:
    from spectro.data.inputs import find_inputs
    from spectro.errors import DataError
    from spectro.files import remove_drafts
    from spectro.runs.predict import Predictor
    from spectro.runs.prediction_table import PredictionTable

    results = {"--sort-into": arguments.sort_into, "--contact-sheet": arguments.contact_sheet}
    for option, made in results.items():
        for folder in arguments.inputs if made else []:
            # Else it would be among the images that are classified after --resume.
            if folder.is_dir() and made.resolve().is_relative_to(folder.resolve()):
                raise DataError(f"{option}: got {made}, which lies in {folder}; allowed: outside of the images")
    inputs = find_inputs(arguments.inputs)
    # A glob may match what an earlier command, which was killed, has put there.
    for place in [made.resolve() for made in results.values() if made is not None]:
        inputs = [item for item in inputs if not item.path.resolve().is_relative_to(place)]
    if not inputs:
        raise DataError("INPUT: got only files in --sort-into or of --contact-sheet; allowed: images outside of them")
    with tempfile.TemporaryDirectory() as scratch:
        predictor = Predictor(_model_folder(arguments.model, arguments.tracking_uri, Path(scratch)))
    with closing(PredictionTable(arguments.out, predictor.columns, resume=arguments.resume)) as table:
        if table.is_whole:
            _say(f"{arguments.out} is whole already")
        for path in filter(None, (arguments.out, arguments.contact_sheet)):
            remove_drafts(path.absolute().parent, f".{glob.escape(path.name)}.*.tmp")
        if arguments.sort_into is not None:
            remove_drafts(arguments.sort_into, "*/.*.tmp")
        try:
            n_bad, n_review, uncertain = _classify(predictor, table, inputs, arguments.sort_into)
        except OSError as error:
            if arguments.out is None:
                # Python would write the rest of the rows at its end, with a second error.
                with suppress(OSError):
                    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if isinstance(error, BrokenPipeError):
                sys.exit(141)  # as of other programs behind which `head` has ended
            raise
        table.finish()
    if arguments.out is not None and not table.is_whole:
        flagged = f", {n_review:,} of them to look at (review)" if n_review else ""
        _say(f"written: {arguments.out}, {len(inputs) - n_bad:,} images{flagged}")
    if arguments.contact_sheet is not None:
        _draw(predictor, [item for item in inputs if item.name in uncertain], uncertain, arguments.contact_sheet)
    if n_bad:
        sys.exit(3)


def _model_folder(model: str, uri: str | None, scratch: Path) -> Path:
    """The model folder of a run directory, of the final run of a search, of a model folder, or of a name in MLflow."""
    from spectro.errors import ModelError

    run = Path(model)
    if not run.exists():
        from spectro.tracking.registry import fetch_model, is_reference

        if is_reference(model):
            uri = cli.store_of(uri, Path("outputs"))
            return fetch_model(model, uri, scratch)
    finals = list(run.glob("final_*/model"))
    folder = finals[0] if len(finals) == 1 else run if (run / "model.json").exists() else run / "model"
    if not folder.is_dir():
        inside = sorted(path.parent.parent for path in run.glob("*/model/model.json"))
        allowed = f"one of its runs, such as {inside[0]}" if inside else "a run directory with a model"
        raise ModelError(f"MODEL: got {str(run)!r}, which has no model; allowed: {allowed}")
    return folder


def _classify(
    predictor: "Predictor", table: "PredictionTable", inputs: "list[ImageInput]", folder: Path | None
) -> tuple[int, int, dict[str, tuple[str, float]]]:
    """Writes all rows; returns how many images are bad, and how many are flagged in the rows that are new, and the most
    uncertain ones: path -> label, probability.
    """
    from spectro.data.decode import BadImageError
    from spectro.data.look import LookCheck
    from spectro.progress import progress
    from spectro.runs.sorted_images import REVIEW, folder_name, sort_into

    n_bad, n_review = sum(not label for label, _ in table.done.values()), 0
    uncertain = _most_uncertain([(p, path, label) for path, (label, p) in table.done.items() if label])
    check, n_named, left = LookCheck(predictor.ranges), 0, table.remaining(inputs)
    start = last = time.monotonic()
    done = 0
    with progress("classifying", len(left), log=True) as advance:
        for batch in predictor.stream(left):
            rows = predictor.rows_of(batch)
            check.add(batch.looks)
            for warning in check.warnings():
                _say(f"warning: {warning}")
            for row in batch.good if folder else []:
                place = REVIEW if rows[row][-2] else folder_name(rows[row][1])
                try:
                    sort_into(Path(folder or "", place), batch.inputs[row], predictor.max_megapixels)
                except BadImageError as error:  # it was there a moment ago
                    _say(f"not sorted: {batch.inputs[row].name}: {error}")
            rows = rows[len(rows) - table.append(rows) :]
            for path, label, *_, review, reason in rows:
                n_review += review is True
                if label is None:
                    n_bad, n_named = n_bad + 1, n_named + 1
                    if n_named <= _NAMED:
                        _say(f"no image: {path}: {reason}")
            n_classes = len(predictor.stages[""])
            uncertain = _most_uncertain(
                [*uncertain, *((max(row[2 : 2 + n_classes]), row[0], row[1]) for row in rows if row[1] is not None)]
            )
            done, now = done + len(batch.inputs), time.monotonic()
            speed = done / (now - start)
            text = (
                f"{100 * done / len(left):.0f} %, {speed:.0f} images a second, {(len(left) - done) / speed:.0f} s left"
            )
            advance(len(batch.inputs), text if now > last + _SAY_S else None)
            last = now if now > last + _SAY_S else last
    if n_bad:
        _say(f"{n_bad:,} of {len(inputs):,} files hold no image: their rows have the reason, and no prediction")
    return n_bad, n_review, {path: (label, p) for p, path, label in uncertain}


def _say(text: str) -> None:
    """To stderr: stdout may be the table."""
    print(text, file=sys.stderr)


def _most_uncertain(rows: "list[tuple[float, str, str]]") -> "list[tuple[float, str, str]]":
    """The rows of the smallest probability of the predicted label: probability, path, label."""
    return heapq.nsmallest(_SHEET, rows)


def _draw(
    predictor: "Predictor", items: "list[ImageInput]", uncertain: dict[str, tuple[str, float]], out: Path
) -> None:
    from spectro.data.decode import BadImageError
    from spectro.figures.gallery import contact_sheet

    images, lines = [], []
    for item in [] if out.exists() else sorted(items, key=lambda item: uncertain[item.name][1]):
        with suppress(BadImageError):  # it has vanished since it was classified
            images.append(predictor.thumbnail(item, _SHEET_PX))
            label, p = uncertain[item.name]
            lines.append([label, f"p = {p:.2f}", "/".join(item.name.split("/")[-2:])])
    if images:
        contact_sheet(images, lines, out, "the most uncertain images", "p: probability of the predicted label")

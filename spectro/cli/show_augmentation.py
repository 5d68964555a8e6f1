"""Draws training records and their augmented views: ``spectro show-augmentation --out sheet.png [KEY=VALUE ...]``.

Takes the same KEY=VALUE words as ``spectro train``, e.g. ``data=folder data.root=DIR augmentation=mirror``.
"""

import argparse
from pathlib import Path

from spectro.cli import main as cli


def main() -> None:
    """Entry point of ``spectro show-augmentation`` and ``python scripts/show_augmentation.py``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("augmentation.png"), help="the image file to write")
    parser.add_argument("--records", type=int, default=2, help="training records of each class (default 2)")
    arguments = cli.parse_with_overrides(parser, "as for spectro train")
    if arguments.records < 1:
        parser.error(f"--records: got {arguments.records}; allowed: 1 or more")
    cli.guard(lambda: _draw(arguments.out, arguments.records, arguments.overrides), arguments.overrides)


def _draw(out: Path, per_class: int, overrides: list[str]) -> None:
    from spectro.data.augmentation import NOT_DRAWN
    from spectro.figures.gallery import sheet_figure
    from spectro.runs.task import SHOW_PX, load_data

    # A drawing needs no cascade, and so no look-alikes.
    config = cli.composed(["cascade_stage=flat", *overrides])
    dataset = load_data(config)
    train = dataset.of("train")
    of_class = ([record for record in train if record.label == label] for label in dataset.classes)
    records = [record for same in of_class for record in same[:per_class]]
    images, rows = dataset.images(records).augmented(config.augmentation, [r.source for r in records], per_epoch=False)
    sheet: list[tuple[str, str, dict]] = [(record.label, record.source, {}) for record in records]
    for row, view, seed, pixels in zip(rows, images.views, images.seeds, images.thumbnails(SHOW_PX), strict=True):
        cells, name = sheet[row][2], view
        if seed != NOT_DRAWN:
            name = f"{view}, random {1 + sum(other.startswith(f'{view}, ') for other in cells)}"
        cells[name] = pixels
    columns = list(dict.fromkeys(name for _, _, cells in sheet for name in cells))
    print(sheet_figure(sheet, columns, out, f"augmentation={config.common.augmentation.label}"))

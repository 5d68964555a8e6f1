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
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for spectro train")
    arguments = parser.parse_args()
    if arguments.records < 1:
        parser.error(f"--records: got {arguments.records}; allowed: 1 or more")
    cli.guard(lambda: _draw(arguments.out, arguments.records, arguments.overrides), arguments.overrides)


def _draw(out: Path, per_class: int, overrides: list[str]) -> None:
    from spectro.figures.gallery import sheet_figure
    from spectro.runs.task import SHOW, load_data, training_rows

    # A drawing needs no cascade, and so no look-alikes.
    config = cli.composed(["cascade_stage=flat", *overrides])
    dataset = load_data(config)
    train, rows, variants = training_rows(config, dataset)
    chosen = [i for label in dataset.classes for i in _first(train, label, per_class)]
    columns = list(dict.fromkeys(variants))
    shown = []
    for i in chosen:
        there = {v: row for row, v in zip(rows, variants, strict=True) if row == i}
        images = dataset.images([train[i]] * len(there), list(there)).pixels(SHOW)
        shown.append((train[i].label, train[i].source, dict(zip(there, images, strict=True))))
    print(sheet_figure(shown, columns, out, f"augmentation={config.common.augmentation.name}"))


def _first(records: list, label: str, n: int) -> list[int]:
    return [i for i, record in enumerate(records) if record.label == label][:n]

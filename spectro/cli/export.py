"""Writes the model of a run as an ONNX file, for programs without spectro.

    spectro export outputs/runs/RUN --out model.onnx

The file takes uint8 images and gives probabilities. It gets its name once it gives those of the original, to 1e-4, for
the val records of the run; size, speed and macro-F1 of both are printed. See docs/how-to/export.md.

Exit code: 0 written, 2 invalid arguments, or a model that cannot be exported.
"""

import argparse
from pathlib import Path

from spectro.cli import main as cli


def main() -> None:
    """Entry point of ``spectro export`` and ``python scripts/export.py``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run directory")
    parser.add_argument("--format", choices=["onnx"], default="onnx", help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("model.onnx"), help="a new file; default: %(default)s")
    parser.add_argument("--int8", action="store_true", help="a second file with 8-bit weights, FILE.int8.onnx")
    cli.add_plugin_option(parser)
    arguments = parser.parse_args()
    cli.guard(lambda: _export(arguments), plugins=arguments.plugin)


def _export(arguments: argparse.Namespace) -> None:
    from spectro.runs.export import export_onnx

    print(*export_onnx(arguments.run, arguments.out, int8=arguments.int8), f"written: {arguments.out}", sep="\n")

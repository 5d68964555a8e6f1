"""Which images to label next? Those that a model is least certain of, and that differ from one another.

    spectro suggest RUN UNLABELLED_DIR -n 50

RUN is a run directory; images whose bytes are among its records are passed over. Writes
outputs/suggest/<date>_<time>_<run>/: suggest.csv, with a column label to fill, and suggest.html with the images. See
docs/how-to/labels.md.

Exit code: 0 done, 2 invalid arguments, 3 some files hold no image (they are named).
"""

import argparse
import sys
from pathlib import Path

from spectro.cli import main as cli


def main() -> None:
    """Entry point of ``spectro suggest`` and ``python scripts/suggest.py``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="a run directory")
    parser.add_argument("images", type=Path, nargs="+", metavar="UNLABELLED_DIR", help="folders, images, zip archives")
    parser.add_argument("-n", type=int, default=50, help="how many images (default %(default)s)")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="default: %(default)s")
    cli.add_plugin_option(parser)
    arguments = parser.parse_args()
    if arguments.n < 1:
        parser.error(f"-n: got {arguments.n}; allowed: 1 or more")
    cli.guard(lambda: _suggest(arguments), plugins=arguments.plugin)


def _suggest(arguments: argparse.Namespace) -> None:
    from rich.markup import escape

    from spectro.labels.runs import find_run, result_folder
    from spectro.labels.suggest import suggest, write
    from spectro.paths import short
    from spectro.progress import say, status

    run = find_run(arguments.run, arguments.outputs)
    with status("looking at images"):
        found = suggest(run, arguments.images, arguments.n)
        folder = result_folder(arguments.outputs, "suggest", run)
        write(found, folder, short(run))
    say(f"{len(found.chosen)} of {found.n_images} images; {found.n_known} more are labelled already or there twice")
    say(escape(f"page:   {short(folder / 'suggest.html')}"))
    say(escape(f"table:  {short(folder / 'suggest.csv')}: fill label"))
    for name, reason in found.bad.items():
        print(f"left out: {name}: {reason}", file=sys.stderr)
    if found.bad:
        sys.exit(3)

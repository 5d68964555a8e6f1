"""Which labels may be wrong? And near-duplicates, and records unlike all others, of a cross-validated run.

    spectro audit RUN                     RUN: a run of validation=kfold, of all classes
    spectro audit RUN --apply audit.csv   a copy of the labels with the corrections in the column new_label

The first writes outputs/audit/<date>_<time>_<run>/: audit.html, audit.csv, duplicates.csv. Fill new_label of audit.csv,
or remove rows; the second then writes labels.csv beside it, a table for data=table. Your files are only read. See
docs/how-to/labels.md.

Exit code: 0 done, 2 invalid arguments, a run of another kind, or cleanlab is not installed.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from spectro.cli import main as cli

if TYPE_CHECKING:
    from spectro.comparison.load import Run


def main() -> None:
    """Entry point of ``spectro audit`` and ``python scripts/audit.py``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="a run directory")
    parser.add_argument("--apply", type=Path, metavar="FILE", help="an audit.csv that you have edited")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the new table; default: labels.csv beside audit.csv")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="default: %(default)s")
    cli.add_plugin_option(parser)
    arguments = parser.parse_args()
    if arguments.out is not None and arguments.apply is None:
        parser.error("--out: got a file without --apply; allowed: with --apply FILE")
    cli.guard(lambda: _audit(arguments), plugins=arguments.plugin)


def _audit(arguments: argparse.Namespace) -> None:
    from spectro.labels.runs import find_run, read_kfold_run

    run = read_kfold_run(find_run(arguments.run, arguments.outputs), ("flat", "full"), ["validation=kfold"])
    if arguments.apply is not None:
        _apply(run, arguments.apply, arguments.out)
        return
    import cleanlab  # noqa: F401  # where it is missing, before anything is read
    from rich.markup import escape

    from spectro.labels.audit import audit, write
    from spectro.labels.runs import result_folder
    from spectro.paths import in_shell, short
    from spectro.progress import say, status

    with status("auditing"):
        found = audit(run, arguments.outputs)
        folder = result_folder(arguments.outputs, "audit", run.info.folder)
        note = f"Run {run.origin} ({run.info.run_name}); data in {run.data.root}. The same in audit.csv, with a column "
        note += "new_label to fill. Labels of test are compared with no prediction."
        write(found, folder, f"Labels of {run.data.name}: {len(found.rows)} records", note)
    n_issues, n_far = (sum(row[key] is True for row in found.rows) for key in ("issue", "unlike_all_others"))
    across = sum(bool(pair["differs_in"]) for pair in found.pairs)
    say(f"{n_issues} labels of train and val are issues, {n_far} of {len(found.rows)} records are unlike all others")
    say(f"{across} near-duplicates across classes or splits, {len(found.pairs) - across} within")
    say(escape(f"page:   {short(folder / 'audit.html')}"))
    say(escape(f"table:  {short(folder / 'audit.csv')}: fill new_label or remove rows, then"))
    command = ["spectro", "audit", short(run.info.folder), "--apply", short(folder / "audit.csv")]
    say(escape(f"        {in_shell(command)}"))


def _apply(run: "Run", table: Path, out: Path | None) -> None:
    from rich.markup import escape

    from spectro.errors import DataError
    from spectro.labels.audit import write_corrected
    from spectro.labels.runs import train_command
    from spectro.paths import override, short
    from spectro.progress import say

    out = out or table.with_name("labels.csv")
    if out.exists() or not out.absolute().parent.is_dir():
        raise DataError(f"--out: got {str(out)!r}; allowed: a new file in a folder that exists")
    changed, removed = write_corrected(run, table, out)
    config = run.info.config
    words = ["data=table", override("data.table", str(out.absolute())), override("data.root", str(run.data.root))]
    words += [f"data.crop.{side}={px}" for side, px in (config["data"].get("crop") or {}).items() if px]
    # Which the demo data bring with them, and a table does not.
    brought = ("mapping", "augmentation") if config["data"]["kind"] == "demo" else ()
    say(escape(f"{changed} labels changed, {removed} of {len(run.records)} records left out: {short(out)}"))
    say(escape(f"train:  {train_command(run.info, words, without=('data',), brought=brought)}"))

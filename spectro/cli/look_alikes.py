"""Which classes look alike? Those that a flat run confuses beyond chance, and whether a cascade with them is better.

    spectro look-alikes RUN                      RUN: a run of cascade_stage=flat validation=kfold
    spectro look-alikes RUN --cascade RUN        the second one is a cascade, so that none is fitted here

Writes outputs/look_alikes/<date>_<time>_<run>/: pairs.csv, mapping/look_alikes.yaml for --config-dir, and
look_alikes.txt, what is printed. Out-of-fold predictions only; test is not read. See docs/how-to/labels.md.

Exit code: 0 done, also where no classes look alike; 2 invalid arguments or a run of another kind.
"""

import argparse
from pathlib import Path

from spectro.cli import main as cli

# Where the cross-validation of the flat model took longer, a cascade is not fitted here unasked.
_LONG_S = 600


def main() -> None:
    """Entry point of ``spectro look-alikes`` and ``python scripts/look_alikes.py``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="a run directory")
    parser.add_argument("--cascade", metavar="RUN", help="a finished cascade on the same records and folds")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="default: %(default)s")
    cli.add_plugin_option(parser)
    arguments = parser.parse_args()
    cli.guard(lambda: _look_alikes(arguments.run, arguments.cascade, arguments.outputs), plugins=arguments.plugin)


def _look_alikes(name: str, cascade_name: str | None, outputs: Path) -> None:
    from rich.markup import escape

    from spectro.errors import DataError, SpectroError
    from spectro.evaluation.format import format_number, format_p
    from spectro.files import write_rows, write_text
    from spectro.labels import look_alikes as la
    from spectro.labels.runs import find_run, read_kfold_run, result_folder, train_command
    from spectro.paths import in_shell, short
    from spectro.progress import say, status

    needed = ["cascade_stage=flat", "validation=kfold"]
    run = read_kfold_run(find_run(name, outputs), ("flat",), needed)
    comparison = None
    if cascade_name is not None:
        cascade = read_kfold_run(find_run(cascade_name, outputs), ("full",), ["validation=kfold"])
        comparison = la.compare_cascade(run.out_of_fold, cascade.out_of_fold, run.seed)
    pairs = la.confusions(run.out_of_fold)
    groups = la.groups_of_look_alikes(pairs)
    lines = []
    for pair in [pair for pair in pairs if pair.confused or pair.is_beyond_chance]:
        row = pair.row
        share, rate = (
            format_number(row[key], row[f"{key}_ci_low"], row[f"{key}_ci_high"])
            for key in ("share_of_wrong", "confused_of_pair")
        )
        lines.append(
            f"{' / '.join(pair.classes)}: {pair.confused} of {sum(pair.n)} are predicted as the other ({rate}); "
            f"{share} of all wrong predictions, {pair.chance:.2f} by chance, p {format_p(pair.p_value)}"
            + (" -> look-alikes" if pair.is_beyond_chance else "")
        )
    folder = result_folder(outputs, "look_alikes", run.info.folder)
    write_rows(folder / "pairs.csv", [pair.row for pair in pairs])
    if groups:
        la.write_mapping(folder, run.info.config, groups)
        words = [f"mapping={la.OPTION}", "cascade_stage=full", "validation=kfold"]
        command = train_command(run.info, words, without=("mapping", "cascade"))
        command += f" {in_shell(['--config-dir', short(folder)])}"
        lines += [f"group: {' + '.join(members)}" for members in groups.values()]
        if comparison is None:
            try:
                if run.info.wall_s.get("cross_validation", 0) > _LONG_S:
                    raise DataError("the cross-validation would take long")
                with status("cross-validating the cascade"):
                    fitted = la.cross_validated_cascade(run, groups, outputs)
                comparison = la.compare_cascade(run.out_of_fold, fitted, run.seed)
            except SpectroError as error:
                lines.append(f"a cascade with them is not compared here ({error}): train it, then add --cascade RUN")
    else:
        lines.append("no two classes are confused beyond chance: a cascade has nothing to merge")
    if comparison is not None:
        verdict = "is better than" if comparison.is_better else "is not shown to be better than"
        lines.append(
            f"{comparison.a} {verdict} {comparison.b}: macro-F1 {comparison.difference} out of fold, "
            f"p {format_p(comparison.p_difference)}; only {comparison.a} is right on {comparison.mcnemar.n_only_a} "
            f"sources, only {comparison.b} on {comparison.mcnemar.n_only_b}"
        )
    if groups:
        lines += [f"mapping: {short(folder / 'mapping' / f'{la.OPTION}.yaml')}", f"train:   {command}"]
    write_text(folder / "look_alikes.txt", "\n".join(lines) + "\n")
    for line in [*lines, f"table:   {short(folder / 'pairs.csv')}"]:
        say(escape(line))

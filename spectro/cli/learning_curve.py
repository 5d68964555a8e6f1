"""Would more labels help? Macro-F1 against the number of training records; test is not read.

    spectro learning-curve model=hog_svm,pixels data=demo
    spectro learning-curve --shares 0.25,0.5,1 --seeds 3 model=resnet18,deit_vpt train.epochs=10

Every record of train and val is evaluated by cross-validation, by models that were fitted to a share of their fold's
training records. Takes the same KEY=VALUE words as ``spectro train``, and several models; a knob that only some of
them have goes to those. Writes outputs/learning_curve/<date>_<time>/: curve.csv after every step, curve.png, curve.md.

Exit code: 0 done, 2 invalid arguments, 130 interrupted; what was measured by then is kept.
"""

import argparse
from datetime import datetime

from spectro.cli import main as cli
from spectro.errors import ConfigError
from spectro.paths import new_folder, short


def main() -> None:
    """Entry point of ``spectro learning-curve`` and ``python scripts/learning_curve.py``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shares = "shares of each fold's training records, above 0 to 1 (default %(default)s)"
    parser.add_argument("--shares", type=_shares, default="0.125,0.25,0.5,1", metavar="A,B,...", help=shares)
    parser.add_argument("--seeds", type=int, default=5, help="how often, with other folds and shares (default 5)")
    arguments = cli.parse_with_overrides(parser, "as for spectro train; model=A,B for several")
    if arguments.seeds < 1:
        parser.error(f"--seeds: got {arguments.seeds}; allowed: 1 or more")
    cli.guard(lambda: measure(arguments.overrides, arguments.shares, arguments.seeds), arguments.overrides)


def _shares(text: str) -> tuple[float, ...]:
    try:
        shares = tuple(sorted({float(part) for part in text.split(",")}))
    except ValueError:
        shares = ()
    if not shares or not all(0 < share <= 1 for share in shares):
        raise argparse.ArgumentTypeError(f"got {text!r}; allowed: numbers above 0, at most 1, e.g. 0.25,0.5,1")
    return shares


def measure(overrides: list[str], shares: tuple[float, ...], n_seeds: int) -> None:
    """Measures the curve of every model of the command line and writes it."""
    from spectro.config.schema import KFoldKnobs
    from spectro.runs.crossval import Folds
    from spectro.runs.learning_curve import LearningCurve
    from spectro.runs.task import Task, load_data

    configs = {}
    for model, words in _models(overrides).items():
        base = cli.composed(words)
        validation = base.common.validation
        if not isinstance(validation, KFoldKnobs):
            raise ConfigError(f"validation: got {validation.name!r}; allowed: kfold")
        if validation.repeats != 1:
            raise ConfigError(f"validation.repeats: got {validation.repeats}; allowed: 1, and --seeds for more")
        seeds = range(base.seed, base.seed + n_seeds)
        configs[model] = [cli.composed([*words, f"seed={seed}", f"validation.seed={seed}"]) for seed in seeds]
    for config, *_ in configs.values():
        config.prepare()
    first, *_ = next(iter(configs.values()))
    dataset = load_data(first)
    Folds.of(Task(first, dataset))  # invalid folds are reported before a folder is made
    folder = new_folder(first.outputs / "learning_curve" / datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))
    curve = LearningCurve(folder, dataset)
    try:
        curve.measure(configs, shares)
    finally:
        if curve.points:
            print(*curve.gains(), f"curve: {short(folder)}", sep="\n")
        else:
            folder.rmdir()


def _models(overrides: list[str]) -> dict[str, list[str]]:
    """The overrides of each model: without those of knobs that another model has and this one does not."""
    from spectro.config.groups import groups_on, search_path

    models = [word.removeprefix("model=") for word in overrides if word.startswith("model=")]
    overrides = [word for word in overrides if not word.startswith("model=")]
    names = list(dict.fromkeys((models or ["hog_svm"])[-1].split(",")))
    groups = groups_on(*search_path(overrides))
    sections = {name: {key.split(".")[0] for key in groups.keys_of("model", name)} for name in names}
    words = {}
    for name in names:
        others = set().union(*sections.values()) - sections[name]
        rest = [word for word in overrides if word.lstrip("+~").split("=")[0].split(".")[0] not in others]
        words[name] = ["validation=kfold", *rest, f"model={name}"]
    return words

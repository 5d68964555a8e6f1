"""One job of the command line: its configuration is checked, its folder is made, Hydra runs it."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf, open_dict
from rich.markup import escape

from spectro.errors import ConfigError
from spectro.files import write_text
from spectro.paths import in_shell, new_folder
from spectro.progress import say

if TYPE_CHECKING:
    from spectro.config.check import Config
    from spectro.config.groups import Groups


def job(cfg: DictConfig, varied: Sequence[str] = (), n_jobs: int | None = None) -> float | None:
    """The task that Hydra runs: one run, which returns its objective, or one trial of a search.

    A multirun has the keys in which its jobs differ and, where that is known, their number.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from spectro.config.check import check
    from spectro.runs import run as experiment

    hydra = HydraConfig.get()
    run_dir = Path(hydra.runtime.output_dir)
    try:
        if "trial" in cfg:
            from spectro.sweeps.trial import TrialSpec, run_submitted_trial

            spec = TrialSpec.read(cfg.trial)
            with open_dict(cfg):
                del cfg["trial"]
            run_submitted_trial(spec, cfg, run_dir)
            return None
        if (run_dir / "run.json").exists():
            raise ConfigError(f"{run_dir}: expected a new folder, got one that holds a run")
        if varied:
            differs = " ".join(word for word in hydra.overrides.task if word.split("=")[0] in varied)
            say(f"\n[bold]job {hydra.job.num + 1}{f' of {n_jobs}' if n_jobs else ''}: {escape(differs)}[/bold]")
        is_part = hydra.mode == RunMode.MULTIRUN and (run_dir.parent / "run.json").exists()
        config = check(cfg)
        if (written := run_dir / ".hydra" / "config.yaml").exists():
            # Plain values: a run that is resumed takes nothing from another environment.
            write_text(written, OmegaConf.to_yaml(cfg, resolve=True))
        return experiment.run(config, run_dir, parent=".." if is_part else None)
    except BaseException:
        _remove_unstarted(run_dir)
        raise


def _remove_unstarted(run_dir: Path) -> None:
    """A run that has not started leaves nothing behind: in its folder are Hydra's files only."""
    if run_dir.is_dir() and {path.name for path in run_dir.iterdir()} <= {".hydra", "train.log"}:
        shutil.rmtree(run_dir, ignore_errors=True)


def run(groups: "Groups", words: Sequence[str], run_hydra: Callable[..., None], flags: Sequence[str] = ()) -> None:
    """One run.

    ``run_hydra`` runs Hydra with a task function and further overrides. ``flags`` are what else the command line has.

    Raises:
        ConfigError: The configuration is not valid; nothing was written.
    """
    cfg, config = checked(groups, words)
    if config.common.sweep is not None:
        sweeper = f"sweeper={cfg.hydra.runtime.choices.sweeper}"
        command = in_shell(["spectro", "train", "--multirun", *flags, *words])
        raise ConfigError(f"{sweeper} needs --multirun (-m): {command}")
    config.prepare()  # finds missing weights before anything is written
    folder, override = result_folder(cfg, "run", words)
    errors: list[Exception] = []

    def task(cfg: DictConfig) -> None:
        try:
            job(cfg)
        except Exception as error:
            errors.append(error)  # before the message, Hydra would print another line

    try:
        run_hydra(task, override)
    except OSError as error:  # a full disk: Hydra's files are the first
        _remove_unstarted(folder)
        if error.errno is None:  # a folder of configurations that Hydra does not find
            raise
        raise OSError(error.errno, error.strerror, error.filename or str(folder)) from error
    if errors:
        raise errors[0]


def checked(groups: "Groups", words: Sequence[str]) -> tuple[DictConfig, "Config"]:
    """The composed and the valid configuration of one job.

    Raises:
        ConfigError: It cannot be composed, or is not valid.
    """
    from spectro.cli.explain import explained
    from spectro.config.check import check

    with explained(words, groups):
        cfg = groups.compose(words)
        option = cfg.hydra.runtime.choices.get("model")
        if option and cfg.model.name != option:
            raise ConfigError(f"model.name: got {cfg.model.name!r}; allowed with model={option}: {option}")
        return cfg, check(cfg, groups)


def result_folder(cfg: DictConfig, mode: str, words: Sequence[str]) -> tuple[Path, str]:
    """Makes the folder of a ``run`` or ``sweep``: the user's choice, or a new one that no other process has.

    Returns:
        The folder, and the override by which Hydra takes it.

    Raises:
        ConfigError: The user's choice holds results, or nothing can be written.
    """
    from hydra.core.override_parser.types import Quote, QuotedString

    outputs, folder = Path(cfg.outputs), Path(cfg.hydra[mode].dir)
    check_outputs(outputs)
    try:
        outputs.mkdir(parents=True, exist_ok=True)
        if not any(word.lstrip("+").startswith(f"hydra.{mode}.dir=") for word in words):
            folder = new_folder(folder)
        elif any(folder.glob("run.json" if mode == "run" else "*/run.json")):
            raise ConfigError(f"hydra.{mode}.dir: got {str(folder)!r}, which holds a run; expected a new folder")
        else:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"outputs: cannot write to {str(outputs)!r} ({error.strerror})") from error
    return folder, f"hydra.{mode}.dir={QuotedString(str(folder), Quote.double).with_quotes()}"


def check_outputs(outputs: Path) -> None:
    """Raises a ConfigError where nothing can be written below ``outputs``, which is not made if it is not there."""
    try:
        place = next(folder for folder in (outputs.absolute(), *outputs.absolute().parents) if folder.exists())
        TemporaryFile(dir=place).close()
    except OSError as error:
        raise ConfigError(f"outputs: cannot write to {str(outputs)!r} ({error.strerror})") from error

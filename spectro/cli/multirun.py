"""``--multirun``: several runs, which are one run in MLflow with its jobs below it, or a search."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spectro import interrupt
from spectro.cli.explain import conflict, explained
from spectro.cli.train import checked, job, own_folder
from spectro.config.check import Config
from spectro.errors import ConfigError
from spectro.paths import redact
from spectro.runs.runinfo import RunInfo

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

    from spectro.config.groups import Groups

# Characters of a name that a column of MLflow's pages shows.
_NAME = 48
# Of a key with more values than this only the first and the last are checked before the first job.
_MAX_CHECKED = 10


def multirun(groups: "Groups", words: Sequence[str], name: str, run_hydra: Callable[..., None]) -> None:
    """Runs the jobs of a command line, or the search that ``sweeper=`` names.

    Args:
        groups: The configuration groups.
        words: The overrides of the command line.
        name: The primary configuration.
        run_hydra: Runs Hydra with a task function and further overrides.

    Raises:
        ConfigError: A job is not valid; nothing was written.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    overrides = OverridesParser.create().parse_overrides(list(words))
    jobs = _jobs(overrides)
    with explained(jobs[0], groups, name):
        sweeper = groups.compose(jobs[0], name).hydra.runtime.choices["hydra/sweeper"]
    if message := conflict(jobs[0], groups, name):
        raise ConfigError(message)
    if sweeper == "study":
        # A search checks what it searches and opens its own run in MLflow.
        run_hydra(job)
        return
    for continuous in [o for o in overrides if o.is_sweep_override() and not o.is_discrete_sweep()]:
        if sweeper == "basic":
            key, _, value = str(continuous.input_line).partition("=")
            raise ConfigError(f"{key}: got {value}; allowed: a list of values, {key}=A,B, or a search, sweeper=NAME")
    configs = [checked(groups, job_words, name) for job_words in (jobs if sweeper == "basic" else jobs[:1])]
    cfg, config = configs[0]
    if cfg.hydra.runtime.choices["hydra/launcher"] == "basic":
        for _, job_config in configs:
            job_config.estimator().prepare()  # finds missing weights before the first job
    folder, override = own_folder(cfg, "sweep", words)
    task_words = [str(o.input_line) for o in overrides if not o.is_hydra_override()]
    varied = [str(o.input_line) for o in overrides if o.is_sweep_override()]
    open_parent(folder, config, task_words, varied)
    try:
        run_hydra(job, override)
    except BaseException as error:
        was_stopped = interrupt.caused(error)
        end_parent(folder, "KILLED" if was_stopped else "FAILED", "interrupted" if was_stopped else "a job failed")
        raise
    end_parent(folder, "FINISHED")


def _jobs(overrides: Sequence["Override"]) -> list[list[str]]:
    """Overrides of jobs that between them have every value once, of long lists the ends.

    Values that a search draws from an interval are left out.
    """
    values = []
    for override in overrides:
        if not override.is_sweep_override():
            values.append([str(override.input_line)])
        elif override.is_discrete_sweep():
            key = override.get_key_element()
            of_key = [f"{key}={value}" for value in override.sweep_string_iterator()]
            values.append(of_key if len(of_key) <= _MAX_CHECKED else [of_key[0], of_key[-1]])
    first = [of_key[0] for of_key in values]
    others = [[*first[:i], value, *first[i + 1 :]] for i, of_key in enumerate(values) for value in of_key[1:]]
    return [first, *others]


def open_parent(folder: Path, config: Config, words: Sequence[str], varied: Sequence[str]) -> None:
    """Writes the ``run.json`` of a multirun's folder and opens its MLflow run.

    Args:
        folder: The multirun's folder.
        config: The configuration of the first job.
        words: The overrides of the command line.
        varied: Those of them that make the jobs differ; the run is named after them.
    """
    name = redact(f"multirun {' '.join(varied)}".strip())
    info = RunInfo.of(config, folder, run_name=name if len(name) <= _NAME else f"{name[: _NAME - 1]}…")
    info.config = {"multirun": [redact(word) for word in words]}
    # Jobs may differ in their seed and in what the other tags are.
    info.tags, info.seed = {"multirun": "true", "git_commit": info.tags["git_commit"]}, None
    info.write()
    info.open_in_mlflow()


def end_parent(folder: Path, status: str, reason: str | None = None) -> None:
    """Ends a multirun's run and sends it.

    Args:
        folder: The multirun's folder.
        status: ``FINISHED``, ``FAILED`` or ``KILLED``.
        reason: Why it did not finish.
    """
    info = RunInfo.read(folder)
    ends = [RunInfo.read(path.parent).ended_at for path in folder.glob("*/run.json")]
    info.status, info.reason, info.ended_at = status, reason, max((end for end in ends if end), default=None)
    info.send_to_mlflow()

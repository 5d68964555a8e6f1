"""``--multirun``: several runs, which are one run in MLflow with its jobs below it, or a search."""

import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from spectro import interrupt
from spectro.cli.explain import conflict, explained
from spectro.cli.job import check_outputs, checked, job, result_folder
from spectro.config.check import Config
from spectro.errors import ConfigError
from spectro.paths import redact
from spectro.runs.runinfo import RunInfo
from spectro.runs.terminal import show_jobs

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

    from spectro.config.groups import Groups

# Characters of a name that a column of MLflow's pages shows.
_NAME = 48
# Of a key with more numbers than this only the smallest and the largest are checked before the first job.
_MAX_CHECKED = 10


def multirun(groups: "Groups", words: Sequence[str], run_hydra: Callable[..., None]) -> None:
    """Runs the jobs of a command line, or the search that ``sweeper=`` names; its arguments are those of a run.

    Raises:
        ConfigError: A job is not valid; nothing was written.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    overrides = OverridesParser.create().parse_overrides(list(words))
    jobs = _jobs(overrides)
    with explained(jobs[0], groups):
        composed = groups.compose(jobs[0])
        sweeper = composed.hydra.runtime.choices["hydra/sweeper"]
    if message := conflict(jobs[0], groups):
        raise ConfigError(message)
    if sweeper == "study":
        check_outputs(Path(composed.outputs))
        # A search checks what it searches and opens its own run in MLflow.
        run_hydra(job)
        return
    varied = [o for o in overrides if o.is_sweep_override()]
    if sweeper == "basic":
        for line in [str(o.input_line) for o in varied if not o.is_discrete_sweep()]:
            key, _, value = line.partition("=")
            raise ConfigError(f"{key}: got {value}; allowed: a list of values, {key}=A,B, or a search, sweeper=NAME")
    configs = [checked(groups, job_words) for job_words in (jobs if sweeper == "basic" else jobs[:1])]
    cfg, config = configs[0]
    if cfg.hydra.runtime.choices["hydra/launcher"] == "basic":
        for _, job_config in configs:
            job_config.prepare()  # finds missing weights before the first job
    folder, override = result_folder(cfg, "sweep", words)
    keys, n_jobs = [o.get_key_element() for o in varied], None
    if sweeper == "basic":
        n_jobs = math.prod(len(list(o.sweep_string_iterator())) for o in varied)
    task_words = [str(o.input_line) for o in overrides if not o.is_hydra_override()]
    _open(folder, config, task_words, " ".join(str(o.input_line) for o in varied))
    try:
        run_hydra(partial(job, varied=keys, n_jobs=n_jobs), override)
    except BaseException as error:
        _end(folder, *(("KILLED", "interrupted") if interrupt.caused(error) else ("FAILED", "a job failed")))
        raise
    _end(folder, "FINISHED")
    show_jobs(folder, keys)


def _jobs(overrides: Sequence["Override"]) -> list[list[str]]:
    """Overrides of jobs that between them have every value once, of long lists of numbers the ends.

    Values that a search draws from an interval are left out.
    """
    words = []
    for override in overrides:
        if not override.is_sweep_override():
            words.append([str(override.input_line)])
        elif override.is_discrete_sweep():
            values = list(override.sweep_string_iterator())
            for form in (r"-?\d+", r"-?\d+\.\d*") if len(values) > _MAX_CHECKED else ():
                ordered = sorted(filter(re.compile(form).fullmatch, values), key=float)
                values = [value for value in values if value not in ordered[1:-1]]
            words.append([f"{override.get_key_element()}={value}" for value in values])
    first = [values[0] for values in words]
    others = [[*first[:i], word, *first[i + 1 :]] for i, values in enumerate(words) for word in values[1:]]
    return [first, *others]


def _open(folder: Path, config: Config, words: Sequence[str], varied: str) -> None:
    """Writes the ``run.json`` of a multirun and opens its MLflow run, named after what makes the jobs differ."""
    name = redact(f"multirun {varied}".strip())
    info = RunInfo.of(config, folder, run_name=name if len(name) <= _NAME else f"{name[: _NAME - 1]}…")
    info.config = {"multirun": [redact(word) for word in words]}
    # Jobs may differ in their seed and in what the other tags are.
    info.tags, info.seed = {"multirun": "true", "git_commit": info.tags["git_commit"]}, None
    info.write()
    info.open_in_mlflow_beside()()


def _end(folder: Path, status: str, reason: str | None = None) -> None:
    """Ends a multirun's run, when its last job ended, and sends it."""
    info = RunInfo.read(folder)
    ends = [RunInfo.read(path.parent).ended_at for path in folder.glob("*/run.json")]
    info.status, info.reason, info.ended_at = status, reason, max((end for end in ends if end), default=None)
    info.send_to_mlflow_beside()

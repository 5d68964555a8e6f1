"""A search from its first trial to the one run that reads test."""

import os
import shlex
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from spectro import interrupt, tracking
from spectro.config.check import Config, check
from spectro.errors import ConfigError
from spectro.paths import short
from spectro.progress import say, status
from spectro.runs import run as experiment
from spectro.runs.crossval import Folds
from spectro.runs.runinfo import RunInfo
from spectro.runs.task import Task
from spectro.sweeps import report
from spectro.sweeps.launcher import POLL_S, Launch, SweepError, has_died_before, submit
from spectro.sweeps.space import Space, nested, without_search, write_best
from spectro.sweeps.study import ID, claim, end_trial, fail_stale, heartbeat, open_study, running
from spectro.sweeps.trial import TrialSpec, dataset_of, reason_of, run_trial

if TYPE_CHECKING:
    import optuna

# While trials run, sending them to MLflow pauses so many times as long as it works, or short trials would be slower.
_PAUSE = 19


class Search:
    """One process's work on a study until that has ``n_trials``.

    Args:
        space: The search space.
        storage: The study's database.
        name: Its name; None: made from model, stage, data and a hash of the settings.
        sampler: The sampler's configuration.
        make_sampler: Number of a draw -> a sampler.
        n_trials: How many trials the study is to have.
        n_jobs: How many are submitted to ``launch`` at a time.
        launch: Runs jobs in other processes; None: trials run in this one, one after the other.

    Raises:
        SpectroError: A single run would be refused, or the study has other settings.
    """

    def __init__(
        self,
        space: Space,
        *,
        storage: str,
        name: str | None,
        sampler: Any,
        make_sampler: Callable[[int], Any],
        n_trials: int,
        n_jobs: int,
        launch: Launch | None,
    ):
        self._space = space
        self._storage = storage
        self._sampler = sampler
        self._make_sampler = make_sampler
        self._n_trials = n_trials
        self._n_jobs = 1 if launch is None else n_jobs
        self._launch = launch
        self._config = check(space.config({}))
        if self._config.common.objective is None:
            raise ConfigError("objective: got null; allowed in a search: a val or cv metric, e.g. val/macro_f1")
        self._config.estimator().prepare()
        self._dataset = dataset_of(self._config)
        task = Task(self._config, self._dataset)
        task.check()
        Folds.of(task)
        settings = {**space.settings(self._config, sampler), "data.fingerprint": self._dataset.fingerprint}
        self.name = name or report.name_of(self._config, settings)
        self._study = open_study(self._storage, self.name, settings)
        self.folder = Path(self._config.common.outputs).absolute() / "sweeps" / self.name
        info = report.read_info(self.folder)
        is_own = info is not None and info.study_id == self._study.user_attrs[ID]
        if not is_own and self.folder.exists() and any(self.folder.iterdir()):
            raise ConfigError(
                f"study: got {self.name!r}, whose folder {self.folder} holds another study or other runs; allowed: "
                "study=NAME with a new name, or the storage that it came from"
            )

    def run(self) -> None:
        """Runs trials until the study has its total, then fits the best configuration and reads test.

        Raises:
            SweepError: Every trial failed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lock():
            info = report.open_info(self.folder, self._config, self._study, self._space, self._sampler, self._dataset)
            info.open_in_mlflow()
        self._fail_stale()
        progress = report.Progress(self._study, self._n_trials, self._space)
        progress.begin()
        try:
            with _sender() as send, heartbeat(self._study):
                for run_dir in self._unsent():
                    send(run_dir)
                while trials := self._next_trials():
                    if self._launch is None:
                        self._run(trials[0], send)
                        progress.ended(trials[0].number)
                    else:
                        self._submit(trials, self._launch, progress.ended)
            with self._lock():
                self._finish()
                report.end_info(info, self._study, "FINISHED")
        except BaseException as error:
            end = "KILLED" if interrupt.caused(error) else "FAILED"
            report.end_info(info, self._study, end, reason_of(error))
            raise

    def _next_trials(self) -> list["optuna.trial.Trial"]:
        """Draws the next trials; waits for those of other processes, whose place may become free. None are left: []."""
        from filelock import FileLock

        is_waiting = False
        while True:
            with FileLock(self.folder / "draw.lock"):
                self._fail_stale()
                space = self._space.distributions
                draws = (claim(self._study, space, self._n_trials, self._make_sampler) for _ in range(self._n_jobs))
                trials = [trial for trial in draws if trial is not None]
            others = running(self._study)
            if trials or not others:
                return trials
            if not is_waiting:
                numbers = ", ".join(str(trial.number) for trial in others)
                report.print_line(f"no trials are left to draw: waiting for {numbers} in other processes")
                is_waiting = True
            time.sleep(POLL_S)

    def _fail_stale(self) -> None:
        for number in fail_stale(self._study):
            report.print_line(f"trial {number} was killed and does not count")

    def _unsent(self) -> list[Path]:
        """Trials that ended in a process that was killed before it sent them to MLflow."""
        infos = [RunInfo.read(path.parent) for path in sorted(self.folder.glob("[0-9]*/run.json"))]
        return [info.folder for info in infos if not info.mlflow.sent and not tracking.is_alive(info.content())]

    @contextmanager
    def _lock(self) -> Iterator[None]:
        from filelock import FileLock, Timeout

        lock = FileLock(self.folder / "sweep.lock")
        try:
            lock.acquire(timeout=1)
        except Timeout:
            say("another process makes this sweep's final run: waiting")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _prepared(self, trial: "optuna.trial.Trial") -> Config | None:
        """A trial's checked configuration, written into its folder; None where the trial has ended without a run.

        A point that was tried before gets the value that it had: it would come out again.
        """
        earlier = self._study.get_trials(deepcopy=False)[: trial.number]
        same = next((t for t in earlier if t.params == trial.params and t.state.name == "COMPLETE"), None)
        if same is not None:
            end_trial(self._study, trial.number, "COMPLETE", same.value, same_as=same.number)
            return None
        try:
            cfg = self._space.config(trial.params)
            config = check(cfg)
        except Exception as error:  # an invalid combination, or a choice that Hydra cannot compose
            end_trial(self._study, trial.number, "FAIL", reason=reason_of(error).splitlines()[0])
            return None
        self._space.save(self.folder / str(trial.number), cfg, trial.params)
        return config

    def _run(self, trial: "optuna.trial.Trial", send: Callable[[Path], None]) -> None:
        if (config := self._prepared(trial)) is not None:
            run_dir = self.folder / str(trial.number)
            run_trial(self._study, config, run_dir, trial.number, nested(self._space.shown(trial.params)))
            send(run_dir)

    def _submit(self, trials: Sequence["optuna.trial.Trial"], launch: Launch, on_end: Callable[[int], None]) -> None:
        # A trial that has ended its process must not end others' again.
        alone = [[trial] for trial in trials if has_died_before(self._study, trial)]
        together = [trial for trial in trials if [trial] not in alone]
        for group in [together, *alone]:
            to_run = []
            for trial in group:
                if self._prepared(trial) is None:
                    on_end(trial.number)
                else:
                    to_run.append(trial)
            if to_run:
                jobs = {trial.number: self._job(trial, len(to_run)) for trial in to_run}
                submit(self._study, jobs, self.folder, launch, on_end)

    def _job(self, trial: "optuna.trial.Trial", n_submitted: int) -> list[str]:
        """A trial as overrides."""
        params = nested(self._space.shown(trial.params))
        place = (os.getcwd(), socket.gethostname())
        folder = str(self.folder).replace("'", "\\'")
        return [
            *self._space.fixed,
            *self._space.overrides(trial.params),
            TrialSpec(self._storage, self.name, trial.number, params, n_submitted, *place).override(),
            f"hydra.sweep.dir='{folder}'",
            f"hydra.sweep.subdir='{trial.number}'",
            "hydra.output_subdir=null",
        ]

    def _finish(self) -> None:
        """Writes the tables and figures, and fits the best configuration if no process has."""
        report.write_tables(self.folder, self._study, self._space)
        if all(trial.state.name != "COMPLETE" for trial in self._study.get_trials(deepcopy=False)):
            raise SweepError(report.why_all_failed(self._study, self.folder))
        best, seed, objective = self._study.best_trial, self._config.sweep.final_seed, self._config.common.objective
        report.draw(self.folder / "figures", self._study, str(objective))
        cfg = self._space.config(best.params, seed=seed)
        alone = without_search(cfg)
        write_best(self.folder, alone, f"trial {best.number} of {self.name}, {objective} {best.value:.4f}")
        run_dir = self.folder / f"final_trial_{best.number}_seed_{seed}"
        before = report.read_info(run_dir)
        report.print_line(f"best: trial {best.number}, {best.value:.4f}; fitted again, and then on test:")
        if before is None or before.status != "FINISHED":
            self._space.save(run_dir, cfg, best.params)
            belonging: dict[str, Any] = {
                "run_name": f"final: trial {best.number} of {self.name}",
                "parent": "..",
                "tags": {"study": self.name, "final": "true", "trial": str(best.number)},
            }
            experiment.run(check(alone), run_dir, before, **belonging)
        folder = escape(shlex.quote(short(self.folder)))
        report.print_line(f"sweep:  {folder} (trials.csv, figures/, {run_dir.name}/)")
        report.print_line(f"again:  spectro train --config-dir {folder} --config-name best_config")


@contextmanager
def _sender() -> Iterator[Callable[[Path], Any]]:
    """Yields a function that sends a run directory to MLflow beside the fits; leaves when all are sent."""
    is_over = threading.Event()

    def work(run_dir: Path) -> None:
        start = time.perf_counter()
        RunInfo.read(run_dir).send_to_mlflow()
        is_over.wait(_PAUSE * (time.perf_counter() - start))

    with ThreadPoolExecutor(1, thread_name_prefix="mlflow") as pool:
        try:
            yield lambda run_dir: pool.submit(work, run_dir)
        finally:
            is_over.set()
            with status("sending to MLflow"):
                pool.shutdown()

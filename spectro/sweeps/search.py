"""A search from its first trial to the one run that reads test."""

import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectro import interrupt, tracking
from spectro.config.check import Config, check
from spectro.errors import ConfigError
from spectro.progress import say, status
from spectro.runs import run as experiment
from spectro.runs.runinfo import RunInfo
from spectro.sweeps import study as studies
from spectro.sweeps import summary
from spectro.sweeps.elsewhere import Launch, SweepError, hand_out, has_died_before
from spectro.sweeps.space import Space, nested, quoted
from spectro.sweeps.storage import absolute
from spectro.sweeps.trial import Ticket, dataset_of, run_trial
from spectro.sweeps.watch import Watch

if TYPE_CHECKING:
    import optuna

# How often others are asked how far they are.
_POLL_S = 0.5
# While trials run, sending them rests so many times as long as it works: short trials would wait for it otherwise.
_REST = 19


class Search:
    """One study on its way to ``n_trials``.

    Args:
        space: What is searched and what stays.
        storage: The study's database.
        name: Its name; None: made from model, stage, data and a hash of the settings.
        sampler: The sampler's configuration, to be shown and compared.
        make_sampler: Number of a draw -> a sampler.
        n_trials: How many trials the study shall have.
        n_jobs: How many are handed to ``launch`` at a time.
        launch: Hands jobs to other processes; None: trials run in this one, after each other.
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
        self._storage = absolute(storage)
        self._n_trials = n_trials
        self._n_jobs = n_jobs
        self._launch = launch
        self._config = check(space.config({}))
        if self._config.common.objective is None:
            raise ConfigError("objective: got null; allowed in a search: a val or cv metric, e.g. val/macro_f1")
        # All that a single run would be refused for.
        self._config.estimator().prepare()
        self._dataset = dataset_of(self._config)
        experiment.check_data(self._config, self._dataset)
        settings = {**space.settings(self._config, sampler), "data.fingerprint": self._dataset.fingerprint}
        self.name = name or summary.name_of(self._config, settings)
        self._study = studies.open_study(self._storage, self.name, settings, studies.sampler_by_trial(make_sampler))
        self.folder = Path(self._config.common.outputs).absolute() / "sweeps" / self.name
        self._sampler = sampler
        self._check_folder()

    def _check_folder(self) -> None:
        """The folder of a study of this name that lies in another database must not get this one's trials."""
        here = self._study.user_attrs[studies.ID]
        found = RunInfo.read(self.folder).study_id if (self.folder / "run.json").exists() else None
        if found != here and self.folder.exists() and any(self.folder.iterdir()):
            raise ConfigError(
                f"study: got {self.name!r}, whose folder {self.folder} holds another study or other runs; allowed: "
                "study=NAME with a new name, or the storage that it came from"
            )

    def run(self) -> None:
        """Goes on with the study until it has its trials, then fits the best configuration and reads test.

        Raises:
            SweepError: Every trial failed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lock():
            info = summary.open_card(self.folder, self._config, self._study, self._space, self._sampler, self._dataset)
            info.open_in_mlflow()
        watch = Watch(self._study, self.folder, self._n_trials, self._space)
        stale = studies.fail_stale(self._study)
        watch.begin(stale)
        try:
            with _sender() as send, studies.beating(self._study):
                for run_dir in self._unsent():
                    send(run_dir)
                while (trials := self._claim()) or self._waits_for_others(watch):
                    if self._launch is None:
                        for trial in trials:
                            self._run_here(trial, send)
                            watch.tell(trial.number)
                    else:
                        self._run_elsewhere(trials, self._launch, watch.tell)
            if running := self._running():
                watch.others(running)
            else:
                self._finish(info, watch)
        except BaseException as error:
            was_stopped = interrupt.caused(error)
            reason = str(error) if isinstance(error, SweepError) else f"{type(error).__name__}: {error}".strip(": ")
            summary.end_card(self.folder, info, self._study, "KILLED" if was_stopped else "FAILED", reason)
            raise

    def _claim(self) -> list["optuna.trial.Trial"]:
        drawn = []
        for _ in range(1 if self._launch is None else self._n_jobs):
            trial = studies.claim(self._study, self._space.distributions, self._n_trials)
            if trial is None:
                break
            drawn.append(trial)
        return drawn

    def _running(self) -> list["optuna.trial.FrozenTrial"]:
        return [t for t in studies.counting(self._study.get_trials(deepcopy=False)) if not t.state.is_finished()]

    def _waits_for_others(self, watch: Watch) -> bool:
        """Whether trials that others are at may still have to be made here; waits a little if so.

        Another search brings its own to an end. A worker's may outlive the search that it worked for.
        """
        running = self._running()
        if stale := studies.fail_stale(self._study):
            watch.killed(stale)
            return True
        if all((trial.user_attrs.get(studies.OWNER) or {}).get("searches") for trial in running):
            return False
        time.sleep(_POLL_S)
        return True

    def _unsent(self) -> list[Path]:
        """Trials that ended before they were sent to MLflow, in a process that was killed."""
        folders = [path.parent for path in self.folder.glob("[0-9]*/run.json")]
        unsent = [info for folder in sorted(folders) if not (info := RunInfo.read(folder)).mlflow.sent]
        return [info.folder for info in unsent if not tracking.is_alive(info.content())]

    @contextmanager
    def _lock(self) -> Iterator[None]:
        from filelock import FileLock, Timeout

        lock = FileLock(self.folder / "sweep.lock")
        try:
            lock.acquire(timeout=1)
        except Timeout:
            say("another process is at this sweep's final run: waiting")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _ticket(self, trial: "optuna.trial.Trial", jobs: int = 1) -> Ticket:
        shown = nested(self._space.shown(trial.params))
        threads = self._config.sweep.threads
        return Ticket(self._storage, self.name, trial.number, shown, threads, jobs, os.getcwd(), socket.gethostname())

    def _prepared(self, trial: "optuna.trial.Trial") -> Config | None:
        """A trial's checked configuration, written into its folder; None where the trial has failed by it."""
        try:
            cfg = self._space.config(trial.params)
            config = check(cfg)
        except Exception as error:  # a combination that is not allowed, or a choice that Hydra cannot compose
            studies.give_up(self._study, trial.number, f"{type(error).__name__}: {error}".splitlines()[0])
            return None
        self._space.save(self.folder / str(trial.number), cfg, trial.params)
        return config

    def _run_here(self, trial: "optuna.trial.Trial", send: Callable[[Path], None]) -> None:
        if self._copy_value(trial) or (config := self._prepared(trial)) is None:
            return
        run_dir = self.folder / str(trial.number)
        if run_trial(config, run_dir, self._ticket(trial)) is not None:
            send(run_dir)

    def _run_elsewhere(
        self, trials: Sequence["optuna.trial.Trial"], launch: Launch, tell: Callable[[int], None]
    ) -> None:
        new = [trial for trial in trials if studies.twin(self._study, trial) is None]
        # One that has killed its process shall not take another with it.
        alone = [trial for trial in new if has_died_before(self._study, trial)]
        for together in ([trial for trial in new if trial not in alone], *([trial] for trial in alone)):
            self._hand_out(together, launch, tell)
        # Those that have a twin wait for its value.
        for trial in trials:
            if trial not in new:
                if self._copy_value(trial):
                    tell(trial.number)
                else:
                    self._hand_out([trial], launch, tell)

    def _hand_out(self, trials: Sequence["optuna.trial.Trial"], launch: Launch, tell: Callable[[int], None]) -> None:
        jobs = {}
        for trial in trials:
            if self._prepared(trial) is None:
                tell(trial.number)
                continue
            jobs[trial.number] = [
                *self._space.fixed,
                *self._space.overrides(trial.params),
                *self._ticket(trial, len(trials)).overrides(),
                f"hydra.sweep.dir={quoted(str(self.folder))}",
                f"hydra.sweep.subdir={quoted(str(trial.number))}",
                "hydra.output_subdir=null",
            ]
        if jobs:
            hand_out(self._study, jobs, self.folder, launch, tell)

    def _copy_value(self, trial: "optuna.trial.Trial") -> bool:
        """Gives a point that was tried before the value that it had: it would come out again."""
        while (other := studies.twin(self._study, trial)) is not None:
            if other.values:
                studies.end(self._study, trial.number, other.values[0], marks={studies.SAME_AS: other.number})
                return True
            # Another process is at it, and will have it sooner than this one.
            studies.fail_stale(self._study)
            time.sleep(_POLL_S)
        return False

    def _finish(self, info: Any, watch: Watch) -> None:
        from optuna.trial import TrialState

        summary.write_tables(self.folder, self._study, self._space)
        if not self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            raise SweepError(summary.why_all_failed(self._study, self.folder))
        best = self._study.best_trial
        run_dir = self.folder / f"final_trial_{best.number}_seed_{self._config.sweep.final_seed}"
        with self._lock():
            summary.draw(self.folder / "figures", self._study, str(self._config.common.objective))
            cfg = self._space.alone(best.params, seed=self._config.sweep.final_seed)
            told = f"trial {best.number} of {self.name}, {self._config.common.objective} {best.value:.4f}"
            self._space.save_best(self.folder, cfg, told)
            before = RunInfo.read(run_dir) if (run_dir / "run.json").exists() else None
            watch.best(best)
            if before is None or before.status != "FINISHED":
                self._space.save(run_dir, cfg, best.params)
                extra = {
                    "run_name": f"final: trial {best.number} of {self.name}",
                    "parent": "..",
                    "tags": {"study": self.name, "final": "true", "trial": str(best.number)},
                }
                experiment.run(check(cfg), run_dir, before, extra)
        summary.end_card(self.folder, info, self._study, "FINISHED")
        watch.end(self.folder, run_dir)


@contextmanager
def _sender() -> Any:
    """Sends finished trials to MLflow beside the fits, but takes little of their time; leaves when all are sent."""
    waiting: queue.Queue[Path | None] = queue.Queue()
    is_over = threading.Event()

    def work() -> None:
        while (run_dir := waiting.get()) is not None:
            begun = time.perf_counter()
            RunInfo.read(run_dir).send_to_mlflow()
            is_over.wait(_REST * (time.perf_counter() - begun))

    thread = threading.Thread(target=work, name="mlflow", daemon=True)
    thread.start()
    try:
        yield waiting.put
    finally:
        waiting.put(None)
        is_over.set()
        with status("sending to MLflow"):
            thread.join()

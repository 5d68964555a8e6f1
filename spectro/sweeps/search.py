"""A search from its first trial to the one run that reads test."""

import hashlib
import itertools
import json
import os
import re
import shlex
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from optuna.trial import FrozenTrial
from rich.markup import escape

from spectro import interrupt, tracking
from spectro.config.check import Config, check
from spectro.config.schema import Common
from spectro.errors import ConfigError
from spectro.files import locked
from spectro.paths import short
from spectro.progress import say, status
from spectro.runs import run as experiment
from spectro.runs.crossval import Folds
from spectro.runs.ensemble import choose
from spectro.runs.predictions import read_predictions
from spectro.runs.runinfo import DataInfo, RunInfo
from spectro.runs.task import Task, data_name
from spectro.runs.terminal import BASELINES, show_next
from spectro.sweeps import report
from spectro.sweeps.launcher import POLL_S, Launch, SweepError, has_died_before, submit
from spectro.sweeps.space import SWEEP_KEYS, Space, in_words, nested, without_search, write_best
from spectro.sweeps.study import (
    DRAW,
    ID,
    REASON,
    claim,
    complete,
    counting,
    end_trial,
    fail_stale,
    heartbeat,
    open_study,
    running,
)
from spectro.sweeps.trial import TrialSpec, dataset_of, reason_of, run_trial

# While trials run, sending them to MLflow pauses so many times as long as it works, or short trials would be slower.
_PAUSE = 19
# The classes that a configuration may name as its sampler.
_TRUSTED = ("optuna.*", "hydra_plugins.hydra_optuna_sweeper.*")


class Search:
    """One process's work on a study until that has all its trials.

    ``launch`` runs jobs in other processes; without it trials run in this one, one after the other.

    Raises:
        SpectroError: A single run would be refused, or the study has other settings.
    """

    def __init__(self, space: Space, sweeper: DictConfig, launch: Launch | None):
        self._space, self._sweeper, self._launch = space, sweeper, launch
        self._config = check(space.config({}))
        for key in ("objective", "storage", "n_trials"):
            if getattr(self._config.common, key) is None:
                raise ConfigError(f"{key}: got null; a search must have one")
        direction = str(getattr(sweeper.direction, "name", sweeper.direction))
        if direction != "maximize":
            raise ConfigError(f"hydra.sweeper.direction: got {direction}; allowed: maximize (of every objective)")
        self._check_ensemble()
        self._make_sampler, self._start = sampler_of_draw(sweeper.sampler), space.start()
        self._config.prepare()
        self._dataset = dataset_of(self._config)
        task = Task(self._config, self._dataset)
        task.check()
        Folds.of(task)
        sampler: Any = OmegaConf.to_container(sweeper.sampler, resolve=True)
        settings = {**space.settings(self._config, sampler), "data.fingerprint": self._dataset.fingerprint}
        self.name: str = sweeper.study_name or name_of(self._config, settings)
        self._study = open_study(sweeper.storage, self.name, settings)
        self._objective = str(self._config.common.objective)
        self._say_end = partial(report.say_trial, self._study, space, self._objective, sweeper.n_trials)
        self.folder = self._config.outputs.absolute() / "sweeps" / self.name
        info = _read_info(self.folder)
        is_own = info is not None and info.study_id == self._study.user_attrs[ID]
        if not is_own and any(path.suffix != ".lock" for path in self.folder.glob("*")):
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
        with locked(self.folder / "sweep.lock"):
            info = self._open_info()
        report.say_begin(self._study, self._space, self._objective, self._sweeper.n_trials)
        try:
            with _sender() as send, heartbeat(self._study):
                for path in sorted(self.folder.glob("[0-9]*/run.json")):
                    trial = RunInfo.read(path.parent)
                    # Its process was killed before it did. Of one without an end the study has the last word.
                    is_over = trial.status != "RUNNING" and not tracking.is_alive(trial.content())
                    if is_over and not trial.mlflow.sent:
                        send(trial.folder)
                self._end_killed(range(len(self._study.get_trials(deepcopy=False))), send)
                while trials := self._next_trials(send):
                    self._run(trials, send)
            with locked(self.folder / "sweep.lock"):
                final = self._finish()
                report.end_info(info, self._study, self._space, "FINISHED", final=final)
        except BaseException as error:
            end = "KILLED" if interrupt.caused(error) else "FAILED"
            with suppress(Exception):  # a full disk, of which the first error says so, has many types
                report.end_info(info, self._study, self._space, end, reason_of(error))
            raise

    def _open_info(self) -> RunInfo:
        """``run.json`` of the sweep's folder; a resumed search keeps its MLflow run."""
        tags = {"study": self.name, "sweep": "true", "data_fingerprint": self._dataset.fingerprint}
        before = _read_info(self.folder)
        info = RunInfo.of(self._config, self.folder, before=before, run_name=f"sweep {self.name}", tags=tags)
        info.study_id, info.data = self._study.user_attrs[ID], DataInfo.of(self._config, self._dataset)
        info.config = {
            "search": nested({key: in_words(value) for key, value in self._space.distributions.items()}),
            "sampler": {key: value for key, value in self._sweeper.sampler.items() if value is not None},
            "objective": self._config.common.objective,
            # Not the number of trials: it may grow, and MLflow does not change parameters.
            **{key: value for key, value in info.config.items() if key not in (*SWEEP_KEYS, "objective")},
        }
        info.write()
        info.open_in_mlflow_beside()()
        return info

    def _end_killed(self, numbers: Iterable[int], send: Callable[[Path], Any]) -> None:
        """Writes into the ``run.json`` of trials what the study has: that their process was killed."""
        trials = self._study.get_trials(deepcopy=False)
        for trial in [trials[number] for number in numbers if trials[number].state.is_finished()]:
            info = _read_info(self.folder / str(trial.number))
            if info is not None and info.status == "RUNNING":
                info.status, info.reason = "KILLED", trial.user_attrs.get(REASON)
                info.write()
                send(info.folder)

    def _next_trials(self, send: Callable[[Path], Any]) -> list[optuna.trial.Trial]:
        """Draws the next trials; waits for those of other processes, whose place may become free. None are left: []."""
        n_jobs = 1 if self._launch is None else self._sweeper.n_jobs
        for round_ in itertools.count():
            with locked(self.folder / "draw.lock"):
                killed = fail_stale(self._study)
                for number in killed:
                    say(f"trial {number} was killed and does not count")
                self._end_killed(killed, send)
                space, total = self._space.distributions, self._sweeper.n_trials
                draws = [claim(self._study, space, total, self._make_sampler, self._start) for _ in range(n_jobs)]
            trials = [trial for trial in draws if trial is not None]
            others = [str(trial.number) for trial in running(self._study)]
            if trials or not others:
                break
            if round_ == 0:
                say(f"no trials are left to draw: waiting for {', '.join(others)} in other processes")
            time.sleep(POLL_S)
        return trials

    def _run(self, trials: Sequence[optuna.trial.Trial], send: Callable[[Path], Any]) -> None:
        """Runs trials here, or submits them."""
        to_submit = []
        for trial in trials:
            config = self._prepared(trial)
            if config is not None and self._launch is not None:
                to_submit.append(trial.number)
                continue
            if config is not None:
                run_dir = self.folder / str(trial.number)
                run_trial(self._study, config, run_dir, trial.number, nested(self._space.shown(trial.params)))
                send(run_dir)
            self._say_end(trial.number)
        # A trial that has ended its process must not end others' again.
        alone = [number for number in to_submit if has_died_before(self._study, number)]
        for group in [[number for number in to_submit if number not in alone], *([number] for number in alone)]:
            jobs = {trial.number: self._job(trial) for trial in trials if trial.number in group}
            if jobs and self._launch is not None:
                submit(self._study, jobs, self.folder, self._launch, self._say_end)
                self._end_killed(jobs, send)

    def _prepared(self, trial: optuna.trial.Trial) -> Config | None:
        """A trial's checked configuration, written into its folder; None where the trial has ended without a run.

        A point that was tried before gets the value that it had: it would come out again.
        """
        same = next((t for t in complete(self._study) if t.params == trial.params), None)
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

    def _job(self, trial: optuna.trial.Trial) -> list[str]:
        """A trial as overrides."""
        params = nested(self._space.shown(trial.params))
        folder = str(self.folder).replace("'", "\\'")
        return [
            *self._space.fixed,
            *self._space.overrides(trial.params),
            TrialSpec(self._sweeper.storage, self.name, trial.number, params, os.getcwd()).override(),
            f"hydra.sweep.dir='{folder}'",
            f"hydra.sweep.subdir='{trial.number}'",
            "hydra.output_subdir=null",
        ]

    def _check_ensemble(self) -> None:
        """Refuses an ensemble of more trials than there will be, or whose members differ in what only a run can."""
        common, k = self._config.common, self._config.sweep.ensemble
        if k > self._sweeper.n_trials:
            raise ConfigError(f"sweep.ensemble: got {k}; allowed: 1 to {self._sweeper.n_trials} (n_trials)")
        if self._config.sweep.greedy and k == 1:
            raise ConfigError("sweep.greedy: got true; allowed with sweep.ensemble=1: false")
        common_keys = Common.model_fields.keys() - {"model", "stages"}
        searched = [key for key in self._space.distributions if re.split("[./@]", key)[0] in common_keys]
        if k > 1 and (searched or common.ensemble.settings):
            got = f"{', '.join(searched)} searched" if searched else "ensemble.settings"
            raise ConfigError(f"sweep.ensemble: got {k} with {got}; allowed: 1 (members differ by keys of models)")

    def _members(self) -> list[FrozenTrial]:
        """The trials whose mean the final run is, the best one first."""
        k, trials = self._config.sweep.ensemble, list[FrozenTrial]()
        for trial in sorted(complete(self._study), key=lambda trial: -trial.values[0]):
            if all(trial.params != better.params for better in trials):
                trials.append(trial)
        if k > len(trials):
            say(f"sweep.ensemble: got {k}, but only {len(trials)} different trials have a value: it takes these")
        if not self._config.sweep.greedy:
            return trials[:k]
        is_cv = "cv" in self._objective.split("/")
        name, key, group = ("oof_predictions.csv", "repeat", "1") if is_cv else ("predictions.csv", "split", "val")
        for trial in trials:
            RunInfo.read(self.folder / str(trial.number)).check_files()
        tables = [read_predictions(self.folder / str(trial.number) / name, key)[group] for trial in trials]
        return [trials[i] for i in choose(tables, k)]

    def _finish(self) -> Path:
        """Writes tables and figures, fits the best configuration if no process has, and returns its run directory."""
        report.write_tables(self.folder, self._study, self._space)
        if not complete(self._study):
            reasons = Counter(trial.user_attrs.get(REASON, "unknown") for trial in counting(self._study))
            shown = "; ".join(f"{count} times: {reason}" for reason, count in reasons.most_common(3))
            raise SweepError(f"{self.folder}: none of {reasons.total()} trials gave a value ({shown})")
        seed = self._config.sweep.final_seed
        members = self._members()
        best, numbers = members[0], [str(trial.number) for trial in members]
        drawn = report.draw(self.folder, self._study, self._space, self._config.common)
        cfg = self._space.config(best.params)
        cfg.seed = seed
        if len(members) > 1:
            cfg.ensemble.settings = [self._space.member(trial.params) for trial in members]
        alone, several = without_search(cfg), "s" * (len(members) > 1)
        shown = f"trial{several} {', '.join(f'{trial.number} ({trial.values[0]:.4f})' for trial in members)}"
        config = check(alone)
        again = write_best(self.folder, alone, config, f"{shown} of {self.name}, {self._objective}")
        run_dir = self.folder / f"final_trial{several}_{'_'.join(numbers)}_seed_{seed}"
        before = _read_info(run_dir)
        first = next((t for t in complete(self._study) if t.user_attrs[DRAW] == 0 and t.number != best.number), None)
        is_whole = self._start.keys() == self._space.distributions.keys()  # else some of its settings were drawn
        of_defaults = f" (the settings before the search: {first.values[0]:.4f})" if first and is_whole else ""
        say(f"best: {shown}{of_defaults}; fitted again, and then on test:")
        if before is not None and before.status == "FINISHED":
            before.check_files()  # its scores become the search's
        else:
            self._space.save(run_dir, cfg, best.params)
            tags = {"study": self.name, "final": "true", "trial": " ".join(numbers)}
            name = f"final: trial{several} {', '.join(numbers)} of {self.name}"
            experiment.run(config, run_dir, before, run_name=name, parent="..", tags=tags)
        for line in drawn():
            say(f"[yellow]note:[/yellow] {escape(line)}")
        folder = escape(shlex.quote(short(self.folder)))
        say(f"sweep:  {folder} (trials.csv, figures/, {run_dir.name}/)")
        say(escape(f"again:  {again}"))
        final = escape(shlex.quote(short(run_dir)))
        predict = f"spectro predict {final} NEW_IMAGES --out predictions.csv"
        show_next({"classify new images": predict, BASELINES: f"spectro compare {final}"})
        return run_dir


def name_of(config: Config, settings: dict[str, Any]) -> str:
    """The default name of a study: other settings or another search space give another name."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:6]
    return f"{config.model}_{config.stage}_{data_name(config)}_{digest}"


def sampler_of_draw(sampler: DictConfig) -> Callable[[int], Any]:
    """Number of a draw -> a sampler with a seed of its own, made from the configured seed and the number.

    Raises:
        ConfigError: A sampler that walks through a grid.
    """
    name = sampler._target_.rpartition(".")[2]
    if sampler.get("_partial_"):
        raise ConfigError(
            f"hydra/sweeper/sampler: got {name}; allowed: tpe, random, cmaes, gp, nsgaii, nsgaiii, qmc "
            "(all combinations of some values: --multirun KEY=A,B KEY=C,D without sweeper=)"
        )
    seed = sampler.get("seed")
    new = instantiate(sampler, _partial_=True, _execution_whitelist_=_TRUSTED)

    def make(draw: int) -> Any:
        # Without a seed the draws are not reproducible; a quasi-random sequence is one sequence for all trials.
        if seed is None or name == "QMCSampler":
            return new(seed=seed)
        return new(seed=int(np.random.SeedSequence([seed, draw]).generate_state(1)[0]))

    return make


def _read_info(folder: Path) -> RunInfo | None:
    return RunInfo.read(folder) if (folder / "run.json").exists() else None


@contextmanager
def _sender() -> Iterator[Callable[[Path], Any]]:
    """Yields a function that sends a run directory to MLflow beside the fits; leaves when all are sent."""
    is_over = threading.Event()

    def work(run_dir: Path) -> None:
        start = time.perf_counter()
        RunInfo.read(run_dir).send_to_mlflow_beside()
        is_over.wait(_PAUSE * (time.perf_counter() - start))

    with ThreadPoolExecutor(1, thread_name_prefix="mlflow") as pool:
        try:
            yield lambda run_dir: pool.submit(work, run_dir)
        finally:
            is_over.set()
            with status("sending to MLflow"):
                pool.shutdown()

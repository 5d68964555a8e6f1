"""Trials in other processes: submitted to one of Hydra's launchers, and followed in the study."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectro.errors import SpectroError
from spectro.sweeps.study import DRAW, REASON, end_trial, is_own, is_running

if TYPE_CHECKING:
    import optuna

# Jobs as lists of overrides, the number of the first, the sweep's folder -> Hydra's result of each job, when all ended.
Launch = Callable[[Sequence[Sequence[str]], int, Path], Sequence[Any]]
POLL_S = 0.5
_DIED = "its process ended without a result"


class SweepError(SpectroError):
    """A search without a result."""


def submit(
    study: "optuna.Study",
    jobs: Mapping[int, Sequence[str]],
    folder: Path,
    launch: Launch,
    on_end: Callable[[int], None],
) -> None:
    """Submits trials to a launcher and returns when all of them have ended.

    A trial whose process dies is drawn again, once: a launcher may end all processes when one of them dies.

    Args:
        study: The study.
        jobs: Trial number -> its overrides.
        folder: The sweep's folder.
        launch: The launcher.
        on_end: Called with the number of each trial that ends.

    Raises:
        SweepError: The launcher could not start any of them.
    """

    def unfinished() -> list["optuna.trial.FrozenTrial"]:
        trials = study.get_trials(deepcopy=False)
        return [trials[number] for number in jobs if not trials[number].state.is_finished()]

    failure, reasons = "", {}
    with _followed(study, list(jobs), on_end):
        try:
            results = launch(list(jobs.values()), min(jobs), folder)
            # Hydra prints all overrides of a failed job whose return value is read.
            values = {number: result._return_value for number, result in zip(jobs, results, strict=False)}
            reasons = {number: _first_line(value) for number, value in values.items() if isinstance(value, Exception)}
        except Exception as error:  # launchers raise any type when workers die
            failure = _first_line(error)
        # A launcher may return while other workers are still running; those that have begun own their trial.
        while any(not is_own(trial) and is_running(trial) for trial in unfinished()):
            time.sleep(POLL_S)
        never_begun = [trial.number for trial in unfinished() if is_own(trial) and trial.number not in reasons]
        for trial in unfinished():
            if failure and trial.number in never_begun:
                end_trial(study, trial.number, "FAIL", counts=False, reason=failure)
            else:
                reason = reasons.get(trial.number, f"{_DIED} ({failure})" if failure else _DIED)
                counts = trial.number in reasons or has_died_before(study, trial)
                end_trial(study, trial.number, "FAIL", counts=counts, reason=reason)
    if failure and len(never_begun) == len(jobs):
        raise SweepError(f"hydra/launcher: it could not start a trial ({failure})")


def has_died_before(study: "optuna.Study", trial: Any) -> bool:
    """Whether the process of an earlier trial of the same draw died."""
    earlier = study.get_trials(deepcopy=False)[: trial.number]
    draw = trial.user_attrs.get(DRAW)
    return any(t.user_attrs.get(DRAW) == draw and t.user_attrs.get(REASON, "").startswith(_DIED) for t in earlier)


@contextmanager
def _followed(study: "optuna.Study", numbers: list[int], on_end: Callable[[int], None]) -> Iterator[None]:
    """Calls ``on_end`` as trials end: a launcher returns only after its last job."""
    ended = threading.Event()
    pending = list(numbers)

    def report() -> None:
        trials = study.get_trials(deepcopy=False)
        for number in [n for n in pending if trials[n].state.is_finished()]:
            pending.remove(number)
            on_end(number)

    def follow() -> None:
        while not ended.wait(POLL_S):
            report()

    thread = threading.Thread(target=follow, name="follow", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        report()


def _first_line(error: BaseException) -> str:
    first, *others = f"{type(error).__name__}: {error}".strip().strip(":").splitlines()
    # Where the traceback of another process follows, its last line has the message.
    return f"{first} {others[-1].strip()}" if others and first.endswith(":") else first

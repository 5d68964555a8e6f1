"""Trials in other processes: submitted to one of Hydra's launchers, and followed in the study."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna

from spectro.errors import SpectroError
from spectro.sweeps.study import DRAW, REASON, end_trial, is_own, is_running

# Jobs as lists of overrides, the number of the first, the sweep's folder -> Hydra's result of each job, when all ended.
Launch = Callable[[Sequence[Sequence[str]], int, Path], Sequence[Any]]
POLL_S = 0.5
_DIED = "its process ended without a result"


class SweepError(SpectroError):
    """A search without a result."""


def submit(
    study: optuna.Study, jobs: Mapping[int, Sequence[str]], folder: Path, launch: Launch, on_end: Callable[[int], None]
) -> None:
    """Submits trials, given as number -> overrides, to a launcher and returns when all of them have ended.

    ``on_end`` is called with the number of each. A trial whose process dies is drawn again, once: a launcher may end
    all processes when one of them dies.

    Raises:
        SweepError: The launcher could not start any of them.
    """

    def unfinished() -> list[optuna.trial.FrozenTrial]:
        trials = study.get_trials(deepcopy=False)
        return [trials[number] for number in jobs if not trials[number].state.is_finished()]

    failure, errors, n_not_started = "", {}, 0
    with _followed(study, list(jobs), on_end):
        try:
            results = launch(list(jobs.values()), min(jobs), folder)
            # Hydra prints all overrides of a failed job whose return value is read.
            values = {number: result._return_value for number, result in zip(jobs, results, strict=False)}
            errors = {number: value for number, value in values.items() if isinstance(value, Exception)}
        except Exception as error:  # launchers raise any type when workers die
            failure = _first_line(error)
        # A launcher may return while other workers are still running; those that have begun own their trial.
        while any(not is_own(trial) and is_running(trial) for trial in unfinished()):
            time.sleep(POLL_S)
        for trial in unfinished():
            number = trial.number
            if number in errors:
                end_trial(study, number, "FAIL", reason=_first_line(errors[number]))
            elif failure and is_own(trial):
                end_trial(study, number, "FAIL", counts=False, reason=failure)
                n_not_started += 1
            else:
                reason = f"{_DIED} ({failure})" if failure else _DIED
                end_trial(study, number, "FAIL", counts=has_died_before(study, number), reason=reason)
    if n_not_started == len(jobs):
        raise SweepError(f"hydra/launcher: it could not start a trial ({failure})")


def has_died_before(study: optuna.Study, number: int) -> bool:
    """Whether the process of an earlier trial of the same draw died."""
    *earlier, trial = study.get_trials(deepcopy=False)[: number + 1]
    same_draw = [t.user_attrs for t in earlier if t.user_attrs.get(DRAW) == trial.user_attrs.get(DRAW)]
    return any(attributes.get(REASON, "").startswith(_DIED) for attributes in same_draw)


@contextmanager
def _followed(study: optuna.Study, pending: list[int], on_end: Callable[[int], None]) -> Iterator[None]:
    """Calls ``on_end`` as trials end: a launcher returns only after its last job."""
    is_over = threading.Event()

    def follow() -> None:
        while pending:
            was_over = is_over.wait(POLL_S)
            trials = study.get_trials(deepcopy=False)
            for number in [n for n in pending if trials[n].state.is_finished()]:
                pending.remove(number)
                on_end(number)
            if was_over:
                return

    thread = threading.Thread(target=follow, name="follow", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _first_line(error: BaseException) -> str:
    first, *others = f"{type(error).__name__}: {error}".strip().strip(":").splitlines()
    # Where the traceback of another process follows, its last line has the message.
    return f"{first} {others[-1].strip()}" if others and first.endswith(":") else first

"""Trials in other processes: handed to one of Hydra's launchers, and watched through the study."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectro.errors import SpectroError
from spectro.sweeps import study as studies

if TYPE_CHECKING:
    import optuna

# Jobs, the number of the first, the folder of the sweep -> what became of each; returns when all have ended.
Launch = Callable[[Sequence[Sequence[str]], int, Path], Sequence[Any]]
_POLL_S = 0.5
_DIED = "its process ended without a result"


class SweepError(SpectroError):
    """A search that has come to nothing."""


def hand_out(
    study: "optuna.Study",
    jobs: Mapping[int, Sequence[str]],
    folder: Path,
    launch: Launch,
    tell: Callable[[int], None],
) -> None:
    """Hands trials to a launcher and returns when all of them have ended.

    A trial whose process dies is drawn again, once: it need not have been its own fault, since a launcher may end all
    processes when one of them dies.

    Args:
        study: The study.
        jobs: Trial number -> its overrides.
        folder: The sweep's folder.
        launch: The launcher.
        tell: Called with the number of a trial when it has ended.

    Raises:
        SweepError: The launcher could not start any of them.
    """
    reasons: dict[int, str] = {}
    broken = None
    with _telling(study, list(jobs), tell):
        try:
            for number, back in zip(jobs, launch(list(jobs.values()), min(jobs), folder), strict=False):
                # Asked for its value, a job that failed would print all its overrides.
                if isinstance(back._return_value, Exception):
                    reasons[number] = _first_line(back._return_value)
        except Exception as error:  # whatever a launcher raises when its workers die
            broken = _first_line(error)
        except BaseException:
            for trial in _unfinished(study, jobs):
                if not _was_begun(trial):
                    studies.give_up(study, trial.number, "interrupted", counts=False)
            raise
        if broken is not None:
            _end_those_never_begun(study, jobs, broken)
        while any(_was_begun(trial) and studies.is_running(trial) for trial in _unfinished(study, jobs)):
            time.sleep(_POLL_S)  # a launcher may give up on all when one dies
        for trial in _unfinished(study, jobs):
            reason = reasons.get(trial.number, f"{_DIED} ({broken})" if broken else _DIED)
            counts = trial.number in reasons or has_died_before(study, trial)
            studies.give_up(study, trial.number, reason, counts=counts)


def has_died_before(study: "optuna.Study", trial: Any) -> bool:
    """Whether the process of a trial's draw died before, without anybody having ended it."""
    draw = trial.user_attrs.get(studies.DRAW)
    others = (t for t in study.get_trials(deepcopy=False) if t.number < trial.number)
    return any(
        t.user_attrs.get(studies.DRAW) == draw and str(t.user_attrs.get(studies.REASON, "")).startswith(_DIED)
        for t in others
    )


@contextmanager
def _telling(study: "optuna.Study", numbers: list[int], tell: Callable[[int], None]) -> Iterator[None]:
    """Tells of trials as they end: a launcher keeps silent until its last job has."""
    ended = threading.Event()
    untold = list(numbers)

    def tell_those_that_ended() -> None:
        trials = study.get_trials(deepcopy=False)
        for number in [n for n in untold if trials[n].state.is_finished()]:
            untold.remove(number)
            tell(number)

    def work() -> None:
        while not ended.wait(_POLL_S):
            tell_those_that_ended()

    thread = threading.Thread(target=work, name="tell", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        tell_those_that_ended()


def _end_those_never_begun(study: "optuna.Study", jobs: Mapping[int, Any], reason: str) -> None:
    never = [trial for trial in _unfinished(study, jobs) if not _was_begun(trial)]
    for trial in never:
        studies.give_up(study, trial.number, reason, counts=False)
    if len(never) == len(jobs):
        raise SweepError(f"hydra/launcher: it could not start a trial ({reason})")


def _unfinished(study: "optuna.Study", jobs: Mapping[int, Any]) -> list["optuna.trial.FrozenTrial"]:
    trials = study.get_trials(deepcopy=False)
    return [trials[number] for number in jobs if not trials[number].state.is_finished()]


def _was_begun(trial: "optuna.trial.FrozenTrial") -> bool:
    """Whether the process that a trial was handed to has begun with it: then it is that one's."""
    return not (trial.user_attrs.get(studies.OWNER) or {}).get("searches", True)


def _first_line(error: BaseException) -> str:
    first, *others = f"{type(error).__name__}: {error}".strip().strip(":").splitlines()
    # Where a trace of another process follows, its last line says what happened.
    return f"{first} {others[-1].strip()}" if others and first.endswith(":") else first

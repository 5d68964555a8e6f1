"""A study in a database: several processes work on it, it counts to a total, and a kill changes none of its points."""

import itertools
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from spectro.errors import ConfigError
from spectro.sweeps.storage import open_storage
from spectro.tracking import is_alive

if TYPE_CHECKING:
    import optuna

# What a study and its trials are marked with.
ID, SETTINGS, OWNER, REASON, UNCOUNTED, SAME_AS = "id", "settings", "owner", "reason", "uncounted", "same_as"
DRAW, SEEN = "draw", "seen_at"
# A running trial of another machine cannot be asked whether it lives: it says so itself, and is dead after silence.
_BEAT_S, _SILENT_S = 60, 600
# Between being drawn and being marked with its owner a trial is nobody's.
_UNMARKED_S = 10


def open_study(
    storage: str, name: str, settings: Mapping[str, Any], sampler: "optuna.samplers.BaseSampler"
) -> "optuna.Study":
    """The study of this name, made if it is not there.

    Args:
        storage: See `open_storage`.
        name: The study's name.
        settings: Whatever makes two trials comparable: dotted key -> value.
        sampler: The sampler.

    Raises:
        ConfigError: It holds trials of other settings, or the storage cannot be used.
    """
    import optuna

    study = optuna.create_study(
        storage=open_storage(storage),
        study_name=name,
        direction="maximize",  # of every objective
        sampler=sampler,
        load_if_exists=True,
    )
    known = study.user_attrs.get(SETTINGS)
    if known is None:
        if study.get_trials(deepcopy=False):
            raise ConfigError(f"study: got {name!r}, which another program made; allowed: another name")
        study.set_user_attr(ID, secrets.token_hex(8))
        study.set_user_attr(SETTINGS, dict(settings))
    elif known != dict(settings):
        changed = sorted(key for key in known.keys() | settings.keys() if known.get(key) != settings.get(key))
        told = ", ".join(f"{key} (was {known.get(key)!r}, is {settings.get(key)!r})" for key in changed[:3])
        raise ConfigError(
            f"study: got {name!r}, whose trials had other settings: {told}{' ...' if len(changed) > 3 else ''}; "
            "allowed: study=NAME with a new name"
        )
    return study


def sampler_by_trial(make: Callable[[int], "optuna.samplers.BaseSampler"]) -> "optuna.samplers.BaseSampler":
    """A sampler whose chance depends on how many draws were made before, and on nothing else.

    A sampler that was given a seed once draws its first points again in every process that opens the study; this one
    draws what it would have drawn there in an uninterrupted process, and two processes at once never share a draw. A
    trial that was killed gives its draw back. It also marks the trial as this process's.

    Args:
        make: Number of the draw -> a sampler.
    """
    import optuna

    class ByTrial(optuna.samplers.BaseSampler):
        def __init__(self) -> None:
            self._now = make(0)

        def before_trial(self, study: Any, trial: Any) -> None:
            study._storage.set_trial_user_attr(trial._trial_id, OWNER, owner())
            draw = _free_draw(study.get_trials(deepcopy=False), trial.number)
            study._storage.set_trial_user_attr(trial._trial_id, DRAW, draw)
            self._now = make(draw)
            self._now.before_trial(study, trial)

        def infer_relative_search_space(self, study: Any, trial: Any) -> Any:
            return self._now.infer_relative_search_space(study, trial)

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> Any:
            return self._now.sample_relative(study, trial, search_space)

        def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
            return self._now.sample_independent(study, trial, param_name, param_distribution)

    return ByTrial()


def _free_draw(trials: Sequence["optuna.trial.FrozenTrial"], number: int) -> int:
    """The first draw that is nobody's, for the trial of this number."""
    others = [trial for trial in counting(trials) if trial.number != number]
    taken = {trial.user_attrs[DRAW] for trial in others if DRAW in trial.user_attrs}
    # Others may be at this line as well: those of lower numbers take theirs first.
    before = sum(DRAW not in trial.user_attrs and trial.number < number for trial in others)
    return next(itertools.islice((n for n in itertools.count() if n not in taken), before, None))


def seed_of_draw(seed: int, number: int) -> int:
    """The seed of one draw's sampler, below 2**32."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def owner(*, searches: bool = True) -> dict[str, Any]:
    """What marks a running trial as this process's, which searches itself or runs trials for one that does."""
    return {"pid": os.getpid(), "host": socket.gethostname(), "started_at": time.time(), "searches": searches}


@contextmanager
def beating(study: "optuna.Study") -> Iterator[None]:
    """Says every minute that the trials of this process are alive: other machines have no way to ask."""
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(_BEAT_S):
            # The database may be away for a moment: the next beat tells.
            with suppress(Exception):
                for trial in study.get_trials(deepcopy=False):
                    if not trial.state.is_finished() and is_own(trial):
                        study._storage.set_trial_user_attr(trial._trial_id, SEEN, time.time())

    threading.Thread(target=work, name="beat", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def is_own(trial: "optuna.trial.FrozenTrial") -> bool:
    """Whether a trial is this process's."""
    its = trial.user_attrs.get(OWNER) or {}
    return (its.get("pid"), its.get("host")) == (os.getpid(), socket.gethostname())


def is_running(trial: "optuna.trial.FrozenTrial") -> bool:
    """Whether a trial that has no end has a process that is at it."""
    its = trial.user_attrs.get(OWNER)
    alive = is_alive(its) if its is not None else None
    if alive is not None:
        return alive
    begun = trial.datetime_start.timestamp() if trial.datetime_start is not None else 0.0
    silent_s = time.time() - max(begun, trial.user_attrs.get(SEEN, 0.0))
    return silent_s < (_SILENT_S if its is not None else _UNMARKED_S)


def fail_stale(study: "optuna.Study") -> list[int]:
    """Marks trials failed whose process is gone; they do not count, another takes the place. Returns their numbers."""
    import optuna

    stale = []
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        if not is_running(trial):
            give_up(study, trial.number, "its process was killed", counts=False)
            stale.append(trial.number)
    return stale


def give_up(study: "optuna.Study", number: int, reason: str, *, counts: bool = True) -> None:
    """Ends a trial without a value, unless another process was faster to end it."""
    import optuna

    trial = study.get_trials(deepcopy=False)[number]
    if trial.state.is_finished():
        return
    study._storage.set_trial_user_attr(trial._trial_id, REASON, reason)
    if not counts:
        study._storage.set_trial_user_attr(trial._trial_id, UNCOUNTED, True)
    study.tell(number, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)


def end(
    study: "optuna.Study", number: int, value: float | None, *, pruned: bool = False, marks: Mapping[str, Any]
) -> None:
    """Ends a trial with its value or as pruned, and marks it, unless another process has given it up."""
    import optuna

    with suppress(optuna.exceptions.UpdateFinishedTrialError):
        for name, mark in marks.items():
            trial_id = study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
            study._storage.set_trial_user_attr(trial_id, name, mark)
    state = optuna.trial.TrialState.PRUNED if pruned else None
    study.tell(number, value, state=state, skip_if_finished=True)


def counting(trials: Sequence["optuna.trial.FrozenTrial"]) -> list["optuna.trial.FrozenTrial"]:
    """The trials that count towards the total: all but those that were killed or one too many."""
    return [trial for trial in trials if UNCOUNTED not in trial.user_attrs]


def claim(study: "optuna.Study", space: Mapping[str, Any], total: int) -> "optuna.trial.Trial | None":
    """Draws the next trial, for this process to run.

    Processes that draw at the same moment may draw more than are wanted; the order of the numbers decides who runs.

    Args:
        study: The study.
        space: Parameter -> Optuna distribution.
        total: How many trials the study shall have.

    Returns:
        The trial; None if as many are finished or being run.
    """
    if len(counting(study.get_trials(deepcopy=False))) >= total:
        return None
    trial = study.ask(dict(space))
    if trial.number < total:
        return trial
    before = [t for t in counting(study.get_trials(deepcopy=False)) if t.number < trial.number]
    if len(before) >= total:
        give_up(study, trial.number, "one more than n_trials, drawn by two processes at once", counts=False)
        return None
    return trial


def twin(study: "optuna.Study", trial: "optuna.trial.Trial") -> "optuna.trial.FrozenTrial | None":
    """An earlier trial of the same point that has its value or is being run; the finished one if there are both."""
    own = [t for t in counting(study.get_trials(deepcopy=False)) if t.number < trial.number]
    same = [t for t in own if t.params == trial.params and t.state.name in ("COMPLETE", "RUNNING")]
    return min(same, key=lambda t: t.state.name, default=None)

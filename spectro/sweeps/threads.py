"""How many processor threads a trial computes with: the cores, divided by the trials that run on this machine."""

import os
import socket
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from spectro.paths import cores
from spectro.sweeps.study import OWNER

if TYPE_CHECKING:
    import optuna


class Threads:
    """A context in which a trial computes, with its share of the cores.

    Trials come and go while one runs: `share` looks again. Leaving the context gives back what was there before, so
    that the final run computes as the command that repeats it does.

    Args:
        study: The study.
        fixed: Threads that were set by hand; None: what a scheduler allots, or else the share.
        together: How many trials were handed out to this machine at once; they begin together, though not all may have
            by now.
    """

    def __init__(self, study: "optuna.Study", fixed: int | None, together: int):
        self._study = study
        self._fixed = fixed or _allotted()
        self._together = together
        self._now = 0
        self._limits = ExitStack()

    def __enter__(self) -> Self:
        self._before = os.environ.get("OMP_NUM_THREADS")
        known = int(self._before) if self._before and self._before.isdigit() else cores()
        self._usual = _torch_threads() or known
        return self

    def __exit__(self, *_: object) -> None:
        self._limits.close()
        os.environ.pop("OMP_NUM_THREADS", None)
        os.environ.update({} if self._before is None else {"OMP_NUM_THREADS": self._before})
        _torch_threads(self._usual)

    def share(self, trials: list["optuna.trial.FrozenTrial"] | None = None) -> None:
        """Divides the cores by the trials that run here now.

        Args:
            trials: The study's, where they were just read.
        """
        count = self._fixed
        if count is None:
            here = 1
            if self._together == 1:
                here = _running_here(self._study.get_trials(deepcopy=False) if trials is None else trials)
            count = max(1, cores() // max(here, self._together))
        if count == self._now:
            return
        self._now = count
        os.environ["OMP_NUM_THREADS"] = str(count)  # torch reads it when it is imported
        self._limits.close()
        # Looking for what is loaded takes as long as a short fit: not where there is nothing to limit.
        if count < cores():
            from threadpoolctl import threadpool_limits

            self._limits.enter_context(threadpool_limits(count))
        _torch_threads(count)


def _running_here(trials: list["optuna.trial.FrozenTrial"]) -> int:
    """How many processes of this machine are at a trial, this one among them."""
    here = {os.getpid()}
    for trial in trials:
        its = trial.user_attrs.get(OWNER) or {}
        if not trial.state.is_finished() and its.get("host") == socket.gethostname():
            here.add(its["pid"])
    return len(here)


def _allotted() -> int | None:
    """The cores that a scheduler has given to this process."""
    # Ray sets what numerical libraries read; here it is set as well, for each trial, to the same number.
    told = os.environ.get("OMP_NUM_THREADS") if "ray" in sys.modules else os.environ.get("SLURM_CPUS_PER_TASK")
    return int(told) if told and told.isdigit() else None


def _torch_threads(count: int | None = None) -> int | None:
    """torch's threads, set to ``count`` if that is given; None where torch is not loaded."""
    if "torch" not in sys.modules:
        return None
    import torch

    if count is not None:
        torch.set_num_threads(count)
    return torch.get_num_threads()

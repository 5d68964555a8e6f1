"""When a trial is hopeless: its val macro-F1 stays below the median of what earlier trials had reached by then."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import optuna

# The stages of a trial follow each other on one axis: a stage's epochs begin at a multiple of this.
_STRIDE = 100_000


class PrunedError(Exception):
    """The trial is not worth going on with."""


class Reporter:
    """Tells the study of a trial's epochs, and ends the trial when it is hopeless.

    Args:
        trial: The trial.
        earlier: For each finished trial its intermediate values, step -> val macro-F1.
        prune: Whether hopeless trials are ended.
        warmup_epochs: No trial is ended before so many epochs of a stage.
        startup_trials: Nor where fewer earlier trials have been there.
    """

    def __init__(
        self,
        trial: "optuna.trial.Trial",
        earlier: Sequence[Mapping[int, float]],
        *,
        prune: bool,
        warmup_epochs: int,
        startup_trials: int,
    ):
        self._trial = trial
        self._earlier = earlier
        self._prune = prune
        self._warmup_epochs = warmup_epochs
        self._startup_trials = startup_trials
        self._stages: list[str] = []

    def __call__(self, stage: str, history: Sequence[Mapping[str, Any]]) -> None:
        """Takes the rows of a stage, one for each epoch so far.

        Raises:
            PrunedError: The trial is hopeless.
        """
        if stage not in self._stages:
            self._stages.append(stage)
        if not history or history[-1]["val_macro_f1"] is None:
            return
        first = self._stages.index(stage) * _STRIDE
        values = [row["val_macro_f1"] for row in history]
        self._trial.report(values[-1], first + len(values))
        if self._prune and len(values) >= self._warmup_epochs and self._is_hopeless(values, first):
            raise PrunedError(
                f"below the median of the earlier trials after epoch {len(values)} of {stage or 'the fit'}"
            )

    def _is_hopeless(self, values: Sequence[float], first: int) -> bool:
        reached = [best_until(known, first, len(values)) for known in self._earlier]
        there = [value for value in reached if value is not None]
        return len(there) >= max(1, self._startup_trials) and max(values) < float(np.median(there))


def best_until(values: Mapping[int, float], first: int, epoch: int) -> float | None:
    """The best of a trial's values by an epoch of the stage that begins at ``first``; None if it was never there.

    A trial that had stopped by then, of its own accord, keeps the best it had.
    """
    own = {step - first: value for step, value in values.items() if first < step < first + _STRIDE}
    by_then = [value for step, value in own.items() if step <= epoch]
    return max(by_then) if by_then else None

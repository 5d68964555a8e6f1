"""What a person sees of a search: one line a trial."""

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from spectro.paths import short
from spectro.sweeps.study import REASON, SAME_AS, UNCOUNTED, counting
from spectro.sweeps.trial import seconds_of

if TYPE_CHECKING:
    import optuna

    from spectro.sweeps.space import Space


class Watch:
    """Tells of a study's trials on the terminal.

    Args:
        study: The study.
        folder: The sweep's folder.
        total: How many trials the study shall have.
        space: What is searched.
    """

    def __init__(self, study: "optuna.Study", folder: Path, total: int, space: "Space"):
        self._study = study
        self._folder = folder
        self._total = total
        self._space = space
        self._console = Console(highlight=False)
        self._begun = time.perf_counter()
        self._done_here = 0

    def begin(self, stale: Sequence[int]) -> None:
        """Says what is searched and what is there already."""
        self._say(f"sweep {escape(self._study.study_name)}: {', '.join(map(escape, self._space.distributions))}")
        trials = counting(self._study.get_trials(deepcopy=False))
        self.killed(stale)
        if trials:
            finished = sum(trial.state.is_finished() for trial in trials)
            self._say(f"goes on after {finished} of {self._total} trials, best {_best(trials)}")

    def killed(self, stale: Sequence[int]) -> None:
        """Says which trials were found without a process."""
        for number in stale:
            self._say(f"trial {number} was killed and does not count")

    def tell(self, number: int) -> None:
        """One line for a trial that has ended."""
        trials = self._study.get_trials(deepcopy=False)
        trial, own = trials[number], counting(trials)
        done = sum(t.state.is_finished() for t in own)
        self._done_here += 1
        pace = (time.perf_counter() - self._begun) / self._done_here
        left_s = round(pace * max(0, self._total - done))
        value = f"{trial.value:.4f}" if trial.state.name == "COMPLETE" else trial.state.name.lower()
        params = " ".join(f"{key.split('.')[-1]}={_short(v)}" for key, v in self._space.shown(trial.params).items())
        copied = trial.user_attrs.get(SAME_AS)
        took = f"as trial {copied}" if copied is not None else f"{seconds_of(trial):.1f} s"
        width = len(str(self._total))
        self._say(
            f"trial {number:>{width}}  {value:>8}  best {_best(trials)}  {took:>8}  "
            f"{done}/{self._total}, {left_s // 60}:{left_s % 60:02d} left  [dim]{escape(params)}[/dim]"
        )
        if trial.state.name == "FAIL":
            again = "; it is drawn again" if UNCOUNTED in trial.user_attrs else ""
            self._say(f"  [yellow]{escape(str(trial.user_attrs.get(REASON, 'failed')))}{again}[/yellow]")

    def others(self, running: Sequence["optuna.trial.FrozenTrial"]) -> None:
        """Says that other processes are at the last trials, and that one of them will finish the sweep."""
        numbers = ", ".join(str(trial.number) for trial in running)
        self._say(f"no trials are left to draw; other processes are at {numbers}, and the last of them fits the best")

    def best(self, trial: "optuna.trial.FrozenTrial") -> None:
        """Says what the final run is of."""
        self._say(f"best: trial {trial.number}, {trial.value:.4f}; fitted again, and then on test:")

    def end(self, folder: Path, final: Path) -> None:
        """Says where everything is and how to run the best again."""
        place = shlex.quote(short(folder))
        self._say(f"sweep:  {escape(place)} (trials.csv, figures/, {escape(final.name)}/)")
        self._say(f"again:  python train.py --config-dir {escape(place)} --config-name best_config")

    def _say(self, text: str) -> None:
        # One line a trial, however narrow the terminal: cut at its edge if it is one, whole in a file.
        if self._console.is_terminal:
            self._console.print(text, no_wrap=True, overflow="ellipsis", crop=True)
        else:
            self._console.print(text, soft_wrap=True)


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _best(trials: Sequence["optuna.trial.FrozenTrial"]) -> str:
    values = [trial.value for trial in trials if trial.state.name == "COMPLETE" and trial.value is not None]
    return f"{max(values):.4f}" if values else "none"

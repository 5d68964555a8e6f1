"""The context of a fit: where checkpoints go, which stage and fold are fitted, and callbacks.

scikit-learn's contract leaves no room for a run's folder in ``fit``, and an attribute of an estimator does not survive
``clone``. A run opens a context with `fit_context`, the cascade opens one for each stage inside it, and the training
loop reads the `current` one. Without a context nothing is written and nothing is called.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

OnEpoch = Callable[[str, Sequence[Mapping[str, Any]]], None]


@dataclass(frozen=True)
class FitContext:
    """Where and for what a classifier is fitted.

    Attributes:
        folder: Where checkpoints go; None: nowhere.
        stage: What is fitted: ``flat``, ``easy``, ``hard``, ``hard/<group>``, and in a cross-validation the fold behind
            it; empty: not known.
        on_epoch: Called with the stage and its history, a row for each epoch so far: before the first epoch that is
            trained, and after each, when its checkpoint is written. An error that it raises ends the fit.
        on_network: Called before the first epoch with the stage and facts of the network, as in ``facts_``; not in a
            fold, whose networks are like those of the whole.
        fold: Which fold of a cross-validation it is, such as ``fold 3``; empty: none.
    """

    folder: Path | None = None
    stage: str = ""
    on_epoch: OnEpoch = lambda stage, history: None
    on_network: Callable[[str, Mapping[str, Any]], None] = lambda stage, facts: None
    fold: str = ""


_current: ContextVar[FitContext] = ContextVar("fit_context", default=FitContext())  # noqa: B039 - it is immutable


def current() -> FitContext:
    """The context of the fit that is running."""
    return _current.get()


@contextmanager
def fit_context(context: FitContext) -> Iterator[None]:
    """Fits inside have this context."""
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)


def part(stage: str, folder: str, **changes: Any) -> AbstractContextManager:
    """Fits inside are one stage or fold, with a folder of its own below the current one."""
    context = replace(current(), **changes)
    stage = f"{stage} {context.fold}".strip()
    return fit_context(replace(context, stage=stage, folder=context.folder and context.folder / folder))


def is_fold(stage: str) -> bool:
    """Whether a stage's name is that of a fold of it."""
    return re.search(r"(^| )fold \d+$", stage) is not None

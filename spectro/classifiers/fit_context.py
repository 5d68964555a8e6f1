"""Where a fit keeps its checkpoints and tells of its progress, without being an argument of it.

scikit-learn's contract leaves no room for a run's folder in ``fit``. A run opens a `fit_context` around it, the cascade
names the `part` that is being fitted, and the training loop asks for the one that is `current`. Without a fit_context a
fit keeps nothing.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

OnEpoch = Callable[[str, Sequence[Mapping[str, Any]]], None]


@dataclass(frozen=True)
class FitContext:
    """A run's place for work under way.

    Attributes:
        folder: Where checkpoints go; None: nowhere.
        stage: What is being fitted: ``flat``, ``easy``, ``hard``, ``hard/<group>``; empty: not known.
        on_epoch: Called after every epoch with the stage and its history so far, a row for each epoch.
        on_network: Called before the first epoch with the stage and what is known of the network, as in ``facts_``.
        fold: Which fold of a cross-validation it is, such as ``fold 3``; it stands behind the stage. Empty: none.
    """

    folder: Path | None = None
    stage: str = ""
    on_epoch: OnEpoch = lambda stage, history: None
    on_network: Callable[[str, Mapping[str, Any]], None] = lambda stage, facts: None
    fold: str = ""


_NOWHERE = FitContext()
_current: ContextVar[FitContext | None] = ContextVar("fit_context", default=None)


def current() -> FitContext:
    """The fit_context of the fit that is under way."""
    return _current.get() or _NOWHERE


@contextmanager
def fit_context(place: FitContext) -> Iterator[None]:
    """Fits inside work here."""
    token = _current.set(place)
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def part(stage: str, folder: str) -> Iterator[None]:
    """Fits inside are one part of what is being fitted: a stage with its name and a folder of its own."""
    here = current()
    named = f"{stage} {here.fold}".strip()
    with fit_context(replace(here, stage=named, folder=None if here.folder is None else here.folder / folder)):
        yield


@contextmanager
def fold(name: str, folder: str, on_epoch: OnEpoch, *, is_first: bool) -> Iterator[None]:
    """Fits inside are one fold, with a folder of its own: their stages are called ``<stage> <name>``.

    All folds have the same networks, and only the first tells of them.
    """
    here = current()
    below = None if here.folder is None else here.folder / folder
    stage = f"{here.stage} {name}".strip()
    tells = {} if is_first else {"on_network": _NOWHERE.on_network}
    with fit_context(replace(here, stage=stage, fold=name, folder=below, on_epoch=on_epoch, **tells)):
        yield


def is_fold(stage: str) -> bool:
    """Whether a stage's name is that of a fold of it."""
    return re.search(r"(^| )fold \d+$", stage) is not None

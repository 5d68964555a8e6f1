"""What the models of a fold said, and how a run that was killed finds it again."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spectro.classifiers import fit_context as work
from spectro.classifiers.base import StageOutput
from spectro.files import write_json


def remembered(
    name: str, identity: str, evaluate: Callable[[], dict[str, StageOutput]], *, is_first: bool
) -> dict[str, StageOutput]:
    """`evaluate()`, with what was told of its epochs, as a run that was killed left it in its fit_context.

    Only folds that have epochs are kept: the others take less time than a file.

    Args:
        name: The fold's name, such as ``fold 3``.
        identity: Names configuration and data: another run's fold is not taken for this one.
        evaluate: Fits the fold's models and asks them.
        is_first: Whether it is the first fold of all, which tells of its networks.
    """
    here = work.current()
    path = None if here.folder is None else here.folder / f"{name.replace(' ', '_')}.json"
    before = None if path is None else _read(path, identity)
    if before is not None:
        for stage, history in before["history"].items():
            here.on_epoch(stage, history)
        return {
            t: StageOutput(np.array(s["classes"], dtype=object), np.array(s["p"])) for t, s in before["said"].items()
        }
    told: dict[str, Sequence[Mapping[str, Any]]] = {}

    def on_epoch(stage: str, history: Sequence[Mapping[str, Any]]) -> None:
        told[stage] = history
        here.on_epoch(stage, history)

    with work.fold(name, name.replace(" ", "_"), on_epoch, is_first=is_first):
        found = evaluate()
    if path is not None and told:
        path.parent.mkdir(parents=True, exist_ok=True)
        said_of = {t: {"classes": list(own.classes), "p": own.probabilities.tolist()} for t, own in found.items()}
        write_json(path, {"identity": identity, "history": told, "said": said_of})
        # Checkpoints of a network are large, and this fold will not go on.
        shutil.rmtree(path.with_suffix(""), ignore_errors=True)
    return found


def _read(path: Path, identity: str) -> dict[str, Any] | None:
    """A fold that was finished; None if there is none of this configuration and these data."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if content["identity"] == identity else None

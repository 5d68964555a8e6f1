"""The model families by name, and a saved model of any of them."""

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from spectro.classifiers.base import FORMAT, ImageClassifier
from spectro.errors import ModelError

# Family -> its module, imported when it is asked for.
BUILT_IN = {
    "cascade": "spectro.classifiers.cascade",
    "cnn": "spectro.classifiers.networks.cnn",
    "hog_svm": "spectro.classifiers.hog.svm",
    "pixels": "spectro.classifiers.pixels",
    "vpt": "spectro.classifiers.networks.vpt",
}


def family(name: str) -> Any:
    """The module of a model family: it holds ``Knobs`` (what a user can set) and ``CLASSIFIER``.

    Raises:
        ModelError: There is no such family.
    """
    allowed = families()
    if name not in allowed:
        raise ModelError(f"model.family: got {name!r}; allowed: {', '.join(allowed)}")
    return importlib.import_module(BUILT_IN[name])


def families() -> list[str]:
    """The names of the model families."""
    return sorted(BUILT_IN)


def load(folder: Path) -> ImageClassifier:
    """Loads what `ImageClassifier.save` wrote, without running any code from the files.

    Args:
        folder: The model's folder, ``model/`` of a run.

    Returns:
        The fitted classifier.

    Raises:
        ModelError: Not a saved model, of another format, of an unknown family, or damaged.
    """
    path = folder / "model.json"
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        if state["format"] != FORMAT:
            raise ModelError(f"{path}: got format {state['format']}; allowed: {FORMAT}")
        if state.get("thresholds") or len(state.get("variants", ())) > 1:
            raise ModelError(f"{path}: saved with decision=threshold or evaluation.tta, which no longer exist")
        classifier = family(state["family"]).CLASSIFIER._from_params(state["params"], folder)
        classifier.classes_ = np.array(state["classes"], dtype=object)
        if "fitted" in state:
            classifier._load(folder, state["fitted"])
    except FileNotFoundError as error:
        raise ModelError(f"{error.filename}: no such file; allowed: the model/ folder of a run") from error
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise ModelError(f"{path}: damaged or not a model ({type(error).__name__}: {error})") from error
    return classifier

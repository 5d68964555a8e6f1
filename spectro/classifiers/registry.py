"""The model families by name, and a saved model of any of them."""

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TypeVar

from spectro.classifiers.base import FORMAT, ImageClassifier, as_labels
from spectro.classifiers.manifest import check_manifest
from spectro.errors import ModelError
from spectro.plugins import load_plugins

# Module of each built-in family; it is imported when the family is asked for, and registers it.
_BUILT_IN = {
    "cascade": "spectro.classifiers.cascade",
    "cnn": "spectro.classifiers.networks.cnn",
    "embed": "spectro.classifiers.embed",
    "ensemble": "spectro.classifiers.ensemble",
    "hog_svm": "spectro.classifiers.hog.svm",
    "pixels": "spectro.classifiers.pixels",
    "vpt": "spectro.classifiers.networks.vpt",
}
_Class = TypeVar("_Class", bound=type[ImageClassifier])
_registered: dict[str, type[ImageClassifier]] = {}


def register_family(name: str) -> Callable[[_Class], _Class]:
    """Class decorator: registers a model family under the name that ``model.family`` and saved models give it.

    Raises:
        ValueError: Another class has the name.
    """

    def register(cls: _Class) -> _Class:
        other = _registered.get(name)
        module = other.__module__ if other else _BUILT_IN.get(name, cls.__module__)
        if module != cls.__module__:
            raise ValueError(f"register_family: got {name!r} for {cls.__module__}; {module} has registered it")
        cls.family = name
        _registered[name] = cls
        return cls

    return register


def family(name: str) -> type[ImageClassifier]:
    """The class of a model family.

    Raises:
        ModelError: No such family is registered.
    """
    if name not in _registered and name in _BUILT_IN:
        import_module(_BUILT_IN[name])
    if name not in _registered:
        load_plugins()
    if name not in _registered:
        raise ModelError(f"model.family: got {name!r}; allowed: {', '.join(families())}")
    return _registered[name]


def families() -> list[str]:
    """The names of the model families: built-in ones, and those that were registered so far."""
    return sorted({*_BUILT_IN, *_registered})


def load(folder: Path) -> ImageClassifier:
    """Loads what `ImageClassifier.save` wrote, without running any code from the files, if no file has changed since.

    Raises:
        ModelError: Not a saved model, of another format, of a family that is not registered, or damaged.
    """
    return load_part(folder, is_whole=True)


def load_part(folder: Path, *, is_whole: bool = False) -> ImageClassifier:
    """As `load`, but of a part of a model, whose files are checked with those of the whole.

    Raises:
        ModelError: As for `load`.
    """
    path = folder / "model.json"
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        if is_whole:
            if isinstance(state, dict) and state.get("format") != FORMAT:
                raise ModelError(f"{path}: got format {state.get('format')}; allowed: {FORMAT}")
            check_manifest(folder)
        try:
            cls = family(state["family"])
        except ModelError as error:
            raise ModelError(
                f"{path}: model family {state['family']!r} is not registered; install the package that registers it, "
                f"or give its module with --plugin; registered: {', '.join(families())}"
            ) from error
        classifier = cls._from_params(state["params"])
        classifier._check_params()
        classifier.classes_ = as_labels(state["classes"])
        if list(classifier.classes_) != sorted(set(state["classes"])) or not state["classes"]:
            raise ValueError(f"classes: got {state['classes']}; allowed: different ones, sorted")
        if "fitted" in state:
            classifier._load(folder, state["fitted"])
    except FileNotFoundError as error:
        # safetensors names the file in its message alone.
        raise ModelError(f"{error.filename or error}: no such file; allowed: the model/ folder of a run") from error
    except (KeyError, TypeError, ValueError, OSError, AttributeError, RecursionError, MemoryError) as error:
        raise ModelError(f"{path}: damaged or not a model ({type(error).__name__}: {error})") from error
    return classifier

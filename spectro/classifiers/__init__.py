"""The contract, its families, and the cascade over them. Classes are imported when they are asked for."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spectro.classifiers.base import ImageClassifier
    from spectro.classifiers.cascade import CascadeClassifier
    from spectro.classifiers.hog.svm import HogSvmClassifier
    from spectro.classifiers.networks.cnn import CnnClassifier
    from spectro.classifiers.networks.settings import Loss, Training
    from spectro.classifiers.networks.vpt import VptClassifier
    from spectro.classifiers.pixels import PixelsClassifier
    from spectro.classifiers.registry import families, family, load, register_family
    from spectro.classifiers.temperature import ScoringClassifier

_HOME = {
    "ImageClassifier": "base",
    "families": "registry",
    "family": "registry",
    "load": "registry",
    "CascadeClassifier": "cascade",
    "CnnClassifier": "networks.cnn",
    "HogSvmClassifier": "hog.svm",
    "Loss": "networks.settings",
    "PixelsClassifier": "pixels",
    "ScoringClassifier": "temperature",
    "Training": "networks.settings",
    "VptClassifier": "networks.vpt",
    "register_family": "registry",
}
__all__ = [
    "CascadeClassifier",
    "CnnClassifier",
    "HogSvmClassifier",
    "ImageClassifier",
    "Loss",
    "PixelsClassifier",
    "ScoringClassifier",
    "Training",
    "VptClassifier",
    "families",
    "family",
    "load",
    "register_family",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"spectro.classifiers.{_HOME[name]}"), name)

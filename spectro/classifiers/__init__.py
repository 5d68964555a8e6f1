"""The contract, its families, and the cascade over them. Classes are imported when they are asked for."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spectro.classifiers.base import PictureClassifier
    from spectro.classifiers.cascade import CascadeClassifier
    from spectro.classifiers.cnn import CnnClassifier
    from spectro.classifiers.hog_svm import HogSvmClassifier
    from spectro.classifiers.pixels import PixelsClassifier
    from spectro.classifiers.registry import families, family, load
    from spectro.classifiers.settings import Loss, Training
    from spectro.classifiers.vpt import VptClassifier

_HOME = {
    "PictureClassifier": "base",
    "families": "registry",
    "family": "registry",
    "load": "registry",
    "CascadeClassifier": "cascade",
    "CnnClassifier": "cnn",
    "HogSvmClassifier": "hog_svm",
    "Loss": "settings",
    "PixelsClassifier": "pixels",
    "Training": "settings",
    "VptClassifier": "vpt",
}
__all__ = [
    "CascadeClassifier",
    "CnnClassifier",
    "HogSvmClassifier",
    "Loss",
    "PictureClassifier",
    "PixelsClassifier",
    "Training",
    "VptClassifier",
    "families",
    "family",
    "load",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"spectro.classifiers.{_HOME[name]}"), name)

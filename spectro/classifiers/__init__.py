"""The contract, its families, and the cascade over them. Classes are imported when they are asked for."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spectro.classifiers.base import PictureClassifier, families, family, load
    from spectro.classifiers.cascade import CascadeClassifier
    from spectro.classifiers.hog_svm import HogSvmClassifier

_HOME = {
    "PictureClassifier": "base",
    "families": "base",
    "family": "base",
    "load": "base",
    "CascadeClassifier": "cascade",
    "HogSvmClassifier": "hog_svm",
}
__all__ = ["CascadeClassifier", "HogSvmClassifier", "PictureClassifier", "families", "family", "load"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"spectro.classifiers.{_HOME[name]}"), name)

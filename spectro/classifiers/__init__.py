"""The classifiers: scikit-learn estimators of uint8 images. Classes are imported when they are used."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spectro.classifiers.base import ImageClassifier as ImageClassifier
    from spectro.classifiers.cascade import CascadeClassifier as CascadeClassifier
    from spectro.classifiers.embed import EmbedClassifier as EmbedClassifier
    from spectro.classifiers.ensemble import EnsembleClassifier as EnsembleClassifier
    from spectro.classifiers.hog.svm import HogSvmClassifier as HogSvmClassifier
    from spectro.classifiers.networks.cnn import CnnClassifier as CnnClassifier
    from spectro.classifiers.networks.settings import Loss as Loss
    from spectro.classifiers.networks.settings import Training as Training
    from spectro.classifiers.networks.vpt import VptClassifier as VptClassifier
    from spectro.classifiers.pixels import PixelsClassifier as PixelsClassifier
    from spectro.classifiers.registry import families as families
    from spectro.classifiers.registry import family as family
    from spectro.classifiers.registry import load as load
    from spectro.classifiers.registry import register_family as register_family
    from spectro.classifiers.temperature import ScoringClassifier as ScoringClassifier

_NAMES = {
    "base": ["ImageClassifier"],
    "cascade": ["CascadeClassifier"],
    "embed": ["EmbedClassifier"],
    "ensemble": ["EnsembleClassifier"],
    "hog.svm": ["HogSvmClassifier"],
    "networks.cnn": ["CnnClassifier"],
    "networks.settings": ["Loss", "Training"],
    "networks.vpt": ["VptClassifier"],
    "pixels": ["PixelsClassifier"],
    "registry": ["families", "family", "load", "register_family"],
    "temperature": ["ScoringClassifier"],
}


def __getattr__(name: str) -> object:
    for module, names in _NAMES.items():
        if name in names:
            import_module("spectro.classifiers.base")  # imports scikit-learn faster than the others would
            return getattr(import_module(f"spectro.classifiers.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Which of several model families best classifies labelled images of seismic records, and how certain is that?

The package works without Hydra and without MLflow: ``from spectro.classifiers import HogSvmClassifier``.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spectro.runs.predict import predict_files

__version__ = "0.1.0"
__all__ = ["predict_files"]


def __getattr__(name: str) -> Any:
    """``spectro.predict_files``, imported when it is asked for."""
    if name != "predict_files":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from spectro.runs.predict import predict_files

    return predict_files

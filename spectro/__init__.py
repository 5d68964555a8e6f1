"""Which of three model families best sorts labelled images of seismic records, and how sure can you be?

The package works without Hydra and without MLflow: ``from spectro.classifiers import HogSvmClassifier``.
"""

__version__ = "0.1.0"

"""Metrics and intervals: functions on arrays, without models, figures or tracking.

Importing this package costs numpy only; scikit-learn is imported by the functions that use it.
"""

from spectro.evaluation.calibration import calibration, reliability_figure
from spectro.evaluation.intervals import bootstrap_ci, wilson
from spectro.evaluation.metrics import score

__all__ = ["bootstrap_ci", "calibration", "reliability_figure", "score", "wilson"]

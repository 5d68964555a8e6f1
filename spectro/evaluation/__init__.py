"""Metrics and intervals: functions on arrays, without models, figures or tracking.

Importing this package costs numpy only; scikit-learn is imported by the functions that use it.
"""

from spectro.evaluation.calibration import calibration
from spectro.evaluation.intervals import bootstrap_ci, wilson
from spectro.evaluation.metrics import METRICS, register_metric
from spectro.evaluation.report import score

__all__ = ["METRICS", "bootstrap_ci", "calibration", "register_metric", "score", "wilson"]

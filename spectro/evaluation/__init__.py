"""Metrics, intervals and tests: functions on arrays, without models, figures or tracking.

Importing this package costs numpy only; scikit-learn and scipy are imported by the functions that use them.
"""

from spectro.evaluation.calibration import calibration
from spectro.evaluation.intervals import wilson
from spectro.evaluation.metrics import METRICS, register_metric
from spectro.evaluation.report import score

__all__ = ["METRICS", "calibration", "register_metric", "score", "wilson"]

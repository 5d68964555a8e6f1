"""Metrics, intervals and figures: functions on arrays that know no model and no tracker.

Importing this package costs numpy only; scikit-learn and matplotlib are imported by the functions that use them.
"""

from spectro.evaluation.attribution import attribution_figure
from spectro.evaluation.calibration import calibration, reliability_figure
from spectro.evaluation.curves import curves_figure
from spectro.evaluation.figures import confusion_figure, recall_figure
from spectro.evaluation.gallery import sheet_figure, wrong_figure
from spectro.evaluation.intervals import bootstrap_ci, wilson
from spectro.evaluation.metrics import score

__all__ = [
    "attribution_figure",
    "bootstrap_ci",
    "calibration",
    "confusion_figure",
    "curves_figure",
    "recall_figure",
    "reliability_figure",
    "score",
    "sheet_figure",
    "wilson",
    "wrong_figure",
]

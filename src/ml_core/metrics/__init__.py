"""From labels and probabilities to numbers: metrics, their intervals, tests between two, curves.

Everything is computed over patches, never averaged over batches, and is NaN where it is undefined:
a score of 0.0 in a table is always a score that was reached.
"""

from ml_core.metrics.areas import tie_ends, weighted_areas
from ml_core.metrics.constant_baselines import baseline_metrics
from ml_core.metrics.curves import CurvePoints, pr_curve_points, roc_curve_points
from ml_core.metrics.delong import DeLongTest, auc_standard_error, delong_interval, delong_test
from ml_core.metrics.interval import Interval
from ml_core.metrics.intervals import compute_intervals
from ml_core.metrics.paired import PairedDifference, paired_bootstrap
from ml_core.metrics.resampling import map_resamples, resamples
from ml_core.metrics.score_intervals import (
    balanced_accuracy_interval,
    f_beta_interval,
    wilson_interval,
)
from ml_core.metrics.scores import (
    HIGHER_IS_BETTER,
    SAMPLE_FACTS,
    Confusion,
    compute_metrics,
    confusion,
    f_beta,
)

__all__ = [
    "HIGHER_IS_BETTER",
    "SAMPLE_FACTS",
    "Confusion",
    "CurvePoints",
    "DeLongTest",
    "Interval",
    "PairedDifference",
    "auc_standard_error",
    "balanced_accuracy_interval",
    "baseline_metrics",
    "compute_intervals",
    "compute_metrics",
    "confusion",
    "delong_interval",
    "delong_test",
    "f_beta",
    "f_beta_interval",
    "map_resamples",
    "paired_bootstrap",
    "pr_curve_points",
    "resamples",
    "roc_curve_points",
    "tie_ends",
    "weighted_areas",
    "wilson_interval",
]

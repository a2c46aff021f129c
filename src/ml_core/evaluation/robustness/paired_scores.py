"""What a model scores on changed patches, and how much less than on the same ones as they were."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml_core.evaluation.robustness.score import Score
from ml_core.metrics import (
    Interval,
    compute_metrics,
    confusion,
    delong_interval,
    delong_test,
    paired_bootstrap,
    wilson_interval,
)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SHARES = ("recall", "specificity", "accuracy")  # of patches, so that Wilson's interval holds
METRICS = ("roc_auc", *SHARES)


@dataclass(frozen=True)
class Scoring:
    """How raw logits (N,) are scored: labels int64 (N,), calibration, threshold, and intervals.

    ROC-AUC is of the order of the raw logits. Probabilities would make ties of what the model tells
    apart: the sigmoid is 1 from a logit of 37 on, and isotonic calibration is flat in places and
    beyond its ends. The rest counts calls: calibrated probabilities at the threshold.
    """

    y_true: Ints
    threshold: float
    calibrate: Callable[[Floats], Floats]
    num_resamples: int
    seed: int
    level: float

    def metrics(self, logits: Floats) -> dict[str, Score]:
        """Return METRICS of raw logits (N,): DeLong's interval and Wilson's."""
        probs, ranks = self.calibrate(logits), _ranks(logits)
        values = compute_metrics(self.y_true, probs, self.threshold)
        values["roc_auc"] = compute_metrics(self.y_true, ranks)["roc_auc"]
        tn, fp, fn, tp = confusion(self.y_true, probs, self.threshold)
        intervals: dict[str, Interval] = {
            "roc_auc": delong_interval(self.y_true, ranks, self.level),
            "recall": wilson_interval(tp, tp + fn, self.level),
            "specificity": wilson_interval(tn, tn + fp, self.level),
            "accuracy": wilson_interval(tp + tn, len(probs), self.level),
        }
        return {name: Score.of(values[name], intervals[name]) for name in METRICS}

    def differences(self, logits: Floats, untouched: Floats) -> dict[str, Score]:
        """Return METRICS of `logits` minus those of `untouched`, patch by patch the same ones.

        DeLong's paired interval for roc_auc, that of the paired bootstrap for the shares.
        """
        area = delong_test(self.y_true, _ranks(logits), _ranks(untouched), self.level)
        shares = paired_bootstrap(
            self.y_true, self.calibrate(logits), self.calibrate(untouched),
            (self.threshold, self.threshold), SHARES,
            num_resamples=self.num_resamples, seed=self.seed, level=self.level,
        )  # fmt: skip
        # Patches that change places within a class change the last bit of a mean, and no more.
        known = (round(number, 12) for number in (area.difference, *area.interval))
        return {
            "roc_auc": Score(*known),
            **{name: Score(each.difference, each.low, each.high) for name, each in shares.items()},
        }

    def calls_changed(self, logits: Floats, untouched: Floats) -> float:
        """Return the share of patches that are called otherwise than untouched."""
        now, before = (self.calibrate(each) >= self.threshold for each in (logits, untouched))
        return float((now != before).mean())


def _ranks(logits: Floats) -> Floats:
    """Return the ranks of logits (N,) as numbers between 0 and 1, ties kept; NaN for any NaN."""
    from scipy.stats import rankdata

    ranks: Floats = rankdata(logits) / (len(logits) + 1)
    return ranks

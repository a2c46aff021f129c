"""What a model scores on changed patches, and how much less than on the same ones untouched."""

from __future__ import annotations

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
    """How answers are scored: labels int64 (N,), a threshold on probabilities, and intervals."""

    y_true: Ints
    threshold: float
    num_resamples: int
    seed: int
    level: float

    def metrics(self, probs: Floats) -> dict[str, Score]:
        """Return METRICS of probabilities (N,): DeLong's interval and Wilson's."""
        values = compute_metrics(self.y_true, probs, self.threshold)
        tn, fp, fn, tp = confusion(self.y_true, probs, self.threshold)
        intervals: dict[str, Interval] = {
            "roc_auc": delong_interval(self.y_true, probs, self.level),
            "recall": wilson_interval(tp, tp + fn, self.level),
            "specificity": wilson_interval(tn, tn + fp, self.level),
            "accuracy": wilson_interval(tp + tn, len(probs), self.level),
        }
        return {name: Score.of(values[name], intervals[name]) for name in METRICS}

    def differences(self, probs: Floats, untouched: Floats) -> dict[str, Score]:
        """Return METRICS of `probs` minus those of `untouched`, patch by patch the same ones.

        DeLong's paired interval for roc_auc, that of the paired bootstrap for the shares.
        """
        area = delong_test(self.y_true, probs, untouched, self.level)
        shares = paired_bootstrap(
            self.y_true, probs, untouched, (self.threshold, self.threshold), SHARES,
            num_resamples=self.num_resamples, seed=self.seed, level=self.level,
        )  # fmt: skip
        return {
            "roc_auc": Score.of(area.difference, area.interval),
            **{name: Score(each.difference, each.low, each.high) for name, each in shares.items()},
        }

    def calls_changed(self, probs: Floats, untouched: Floats) -> float:
        """Return the share of patches that are called otherwise than untouched."""
        return float(((probs >= self.threshold) != (untouched >= self.threshold)).mean())

"""What the champion's threshold means where tumours are rarer, or more common, than in training."""

from __future__ import annotations

from typing import Any

from ml_core.evaluation.prior_shift import adjust_prior, at_prevalence
from ml_core.evaluation.threshold import ChosenThreshold


def at_deployment(chosen: ChosenThreshold, prevalence: float | None) -> dict[str, Any] | None:
    """Return PPV, NPV and alarms at the deployment `prevalence`; None where none is stated."""
    if prevalence is None:
        return None
    here = chosen.positives / chosen.num_patches
    return {
        "from_prevalence": here,
        "to_prevalence": prevalence,
        "threshold": float(adjust_prior(chosen.value, here, prevalence)),
        **at_prevalence(chosen.expected["recall"], chosen.expected["specificity"], prevalence),
    }

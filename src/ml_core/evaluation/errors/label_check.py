"""How well the rule for doubtful labels works on these very patches: each label turned round."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ml_core.evaluation.errors.doubt import is_label_doubtful, odds_against_label
from ml_core.evaluation.predictions import Predictions
from ml_core.metrics.arrays import Floats


@dataclass(frozen=True)
class LabelCheck:
    """Counts of patches whose label the audit knows."""

    num_known: int
    num_found: int  # labels that would be called doubtful if they were the other way round
    num_marked: int  # labels that are called doubtful as they are


def check_rule(
    predictions: Predictions,
    is_wrong: npt.NDArray[np.bool_],
    is_doubtful: npt.NDArray[np.bool_],
    label_belief: Floats,
) -> LabelCheck | None:
    """Return what the rule finds with each label turned round by itself; None without any belief.

    The audit's model has not seen the label, so its belief in the other label is what is left of 1:
    on real patches of which 1 to 10 % are flipped, that agrees with a new audit to a correlation of
    0.985 or more. Only errors are looked at, so the rule finds no wrong label that the model agrees
    with; those count as not found.
    """
    known = ~np.isnan(label_belief)
    if not known.any():
        return None
    turned = replace(predictions, y_true=1 - predictions.labels)
    other_belief = 1 - label_belief
    found = is_label_doubtful(odds_against_label(turned, other_belief), other_belief) & ~is_wrong
    return LabelCheck(
        num_known=int(known.sum()),
        num_found=int(found.sum()),
        num_marked=int((is_doubtful & is_wrong).sum()),
    )

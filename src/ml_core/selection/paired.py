"""Two models on the same patches: how much better one is, and whether that can be chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_core.errors import RunError
from ml_core.evaluation.predictions import null_if_nan
from ml_core.metrics import HIGHER_IS_BETTER, delong_test, paired_bootstrap

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

DELONG, BOOTSTRAP = "DeLong", "paired bootstrap"


@dataclass(frozen=True)
class Contender:
    """What one model says about the patches, float64 (N,), and from where on it says tumour.

    `nll` is the loss of each patch where that is known more exactly than `y_prob` can tell, and
    `ranking` what orders the patches where calibration on these very patches made ties of it: the
    ties follow the labels, so that noise gets an area above one half.
    """

    name: str
    y_prob: Floats
    threshold: float
    nll: Floats | None = None
    ranking: Floats | None = None

    @property
    def order(self) -> Floats:
        """What areas under curves are computed from."""
        return self.y_prob if self.ranking is None else self.ranking


def paired_differences(
    y_true: Ints,
    a: Contender,
    b: Contender,
    metrics: Sequence[str] = tuple(HIGHER_IS_BETTER),
    *,
    num_resamples: int,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, dict[str, Any]]:
    """Return for each metric {"value", "other", "difference", "low", "high", "p_value", "test"}.

    The difference is `a` minus `b`, each at its own threshold. DeLong's test for roc_auc, the
    paired bootstrap over patches for the rest; None where a metric is undefined. It says whether
    *these two* trained models differ on such patches, not whether other seeds would.
    """
    found: dict[str, dict[str, Any]] = {}
    if "roc_auc" in metrics:
        test = delong_test(y_true, a.order, b.order, level)
        found["roc_auc"] = {
            "value": null_if_nan(test.auc_a),
            "other": null_if_nan(test.auc_b),
            "difference": null_if_nan(test.difference),
            "low": null_if_nan(test.interval[0]),
            "high": null_if_nan(test.interval[1]),
            "p_value": null_if_nan(test.p_value),
            "test": DELONG,
        }
    rest = [name for name in metrics if name != "roc_auc"]
    if rest:
        differences = paired_bootstrap(
            y_true,
            a.y_prob,
            b.y_prob,
            (a.threshold, b.threshold),
            rest,
            num_resamples=num_resamples,
            seed=seed,
            level=level,
            nll_a=a.nll,
            nll_b=b.nll,
        )
        if "pr_auc" in rest and (a.ranking is not None or b.ranking is not None):
            differences |= paired_bootstrap(
                y_true, a.order, b.order, (0.5, 0.5), ["pr_auc"],
                num_resamples=num_resamples, seed=seed, level=level,
            )  # fmt: skip
        for name in rest:
            each = differences[name]
            found[name] = {
                "value": null_if_nan(each.value_a),
                "other": null_if_nan(each.value_b),
                "difference": null_if_nan(each.difference),
                "low": null_if_nan(each.low),
                "high": null_if_nan(each.high),
                "p_value": null_if_nan(each.p_value),
                "test": BOOTSTRAP,
            }
    return {name: found[name] for name in metrics}


def is_better(metric: str, difference: dict[str, Any]) -> bool:
    """Whether the whole interval of a difference lies on the better side of 0."""
    low, high = difference["low"], difference["high"]
    if low is None or high is None:
        return False
    return bool(low > 0 if HIGHER_IS_BETTER[metric] else high < 0)


def check_same_patches(index: Ints, y_true: Ints, other_index: Ints, other: Ints, who: str) -> None:
    """Raise RunError unless both are of the same patches, with the same labels, in one order."""
    if not np.array_equal(index, other_index):
        missing = len(np.setdiff1d(index, other_index)) + len(np.setdiff1d(other_index, index))
        raise RunError(
            f"{who} are not predictions of the same patches: {missing:,} are in one of them only. "
            "Their data.max_patches, data.filter_data or exclusions differ: choose among runs that "
            "agree in these. If they do agree, evaluate both again."
        )
    if not np.array_equal(y_true, other):
        raise RunError(
            f"{who} have other labels for {int((y_true != other).sum()):,} of {len(index):,} "
            "patches. Evaluate both again on the same data."
        )

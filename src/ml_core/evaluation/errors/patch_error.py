"""One wrong call, with what else is known of the patch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ml_core.evaluation.errors.doubt import Doubt
from ml_core.evaluation.predictions import null_if_nan


@dataclass(frozen=True)
class PatchError:
    """One row of errors.json; NaN and () where nobody knows."""

    index: int  # row in the source file of the split
    y_true: int
    y_prob: float
    logit: float
    kind: str  # "false_positive" or "false_negative"
    loss: float
    label_belief: float  # of the audit, in the label; NaN without a full audit
    odds_against_label: float  # the model's times the audit's; NaN without a full audit
    flags: tuple[str, ...]  # ids of the audit's findings that name the patch
    neighbours: tuple[Mapping[str, Any], ...]  # {"split", "index", "label", "distance"}
    neighbours_agree: float  # share of them that are labelled as the model calls this patch
    seeds_agree: float  # share of the other seeds that call it as the model does
    doubt: Doubt
    why: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return null_if_nan(value) if isinstance(value, float) else value

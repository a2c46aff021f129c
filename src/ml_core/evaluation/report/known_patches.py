"""What the model says of single patches, looked up by their row in the source file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ml_core.errors import RunError
from ml_core.evaluation.calibration import Calibration
from ml_core.evaluation.predictions import Predictions
from ml_core.evaluation.report.run_facts import RunFacts


@dataclass(frozen=True)
class KnownPatch:
    """One patch: its label, the probability of tumour, and what it is called."""

    index: int
    y_true: int
    y_prob: float
    called: int

    @property
    def is_wrong(self) -> bool:
        return self.called != self.y_true

    @property
    def outcome(self) -> str:
        """What the call is, in two words."""
        if self.is_wrong:
            return "missed tumour" if self.y_true else "false alarm"
        return "found tumour" if self.y_true else "rightly normal"


@dataclass(frozen=True)
class KnownPatches:
    """The predictions of one split as they are used; None where they are not known."""

    predictions: Predictions | None = None
    threshold: float = 0.5

    @classmethod
    def of(cls, facts: RunFacts, split: str, content: Mapping[str, Any]) -> KnownPatches:
        """Return the predictions of `split`, calibrated and called as `content` was.

        None are known where they are of other weights than `content`.
        """
        scored = facts.valid if split == "valid" else facts.test
        table = scored.labelled if scored is not None else None
        if table is None or not content or table.split != split:
            return cls()
        if table.weights_sha256 != content.get("weights_sha256"):
            return cls()
        try:
            if scored is facts.valid:  # those of test are calibrated when they are read
                table = Calibration.from_dict(content["calibration"]).calibrate(table)
            return cls(table, float(content["threshold"]))
        except (KeyError, TypeError, ValueError, RunError):
            return cls()

    def get(self, index: int) -> KnownPatch | None:
        """Return what is known of the patch at row `index`."""
        if self.predictions is None:
            return None
        (rows,) = np.nonzero(self.predictions.index == index)
        if len(rows) == 0:
            return None
        row, prob = rows[0], float(self.predictions.y_prob[rows[0]])
        return KnownPatch(
            index, int(self.predictions.labels[row]), prob, int(prob >= self.threshold)
        )

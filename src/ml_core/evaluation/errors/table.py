"""The errors of one split, as errors.json has them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ml_core.evaluation.errors.doubt import LEAST_ODDS
from ml_core.evaluation.errors.label_check import LabelCheck
from ml_core.evaluation.errors.patch_error import PatchError
from ml_core.evaluation.json_score import rate_dict
from ml_core.findings import Finding
from ml_core.page.text import percent


@dataclass(frozen=True)
class ErrorTable:
    """The errors of one split, most confident first; `to_dict` is the body of errors.json."""

    split: str
    num_patches: int
    errors: tuple[PatchError, ...]
    check: LabelCheck | None  # of the rule for doubtful labels; None where no audit knows a label
    level: float

    @property
    def doubtful(self) -> list[PatchError]:
        """The errors that seem the label's, by falling odds against it."""
        doubtful = [error for error in self.errors if error.doubt == "label"]
        return sorted(doubtful, key=lambda error: -error.odds_against_label)

    @property
    def rule(self) -> str:
        """How a label comes to be called doubtful, in words."""
        if self.check is None:
            return "none: it takes the audit's label_belief, which only a full audit measures"
        return (
            "the model's odds against the label, times the audit's, are at least "
            f"{LEAST_ODDS:.0f} to 1, and the audit's model by itself is against it too"
        )

    @property
    def findings(self) -> tuple[Finding, ...]:
        """How many errors may be the label's, or that nobody can say; nothing without errors."""
        if not self.errors:
            return ()
        return (self._labels_not_judged() if self.check is None else self._doubtful_labels(),)

    def to_dict(self) -> dict[str, Any]:
        kinds = [error.kind for error in self.errors]
        return {
            "level": self.level,
            "num_errors": len(self.errors),
            "false_positives": kinds.count("false_positive"),
            "false_negatives": kinds.count("false_negative"),
            "errors": [error.to_dict() for error in self.errors],
            "doubtful_labels": {
                "n": len(self.doubtful),
                "rule": self.rule,
                "indices": [error.index for error in self.doubtful],
                **self._rates(),
            },
            "findings": [asdict(finding) for finding in self.findings],
        }

    def _rates(self) -> dict[str, Any]:
        """Return how many labels the rule marks: if they were turned round, and as they are."""
        check = self.check
        if check is None:
            return {"found_if_wrong": None, "marked_as_they_are": None}
        return {
            "found_if_wrong": rate_dict(check.num_found, check.num_known, self.level),
            "marked_as_they_are": rate_dict(check.num_marked, check.num_known, self.level),
        }

    def _labels_not_judged(self) -> Finding:
        return Finding(
            "labels-not-judged",
            "info",
            f"whether any of the {len(self.errors):,} errors is the label's is not known: there is "
            "no label_belief for these patches.",
            "Audit the data in full (ml-core audit), then slice again.",
            split=self.split,
        )

    def _doubtful_labels(self) -> Finding:
        indices = tuple(sorted(error.index for error in self.doubtful))
        rates = self._rates()
        return Finding(
            "doubtful-labels",
            "info",
            f"{len(indices):,} of the {len(self.errors):,} errors may be the label's: the audit "
            f"doubts it too. Of all labels, each turned round, "
            f"{percent(rates['found_if_wrong']['value'])} would be marked so; as they are, "
            f"{percent(rates['marked_as_they_are']['value'])} are.",
            "Look at these patches, and correct wrong labels at the source; until then they count "
            "as errors.",
            split=self.split,
            count=len(indices),
            share=len(indices) / self.num_patches,
            indices=indices,
            facts=rates,
        )

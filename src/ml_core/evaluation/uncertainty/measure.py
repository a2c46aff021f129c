"""How far a model's confidence can be trusted, and what to do where it cannot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ml_core.evaluation.json_score import rate_dict, score_dict
from ml_core.evaluation.predictions import Predictions, null_if_nan
from ml_core.evaluation.uncertainty.abstention import (
    Abstention,
    Chosen,
    fewest_to_prove,
    find_abstention,
    see_again,
)
from ml_core.evaluation.uncertainty.findings import uncertainty_findings
from ml_core.evaluation.uncertainty.risk_coverage import (
    Ranked,
    RiskCoverage,
    aurc_interval,
    aurc_of_an_oracle,
    compute_aurc,
    compute_risk_coverage,
    rank_by_confidence,
)
from ml_core.evaluation.uncertainty.seed_agreement import SeedAgreement, measure_seeds
from ml_core.findings import Finding
from ml_core.metrics.arrays import check_resampling, check_threshold
from ml_core.page.text import percent

CONFIDENCE = "the calibrated probability that the call is right"


@dataclass(frozen=True)
class Uncertainty:
    """What `measure_uncertainty` found; `to_dict` is the body of uncertainty.json."""

    num_patches: int
    num_errors: int
    level: float
    curve: RiskCoverage
    aurc: Mapping[str, float | None]
    aurc_of_an_oracle: float
    target_risk: float
    abstention: Abstention | None
    seeds: SeedAgreement | None
    may_choose: bool = True

    @property
    def risk(self) -> float:
        """The error rate of all calls, which is also the area where confidence orders by chance."""
        return self.num_errors / self.num_patches

    @property
    def why_no_abstention(self) -> str:
        """Why there is no abstention, in words without a full stop; "" where there is one."""
        if self.abstention is not None:
            return ""
        if not self.may_choose:
            return "it is chosen on another split, never on these patches, and none is known"
        if self.target_risk == 0:
            return f"there is no error among these {self.num_patches:,} patches to abstain from"
        least = fewest_to_prove(self.target_risk, self.level)
        proof = (
            f"{least:,} patches without an error are needed to prove an error rate of at most "
            f"{percent(self.target_risk)}"
        )
        if least > self.num_patches:
            return f"{proof}, and there are {self.num_patches:,} in all"
        return (
            f"even the calls that the model is surest of err too often to promise an error rate of "
            f"{percent(self.target_risk)}"
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "confidence": CONFIDENCE,
            "level": self.level,
            "risk": rate_dict(self.num_errors, self.num_patches, self.level),
            "risk_coverage": asdict(self.curve),
            "aurc": dict(self.aurc),
            "aurc_of_chance": self.risk,
            "aurc_of_an_oracle": self.aurc_of_an_oracle,
            "abstention": self._abstention(),
            "why_no_abstention": self.why_no_abstention,
            "seeds": self._seeds(),
            "findings": [asdict(finding) for finding in uncertainty_findings(self)],
        }

    def _abstention(self) -> dict[str, Any] | None:
        found = self.abstention
        if found is None:
            return None
        return {
            "target_risk": self.target_risk,
            "coverage": found.num_kept / self.num_patches,
            "below": found.below,
            "above": found.above,
            "risk": rate_dict(found.num_wrong, found.num_kept, self.level),
            "how": self._how(),
        }

    def _how(self) -> str:
        if not self.may_choose:
            return "chosen on another split, and seen again on these patches"
        return (
            f"the most patches of which binomial tests in a fixed sequence prove, at "
            f"{percent(self.level, 0)}, that at most {percent(self.target_risk)} of the calls are "
            "wrong; for patches drawn one by one as these were, which patches of a few slides are "
            "not"
        )

    def _seeds(self) -> dict[str, Any] | None:
        seeds = self.seeds
        if seeds is None:
            return None
        return {
            "runs": list(seeds.runs),
            "num_runs": len(seeds.runs),
            "all_agree": seeds.all_agree,
            "kappa": null_if_nan(seeds.kappa),
            "error_when_agree": rate_dict(*seeds.when_agree, self.level),
            "error_when_split": rate_dict(*seeds.when_split, self.level),
            "by_votes": [
                {
                    "votes": votes,
                    "n": tally.num_patches,
                    "error": rate_dict(*tally, self.level)["value"],
                }
                for votes, tally in enumerate(seeds.by_votes)
            ],
        }

    @property
    def findings(self) -> tuple[Finding, ...]:
        return uncertainty_findings(self)


def measure_uncertainty(
    predictions: Predictions,
    threshold: float,
    *,
    seed_predictions: Mapping[str, Predictions] | None = None,
    run_name: str = "this run",
    target_risk: float | None = None,
    may_choose: bool = True,
    chosen: Chosen | None = None,
    num_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Uncertainty:
    """Return how the error rate falls with coverage, where to abstain, and how far seeds agree.

    `predictions` are calibrated, as the `threshold` is for. `target_risk` is the error rate that
    the calls that are kept must have; without it, half of what all have. `seed_predictions` are
    those of other seeds on the same patches, by the name of the run, calibrated alike; `run_name`
    is this run's. An error is a call other than the label at `threshold`, whichever class it costs.
    With `may_choose` False, as on a test split, no range to abstain in is sought: the one that was
    `chosen` elsewhere, if any, is seen on these patches.

    Raises RunError without labels and for predictions of other patches, ValueError for a threshold,
    target or level out of range.
    """
    check_threshold(threshold)
    check_resampling(num_resamples, level)
    ranked = rank_by_confidence(predictions, threshold)
    num_errors = int(ranked.is_wrong.sum())
    target = ranked.risk / 2 if target_risk is None else target_risk
    if may_choose:
        abstention = _abstain(ranked, threshold, target_risk, target, level)
    else:
        abstention = see_again(predictions, threshold, chosen) if chosen else None
        target = chosen.target_risk if chosen else target
    return Uncertainty(
        num_patches=len(ranked),
        num_errors=num_errors,
        level=level,
        curve=compute_risk_coverage(ranked, level),
        aurc=_aurc(ranked, num_resamples, level, seed),
        aurc_of_an_oracle=aurc_of_an_oracle(len(ranked), num_errors),
        target_risk=target,
        abstention=abstention,
        seeds=measure_seeds(predictions, threshold, seed_predictions, run_name)
        if seed_predictions
        else None,
        may_choose=may_choose,
    )


def _aurc(ranked: Ranked, num_resamples: int, level: float, seed: int) -> dict[str, float | None]:
    interval = aurc_interval(ranked, num_resamples, level, seed)
    return score_dict(compute_aurc(ranked.expected_wrong), interval)


def _abstain(
    ranked: Ranked, threshold: float, asked: float | None, target: float, level: float
) -> Abstention | None:
    """Return the abstention; None also where half of no error would be the target."""
    if asked is None and target == 0:
        return None
    return find_abstention(ranked, threshold, target, level)

"""What a reader must know of a model's uncertainty, in sentences made of the figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ml_core.evaluation.json_score import rate_dict
from ml_core.findings import Finding
from ml_core.page.text import percent

if TYPE_CHECKING:
    from ml_core.evaluation.uncertainty.measure import Uncertainty
    from ml_core.evaluation.uncertainty.seed_agreement import Tally


def uncertainty_findings(found: Uncertainty) -> tuple[Finding, ...]:
    """Return whether confidence orders the errors, what abstaining gives, and what seeds show."""
    each = (_of_order(found), _of_abstention(found), _of_seeds(found))
    return tuple(finding for finding in each if finding is not None)


def _of_order(found: Uncertainty) -> Finding | None:
    high = found.aurc["high"]
    if found.num_errors in (0, found.num_patches) or high is None or high < found.risk:
        return None
    return Finding(
        "confidence-orders-no-errors",
        "warning",
        f"the area under the risk-coverage curve is {found.aurc['value']:.3f} (up to {high:.3f}), "
        f"which {found.risk:.3f} by chance does not exceed: the model is as often wrong where it "
        "is sure.",
        "Do not use its probabilities to decide which patches a person looks at.",
    )


def _of_abstention(found: Uncertainty) -> Finding:
    kept = found.abstention
    if kept is None:
        return Finding(
            "no-abstention",
            "info",
            f"no abstention keeps an error rate: {found.why_no_abstention}.",
            "Predict more patches, or ask for a larger error rate: evaluation.target_risk.",
        )
    left_out = 1 - kept.num_kept / found.num_patches
    promise = (
        f"on new patches at most {percent(found.target_risk)}, at a level of "
        f"{percent(found.level, 0)}"
        if found.may_choose
        else f"it was chosen elsewhere for {percent(found.target_risk)}"
    )
    return Finding(
        "abstention",
        "info",
        f"with the {percent(left_out)} of patches between {kept.below:.3f} and {kept.above:.3f} "
        f"left to a person, {percent(kept.num_wrong / kept.num_kept)} of the calls are wrong "
        f"instead of {percent(found.risk)}; {promise}.",
        "Check it on patches of other slides before relying on it.",
    )


def _of_seeds(found: Uncertainty) -> Finding | None:
    seeds = found.seeds
    if seeds is None:
        return None
    wrong = [
        f"where they {verb}, {_rate(tally, found.level)} of this run's calls are wrong"
        for verb, tally in (("agree", seeds.when_agree), ("do not", seeds.when_split))
        if tally.num_patches
    ]
    return Finding(
        "seeds-agreement",
        "info",
        f"{len(seeds.runs)} runs call {percent(seeds.all_agree)} of the patches alike; "
        f"{', '.join(wrong)}.",
        "What all seeds get wrong is no chance of training: look at the labels and at the data.",
    )


def _rate(tally: Tally, level: float) -> str:
    rate = rate_dict(*tally, level)
    return f"{percent(rate['value'])} ({percent(rate['low'])} to {percent(rate['high'])})"

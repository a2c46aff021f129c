"""How far the model's confidence can be trusted, as the page shows it: uncertainty.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_core.evaluation.report.figure_block import FigureBlock, figure_block
from ml_core.evaluation.report.slice_table import Score
from ml_core.evaluation.uncertainty.plots import plot_risk_coverage, plot_seed_agreement


@dataclass(frozen=True)
class Abstention:
    """Between which probabilities to leave a patch to a person, and what is gained by it."""

    target_risk: float
    coverage: float
    low: float
    high: float
    risk: Score
    how: str


@dataclass(frozen=True)
class Seeds:
    """How far runs that differ in the seed alone agree."""

    num_runs: int
    all_agree: float | None
    kappa: float | None
    error_when_agree: Score
    error_when_split: Score


@dataclass(frozen=True)
class TrustPart:
    """What the page shows of uncertainty.json."""

    aurc: Score
    aurc_of_chance: float | None
    aurc_of_an_oracle: float | None
    abstention: Abstention | None
    why_no_abstention: str
    seeds: Seeds | None
    figures: Sequence[FigureBlock]


def build_trust_part(content: Mapping[str, Any], anchor: str, source: str) -> TrustPart:
    """Return the figures and numbers of uncertainty.json, whose name is `source`.

    Raises KeyError, TypeError or ValueError where it is not as `Uncertainty.to_dict` writes it.
    """
    written, seeds = content["abstention"], content["seeds"]
    figures = [
        figure_block(
            plot_risk_coverage(content),
            "risk_coverage", anchor, "Risk over coverage",
            "Error rate among the patches answered, over the share of patches that is answered",
            source,
        )
    ]  # fmt: skip
    if seeds:
        figures.append(
            figure_block(
                plot_seed_agreement(seeds, float(content["level"])),
                "votes", anchor, "Error by how many seeds call tumour",
                "Error rate of this run by the number of seeds that call a patch tumour",
                source,
            )
        )  # fmt: skip
    return TrustPart(
        aurc=Score.of(content["aurc"]),
        aurc_of_chance=content["aurc_of_chance"],
        aurc_of_an_oracle=content["aurc_of_an_oracle"],
        abstention=_abstention(written) if written else None,
        why_no_abstention=str(content.get("why_no_abstention") or ""),
        seeds=_seeds(seeds) if seeds else None,
        figures=figures,
    )


def _abstention(written: Mapping[str, Any]) -> Abstention:
    low, high = sorted((written["below"], written["above"]))
    return Abstention(
        target_risk=float(written["target_risk"]),
        coverage=float(written["coverage"]),
        low=float(low),
        high=float(high),
        risk=Score.of(written["risk"]),
        how=str(written.get("how", "")),
    )


def _seeds(written: Mapping[str, Any]) -> Seeds:
    return Seeds(
        num_runs=int(written["num_runs"]),
        all_agree=written["all_agree"],
        kappa=written["kappa"],
        error_when_agree=Score.of(written["error_when_agree"]),
        error_when_split=Score.of(written["error_when_split"]),
    )

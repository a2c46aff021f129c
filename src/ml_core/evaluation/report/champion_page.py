"""What the page shows of the champion: how it was chosen, and its evidence on validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ml_core.evaluation.calibration import Calibration
from ml_core.evaluation.operating_plots import operating_figures
from ml_core.evaluation.plots import METRIC_LABELS
from ml_core.evaluation.report.figure_block import FigureBlock, figure_block
from ml_core.evaluation.report.scores import BASELINE_LABELS
from ml_core.evaluation.report.split_facts import SplitFacts
from ml_core.evaluation.threshold import ChosenThreshold
from ml_core.findings import Finding
from ml_core.metrics import HIGHER_IS_BETTER

# name of the figure -> (heading, what a screen reader says)
FIGURE_TEXTS = {
    "threshold_sweep": (
        "Over the threshold",
        "Recall, specificity, precision and F2 on validation over the threshold",
    ),
    "calibration": (
        "Reliability before and after calibration",
        "Share of tumours over predicted probability on validation, raw and calibrated",
    ),
    "predictive_values": (
        "Where tumours are rarer",
        "Share of calls and of silences that are right, over the share of tumours",
    ),
    "cost": ("Expected cost", "Expected cost per patch on validation over the threshold"),
}
TO_TEST = "--split test"  # in the advice of a finding
CALIBRATION_LABELS = {
    "ece": "ECE, bins of equal width",
    "ece_by_chance": "what chance alone gives of it",
    "ece_equal_mass": "ECE, bins of equal mass",
    "brier": "Brier score",
    "nll": "negative log-likelihood",
}


@dataclass(frozen=True)
class DifferenceRow:
    """One metric of the champion beside another model's, with the paired difference."""

    name: str
    label: str
    value: float | None
    other: float | None
    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None


@dataclass(frozen=True)
class ChampionPage:
    """The champion's part of a page; `anchor` starts each of its ids.

    `source` is the file it was read from, in `source_folder` as seen from the page, None where
    nobody knows.
    """

    anchor: str
    source: str
    source_folder: str | None
    champion: Mapping[str, Any]
    threshold_rule: str
    expected: Sequence[tuple[str, Mapping[str, Any], Mapping[str, Any] | None]]  # and at 0.5
    calibration: Sequence[tuple[str, float | None, float | None]]  # before, after
    runner_up: Sequence[DifferenceRow]
    baselines: Sequence[tuple[str, bool, Sequence[DifferenceRow]]]  # name, whether beaten
    notes: Sequence[str]
    figures: Sequence[FigureBlock]
    findings: Sequence[Finding]


def build_champion_page(
    champion: Mapping[str, Any],
    valid: SplitFacts,
    anchor: str,
    source: str = "champion.json",
    source_folder: str | None = None,
    is_tested: bool = False,
) -> ChampionPage:
    """Return everything the page shows of the content of champion.json.

    `valid` holds the raw validation predictions of its run, from which its figures are drawn;
    `is_tested` is whether the test split was opened for it.
    """
    chosen = ChosenThreshold.from_dict(champion["threshold"])
    calibration = champion["calibration"]
    before, after = calibration.get("before") or {}, calibration.get("after") or {}
    runner_up = champion.get("runner_up") or {}
    return ChampionPage(
        anchor=anchor,
        source=source,
        source_folder=source_folder,
        champion=champion,
        threshold_rule=str(chosen.rule),
        expected=[
            (METRIC_LABELS.get(name, f"expected {name}"), metric, chosen.at_half.get(name))
            for name, metric in chosen.expected.items()
        ],
        calibration=[
            (label, before.get(name), after.get(name))
            for name, label in CALIBRATION_LABELS.items()
            if name in before
        ],
        runner_up=_difference_rows(runner_up.get("differences") or {}),
        baselines=[
            (
                BASELINE_LABELS.get(name, name),
                bool(each["beaten"]),
                _difference_rows(each["differences"]),
            )
            for name, each in champion["baselines"].items()
        ],
        notes=[note for note in (*chosen.notes, calibration.get("note")) if note],
        figures=_figures(champion, chosen, valid, anchor),
        findings=champion_findings(champion, is_tested),
    )


def champion_findings(champion: Mapping[str, Any], is_tested: bool) -> list[Finding]:
    """Return the findings of champion.json; no advice to open the test split that was opened."""
    findings = [Finding(**finding) for finding in champion.get("findings", [])]
    if not is_tested:
        return findings
    return [
        replace(each, action="See Test.") if TO_TEST in each.action else each for each in findings
    ]


def _difference_rows(differences: Mapping[str, Mapping[str, Any]]) -> list[DifferenceRow]:
    return [
        DifferenceRow(
            name=name,
            label=METRIC_LABELS.get(name, name),
            **{
                key: differences[name].get(key)
                for key in ("value", "other", "difference", "low", "high", "p_value")
            },
        )
        for name in HIGHER_IS_BETTER
        if name in differences
    ]


def _figures(
    champion: Mapping[str, Any], chosen: ChosenThreshold, valid: SplitFacts, anchor: str
) -> list[FigureBlock]:
    raw = valid.labelled
    if raw is None or raw.split != "valid":
        return []
    calibrated = Calibration.from_dict(champion["calibration"]).calibrate(raw)
    stated = (champion.get("prior_shift") or {}).get("prevalence")
    figures = operating_figures(raw.labels, raw.y_prob, calibrated.y_prob, chosen, stated)
    return [
        figure_block(figure, name, anchor, *FIGURE_TEXTS[name], valid.table.name)
        for name, figure in figures.items()
    ]

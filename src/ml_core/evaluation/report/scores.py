"""Scores as the report shows them: beside their intervals, beside the baselines, and over runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ml_core.evaluation.plots import METRIC_LABELS
from ml_core.findings import Finding
from ml_core.metrics import HIGHER_IS_BETTER

HEADLINE = ("roc_auc", "pr_auc", "accuracy", "f2")
OVERVIEW = ("roc_auc", "pr_auc", "accuracy", "balanced_accuracy", "f1", "f2", "loss")
BASELINE_LABELS = {
    "always_positive": "always positive",
    "always_negative": "always negative",
    "prior": "prior",
}
# One of the two constant answers is perfect in these, so that no model can beat both.
WON_BY_A_CONSTANT = frozenset({"precision", "recall", "specificity"})


@dataclass(frozen=True)
class ScoreRow:
    """One metric of a run; None where a value is undefined.

    `standing` says how the interval lies to the best baseline: "better", "worse", "overlaps", or
    "" where the comparison says nothing.
    """

    name: str
    label: str
    value: float | None
    low: float | None
    high: float | None
    baselines: Mapping[str, float | None]
    best_baseline: str
    best_baseline_value: float | None
    standing: str

    @property
    def lower_is_better(self) -> bool:
        return not HIGHER_IS_BETTER[self.name]

    @property
    def on_unit_scale(self) -> bool:
        """Whether the value can be drawn on a scale from 0 to 1."""
        return self.name != "loss" and self.value is not None


def score_rows(scores: Mapping[str, Any]) -> list[ScoreRow]:
    """Return a row for each metric of metrics.json, in the order of the table."""
    rows = []
    for name, higher in HIGHER_IS_BETTER.items():
        metric = scores["metrics"].get(name)
        if metric is None:
            continue
        baselines = {
            key: values.get(name)
            for key, values in scores["baselines"].items()
            if key in BASELINE_LABELS
        }
        known = {key: value for key, value in baselines.items() if value is not None}
        pick = max if higher else min
        best = pick(known, key=lambda key: known[key]) if known else ""
        best_value = known.get(best)
        comparable = name not in WON_BY_A_CONSTANT
        standing = _standing(metric, best_value, higher) if comparable else ""
        rows.append(
            ScoreRow(
                name=name,
                label=METRIC_LABELS[name],
                value=metric["value"],
                low=metric["low"],
                high=metric["high"],
                baselines=baselines,
                best_baseline=_name_best(best, known),
                best_baseline_value=best_value,
                standing=standing,
            )
        )
    return rows


def check_baselines(rows: Sequence[ScoreRow]) -> list[Finding]:
    """Return a finding when some metric does not beat what needs no model."""
    beaten = [row for row in rows if row.standing in ("worse", "overlaps")]
    if not beaten:
        return []
    named = "; ".join(
        f"{row.label} {row.value:.3f} ({row.low:.3f} to {row.high:.3f}) "
        f"against {row.best_baseline_value:.3f} for {row.best_baseline}"
        for row in beaten
    )
    message = f"Not better than a baseline that needs no model, by its interval: {named}."
    return [Finding("not-above-baseline", "warning", message)]


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (n - 1) of one metric over runs; None where undefined."""

    mean: float | None
    sd: float | None
    num_runs: int


def spread_over_runs(all_scores: Sequence[Mapping[str, Any]], name: str) -> Spread:
    """Return the spread of metric `name` over the runs in which it is defined."""
    values = [scores["metrics"].get(name, {}).get("value") for scores in all_scores]
    known = [value for value in values if value is not None]
    return Spread(
        mean=float(np.mean(known)) if known else None,
        sd=float(np.std(known, ddof=1)) if len(known) > 1 else None,
        num_runs=len(known),
    )


def _name_best(best: str, known: Mapping[str, float]) -> str:
    all_alike = len(known) > 1 and len(set(known.values())) == 1
    return "every baseline" if all_alike else BASELINE_LABELS.get(best, "")


def _standing(metric: Mapping[str, Any], baseline: float | None, higher: bool) -> str:
    low, high = metric["low"], metric["high"]
    if baseline is None or low is None or high is None:
        return ""
    if not higher:
        low, high, baseline = -high, -low, -baseline
    if low > baseline:
        return "better"
    return "worse" if high < baseline else "overlaps"

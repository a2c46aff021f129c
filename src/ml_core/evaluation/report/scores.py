"""Scores as the report shows them: beside their intervals, beside the baselines, and over runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ml_core.evaluation.plots import METRIC_LABELS
from ml_core.findings import Finding
from ml_core.metrics import HIGHER_IS_BETTER
from ml_core.page.text import count, decimal, signed

HEADLINE = ("roc_auc", "pr_auc", "accuracy", "f2")
OVERVIEW = ("roc_auc", "pr_auc", "accuracy", "balanced_accuracy", "f1", "f2", "loss")
BASELINE_LABELS = {
    "always_positive": "always positive",
    "always_negative": "always negative",
    "prior": "prior",
    "mean_colour": "mean colour",
    "colour_histogram": "colour histogram",
    "random_features": "random features",
}
# One of the two constant answers is perfect in these, so that no model can beat both.
WON_BY_A_CONSTANT = frozenset({"precision", "recall", "specificity"})
WORST_FIRST = ("worse", "overlaps", "better")


@dataclass(frozen=True)
class Difference:
    """How far the run is above one baseline, with the paired interval and p."""

    value: float
    low: float
    high: float
    p: float

    @property
    def standing(self) -> str:
        return "better" if self.low > 0 else "worse" if self.high < 0 else "overlaps"


@dataclass(frozen=True)
class ScoreRow:
    """One metric of a run; None where a value is undefined.

    `standing` says how the run lies to the baselines, all of them: "better" than each, "worse" than
    one, else "overlaps", or "" where the comparison says nothing. Where a paired interval of the
    difference is known (`differences`), it decides, since both answered for the same patches; else
    the run's own interval does. `not_beaten` names the baselines that the run is not better than.
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
    not_beaten: tuple[str, ...]
    differences: Mapping[str, Difference]  # of ROC-AUC, by baseline; none where not computed

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
        differences = _differences(scores["baselines"]) if name == "roc_auc" else {}
        standings = {} if name in WON_BY_A_CONSTANT else _standings(metric, known, higher)
        standings |= {key: difference.standing for key, difference in differences.items()}
        rows.append(
            ScoreRow(
                name=name,
                label=METRIC_LABELS[name],
                value=metric["value"],
                low=metric["low"],
                high=metric["high"],
                baselines=baselines,
                best_baseline=_name_best(best, known),
                best_baseline_value=known.get(best),
                standing=next((each for each in WORST_FIRST if each in standings.values()), ""),
                not_beaten=tuple(key for key, each in standings.items() if each != "better"),
                differences=differences,
            )
        )
    return rows


def describe_baselines(scores: Mapping[str, Any]) -> str:
    """Return in a sentence what the baselines of metrics.json know; "" where it does not say."""
    facts = scores.get("baseline_facts") or {}
    if "fitted_on" not in facts:
        return ""
    drawn = "as many of each class" if facts["balanced"] else "drawn as they come"
    return (
        f"The colour and feature baselines are logistic regressions on {count(facts['fitted_on'])} "
        f"of the {count(facts['train_patches'])} train patches used, {drawn}; the prior is "
        f"{decimal(facts['prior'])}, {facts['prior_is']}."
    )


def check_baselines(rows: Sequence[ScoreRow]) -> list[Finding]:
    """Return a finding that names each baseline that is not beaten, and in which metrics."""
    said = {
        key: [_say_not_beaten(row, key) for row in rows if key in row.not_beaten]
        for key in BASELINE_LABELS
    }
    named = "; ".join(
        f"{BASELINE_LABELS[key]} in {', '.join(metrics)}"
        for key, metrics in said.items()
        if metrics
    )
    if not named:
        return []
    message = f"Not better than a baseline, by its interval: {named}."
    return [Finding("not-above-baseline", "warning", message)]


def _say_not_beaten(row: ScoreRow, key: str) -> str:
    against = f"{decimal(row.value)} against {decimal(row.baselines[key])}"
    if key in row.differences:
        paired = row.differences[key]
        against += f", paired difference {signed(paired.low)} to {signed(paired.high)}"
    return f"{row.label} ({against})"


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


def _standings(
    metric: Mapping[str, Any], baselines: Mapping[str, float], higher: bool
) -> dict[str, str]:
    """Return how the interval of `metric` lies to each baseline; none where it is undefined."""
    low, high = metric["low"], metric["high"]
    if low is None or high is None:
        return {}
    if not higher:
        low, high = -high, -low
        baselines = {key: -value for key, value in baselines.items()}
    return {
        key: "better" if low > value else "worse" if high < value else "overlaps"
        for key, value in baselines.items()
    }


def _differences(baselines: Mapping[str, Mapping[str, Any]]) -> dict[str, Difference]:
    """Return the paired differences of the known baselines, where metrics.json has them whole."""
    names = ("value", "low", "high", "p")
    found = {
        key: baselines[key].get("auc_difference") or {}
        for key in BASELINE_LABELS
        if key in baselines
    }
    return {
        key: Difference(*(each[name] for name in names))
        for key, each in found.items()
        if all(each.get(name) is not None for name in names)
    }

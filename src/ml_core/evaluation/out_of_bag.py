"""What a rule's threshold gives on patches that did not choose it, by resampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ml_core.evaluation.cuts import Bools, Counts, Cuts
from ml_core.evaluation.threshold_rule import UNREACHABLE, ThresholdRule, pick_cuts
from ml_core.metrics import (
    Confusion,
    Interval,
    balanced_accuracy_interval,
    f_beta_interval,
    wilson_interval,
)
from ml_core.metrics.arrays import Floats, Ints, ratio
from ml_core.metrics.resampling import map_resamples
from ml_core.metrics.scores import metrics_from_counts

METRICS = ("recall", "specificity", "precision", "f1", "f2", "balanced_accuracy", "accuracy")

Estimate = dict[str, float | None]  # value, low, high, in_sample

# A resample holds all but 1/e of the patches, so what it lacks counts for 0.632 (Efron 1983).
_HELD = 1 - math.exp(-1)
# In units of the variance of one table: a resample has its table's and its own, what it leaves out
# is e times smaller; a table like this one and a new one have 1 each.
_SPREAD = math.sqrt((1 + 1) / (2 + math.e))


def operating_metrics(cells: Floats, costs: ThresholdRule | None = None) -> dict[str, Floats]:
    """Return METRICS for counts `cells` (4, ...) of tn, fp, fn, tp; NaN where undefined.

    Where `costs` is given, also `cost`: per patch, at its prevalence or that of the counts.
    """
    tn, fp, fn, tp = cells
    metrics = metrics_from_counts(tn=tn, fp=fp, fn=fn, tp=tp)
    wanted = {name: metrics[name] for name in METRICS}
    if costs is not None:
        share = costs.prevalence or ratio(tp + fn, tn + fp + fn + tp)
        missed = costs.cost_false_negative * share * (1 - metrics["recall"])
        alarmed = costs.cost_false_positive * (1 - share) * (1 - metrics["specificity"])
        wanted["cost"] = missed + alarmed
    return wanted


@dataclass(frozen=True)
class Outlook:
    """What a threshold gives on the patches at hand, and draws of what it will on a new table."""

    confusion: Confusion  # of the patches at hand
    in_sample: dict[str, float]
    draws: dict[str, Floats]  # empty where nothing is known
    num_unmet: int  # resamples without a threshold, or without a patch to measure it on

    def estimates(self, level: float) -> dict[str, Estimate]:
        """Return the mean of the draws and the interval that holds `level` of them, by metric.

        An end is never nearer than the score interval puts it, here and in the new table, joined as
        independent errors are (Newcombe 1998, method 10): resampling 20 found of 20 knows no miss.
        """
        return {name: self._estimate(name, level) for name in self.in_sample}

    def share_at_least(self, metric: str, value: float) -> float:
        """Return the share of draws in which `metric` reaches `value`; NaN without a draw."""
        draws = self.draws[metric]
        return float((draws >= value).mean()) if len(draws) else math.nan

    def _estimate(self, name: str, level: float) -> Estimate:
        here, draws = self.in_sample[name], self.draws[name]
        if len(draws) == 0:
            known = here if math.isfinite(here) else None
            return {"value": None, "low": None, "high": None, "in_sample": known}
        value = float(draws.mean())
        low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
        score = _score_interval(name, self.confusion, level)
        if score is not None:
            low = min(low, value - math.sqrt(2) * (here - score.low))
            high = max(high, value + math.sqrt(2) * (score.high - here))
        highest = np.inf if name == "cost" else 1.0
        value, low, high = np.clip([value, low, high], 0.0, highest).tolist()
        return {"value": value, "low": low, "high": high, "in_sample": here}


def foresee(
    cuts: Cuts,
    chosen: Sequence[tuple[ThresholdRule, float]],
    num_resamples: int,
    seed: int,
) -> list[Outlook]:
    """Return the outlook of each threshold, which its rule chose on the patches of `cuts`.

    Each resample chooses by each rule and is measured on the patches it left out. What the patches
    at hand give is too good where they chose, and is corrected by 0.632 of the mean difference from
    in bag to out of bag (Efron, JASA 78, 1983). The draws lie about that as the differences do, but
    closer: a resample and the few patches it leaves out vary more than a table and a new one of its
    size. `cost` is that of the first rule, for all.
    """
    rules = [rule for rule, _ in chosen]
    costs = rules[0] if rules[0].kind == "cost" else None
    differences = _out_of_bag_differences(cuts, rules, costs, num_resamples, seed)
    return [
        _outlook(cuts, rule, threshold, costs, each)
        for (rule, threshold), each in zip(chosen, differences, strict=True)
    ]


def _outlook(
    cuts: Cuts,
    rule: ThresholdRule,
    threshold: float,
    costs: ThresholdRule | None,
    differences: dict[str, Floats],
) -> Outlook:
    cells = cuts.count().cells(np.array([cuts.cut_at(threshold)]))
    measured = operating_metrics(cells, costs)
    in_sample = {name: float(value[0]) for name, value in measured.items()}
    draws = {}
    for name, value in in_sample.items():
        known = differences[name][np.isfinite(differences[name])]
        if len(known) == 0 or not math.isfinite(value):
            draws[name] = np.empty(0)
            continue
        shift = 0.0 if rule.kind == "fixed" else _HELD * known.mean()
        draws[name] = value + shift + _SPREAD * (known - known.mean())
    here = Confusion(*(int(cell) for cell in cells[:, 0]))
    return Outlook(here, in_sample, draws, int(np.isnan(differences["accuracy"]).sum()))


def _out_of_bag_differences(
    cuts: Cuts,
    rules: Sequence[ThresholdRule],
    costs: ThresholdRule | None,
    num_resamples: int,
    seed: int,
) -> list[dict[str, Floats]]:
    """Return, for each rule, every metric out of bag minus in bag, each (num_resamples,).

    NaN where a metric is undefined on either side, or the rule reaches no threshold.
    """

    def differ(weights: Floats) -> list[dict[str, Floats]]:
        counts, left_out = cuts.count(weights), weights == 0
        return [_differ(cuts, rule, costs, counts, left_out) for rule in rules]

    blocks = map_resamples(differ, seed, num_resamples, len(cuts))
    return [
        {name: np.concatenate([block[number][name] for block in blocks]) for name in first}
        for number, first in enumerate(blocks[0])
    ]


def _differ(
    cuts: Cuts, rule: ThresholdRule, costs: ThresholdRule | None, counts: Counts, left_out: Bools
) -> dict[str, Floats]:
    cut, met = _choose(cuts, rule, counts)
    inside = operating_metrics(counts.cells(cut), costs)
    outside = operating_metrics(cuts.cells_of(left_out, cut), costs)
    return {name: np.where(met, outside[name] - inside[name], np.nan) for name in inside}


def _choose(cuts: Cuts, rule: ThresholdRule, counts: Counts) -> tuple[Ints, Bools]:
    """Return the cut that each resample takes, and whether it keeps the rule."""
    if rule.kind == "fixed":
        return np.full(len(counts.tp), cuts.cut_at(rule.value)), np.full(len(counts.tp), True)
    cut = pick_cuts(rule, counts)
    return cut, cut != UNREACHABLE


def _score_interval(name: str, confusion: Confusion, level: float) -> Interval | None:
    """Return the interval of a metric from its counts alone, None for a cost."""
    tn, fp, fn, tp = confusion
    if name == "balanced_accuracy":
        return balanced_accuracy_interval(tn, fp, fn, tp, level)
    if name in ("f1", "f2"):
        return f_beta_interval(tp, fp, fn, 1 if name == "f1" else 2, level)
    shares = {
        "recall": (tp, tp + fn),
        "specificity": (tn, tn + fp),
        "precision": (tp, tp + fp),
        "accuracy": (tp + tn, tn + fp + fn + tp),
    }
    return wilson_interval(*shares[name], level) if name in shares else None

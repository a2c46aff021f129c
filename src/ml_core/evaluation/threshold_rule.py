"""The rules a threshold is chosen by, and which cut each takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from ml_core.errors import did_you_mean
from ml_core.evaluation.cuts import Counts
from ml_core.metrics.arrays import Floats, Ints

Kind = Literal["f_beta", "recall", "specificity", "cost", "youden", "fixed"]
KINDS: tuple[Kind, ...] = get_args(Kind)

UNREACHABLE = 0  # the cut that calls nothing


@dataclass(frozen=True)
class ThresholdRule:
    """What a threshold is chosen for; a patch is called a tumour where ``y_prob >= threshold``.

    `f_beta`: the highest F-beta, which weighs recall `beta` times as much as precision (van
    Rijsbergen 1979, chapter 7). `recall`: the highest threshold with a recall of `at_least`, so the
    best specificity. `specificity`: the lowest with a specificity of `at_least`, so the best
    recall. `cost`: the lowest expected cost per patch, of `cost_false_negative` for each missed
    tumour and `cost_false_positive` for each false alarm, at `prevalence` (None: the table's).
    `youden`: the highest recall + specificity - 1 (Youden, Cancer 3, 1950). `fixed`: `value`.

    Only thresholds that call at least one patch are chosen from. Of equally good ones the highest
    is taken: it makes the fewest alarms. Raises ValueError for a number that is not allowed.
    """

    kind: Kind
    beta: float = 2.0
    at_least: float = 0.95
    cost_false_negative: float = 10.0
    cost_false_positive: float = 1.0
    prevalence: float | None = None
    value: float = 0.5

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            near = did_you_mean(str(self.kind), KINDS)
            raise ValueError(
                f"unknown threshold rule {self.kind!r}; allowed: {', '.join(KINDS)}.{near}"
            )
        _check("beta", self.beta, 0 < self.beta < np.inf, "numbers above 0")
        _check("at_least", self.at_least, 0 < self.at_least <= 1, "numbers above 0, up to 1")
        for name in ("cost_false_negative", "cost_false_positive"):
            cost = getattr(self, name)
            _check(name, cost, 0 < cost < np.inf, "numbers above 0")
        if self.prevalence is not None:
            inside = 0 < self.prevalence < 1
            _check("prevalence", self.prevalence, inside, "numbers between 0 and 1, without both")
        _check("value", self.value, 0 <= self.value <= 1, "numbers from 0 to 1")

    def __str__(self) -> str:
        if self.kind == "f_beta":
            return f"highest F{self.beta:g}"
        if self.kind in ("recall", "specificity"):
            return f"{self.kind} of at least {self.at_least:g}"
        if self.kind == "cost":
            where = "" if self.prevalence is None else f", at prevalence {self.prevalence:g}"
            return (
                f"lowest expected cost, {self.cost_false_negative:g} for a missed tumour and "
                f"{self.cost_false_positive:g} for a false alarm{where}"
            )
        return "highest Youden's J" if self.kind == "youden" else f"fixed at {self.value:g}"

    @property
    def promised(self) -> str | None:
        """The metric of which `at_least` is asked, or None where the rule asks for none."""
        return self.kind if self.kind in ("recall", "specificity") else None


def pick_cuts(rule: ThresholdRule, counts: Counts) -> Ints:
    """Return which cut the rule takes for each row of `counts`, (R,); UNREACHABLE where none does.

    A cut that only adds patches of weight 0 is never taken: a resample knows no such threshold.
    """
    assert rule.kind != "fixed", "a fixed threshold is not picked"
    if rule.kind == "recall":
        enough = counts.tp >= _smallest_count(rule.at_least, counts.positives)
        picked = enough.argmax(axis=1)
    elif rule.kind == "specificity":
        # Of the cuts that keep enough the one that calls most, and the first that calls as many.
        alarms = counts.negatives - _smallest_count(rule.at_least, counts.negatives)
        enough = counts.calls - counts.tp <= alarms
        picked = np.where(enough, counts.calls, 0).argmax(axis=1)
    else:
        goodness = _goodness(rule, counts)
        num_silent = int((counts.calls > 0).argmax(axis=1).max())  # leading cuts that call nothing
        goodness[:, :num_silent][counts.calls[:, :num_silent] == 0] = -np.inf
        picked = goodness.argmax(axis=1)
    one_class = (counts.positives == 0) | (counts.negatives == 0)
    return np.where(one_class[:, 0], UNREACHABLE, picked)


def _goodness(rule: ThresholdRule, counts: Counts) -> Floats:
    """Return what rises with how good a cut is, (R, G + 1).

    Whole numbers, or one quotient of them, wherever the rule allows it: what is equally good is
    then equal to the last bit.
    """
    if rule.kind == "f_beta":
        goodness: Floats = counts.calls + rule.beta**2 * counts.positives
        np.divide(counts.tp, goodness, out=goodness)  # F-beta / (1 + beta^2)
        return goodness
    per_tumour, per_alarm = counts.negatives, counts.positives  # Youden's J, times both
    if rule.kind == "cost":
        per_tumour, per_alarm = _unit_costs(rule, counts)
    # tp * per_tumour - fp * per_alarm, in few passes
    goodness = counts.tp * (per_tumour + per_alarm)
    goodness -= counts.calls * per_alarm
    return goodness


def _unit_costs(rule: ThresholdRule, counts: Counts) -> tuple[Floats, Floats]:
    """Return what a missed tumour and a false alarm cost, (R, 1) each, up to a factor by row.

    At a stated prevalence a row's tumours stand for that share of patches (Elkan, IJCAI 2001).
    """
    missed, alarm = rule.cost_false_negative, rule.cost_false_positive
    if rule.prevalence is None:
        return np.full_like(counts.positives, missed), np.full_like(counts.positives, alarm)
    return (
        missed * rule.prevalence * counts.negatives,
        alarm * (1 - rule.prevalence) * counts.positives,
    )


def _smallest_count(share: float, total: Floats) -> Floats:
    """Return the smallest count whose quotient by `total` is at least `share`, as floats divide.

    0.07 * 100 is above 7, yet 7 / 100 is 0.07.
    """
    count = np.ceil(share * total)
    one_less = np.divide(count - 1, total, out=np.zeros_like(total), where=total > 0)
    smallest: Floats = np.where(one_less >= share, count - 1, count)
    return smallest


def _check(name: str, value: float, allowed: bool, words: str) -> None:
    if not allowed:
        raise ValueError(f"{name} of a threshold rule is {value}; allowed are {words}.")

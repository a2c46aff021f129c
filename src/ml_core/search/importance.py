"""How much each searched parameter mattered for reaching the best values.

By optuna's PED-ANOVA (Watanabe, Bansal and Hutter 2023, arXiv 2304.10255; with conditional
parameters 2026, arXiv 2601.20800): how far the parameters of the best trials are spread otherwise
than those of all. It has no randomness of its own; the intervals are a bootstrap over trials.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ml_core.search.optuna_study import distribution, quiet_optuna, to_category
from ml_core.search.space import Space
from ml_core.search.study_dir import Direction
from ml_core.search.trials import Trial
from ml_core.search.words import number_of

if TYPE_CHECKING:  # takes a second to import
    from optuna.trial import FrozenTrial

MIN_TRIALS = 10
MIN_TRIALS_PER_PARAMETER = 4  # fewer, and the interval of each is nearly 0 to 1
NUM_BEST = 5  # "preferable to include at least 5 trials above target_quantile" (optuna's manual)
SMALLEST_QUANTILE = 0.1
NUM_RESAMPLES, LEVEL = 100, 0.95


@dataclass(frozen=True)
class Importance:
    """The share of one parameter, 0..1, with the interval of a bootstrap over trials."""

    key: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Importances:
    """The largest first; `note` says of what they are, or why there are none."""

    rows: tuple[Importance, ...]
    note: str
    num_trials: int


def compute_importances(
    trials: Sequence[Trial],
    space: Space,
    direction: Direction,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
) -> Importances:
    """Return the share of each parameter of `space`; none, and why, for too few trials.

    Values of unlike epochs are not compared: where trials were pruned, all trials are taken at the
    last epoch that each of them reached.
    """
    values, of_what = comparable_values(trials)
    keys = [key for key in space.parameters if any(key in trial.params for trial, _ in values)]
    needed = max(MIN_TRIALS, MIN_TRIALS_PER_PARAMETER * len(space.parameters))
    if len(values) < needed or not keys:
        note = (
            f"Too few to tell: {number_of(len(values), 'trial')} with values to compare, "
            f"{number_of(len(space.parameters), 'parameter')}; from {needed} trials on it is shown."
        )
        return Importances((), note, len(values))
    if len({value for _, value in values}) == 1:
        return Importances((), "All values are the same: nothing mattered.", len(values))
    frozen = _frozen_trials(values, space, direction)
    shares = _shares(frozen, keys)
    generator = np.random.default_rng(seed)
    resampled = [
        _shares([frozen[i] for i in generator.integers(0, len(frozen), len(frozen))], keys)
        for _ in range(num_resamples)
    ]
    rows = [
        Importance(key, shares[key], *_interval([each[key] for each in resampled])) for key in keys
    ]
    note = (
        f"Of {of_what}, over {len(values)} trials; the lines are {LEVEL:.0%} intervals "
        f"({num_resamples} bootstrap resamples of trials)."
    ).replace("95%", "95 %")
    return Importances(tuple(sorted(rows, key=lambda row: -row.value)), note, len(values))


def comparable_values(trials: Sequence[Trial]) -> tuple[list[tuple[Trial, float]], str]:
    """Return (trial, value) of values that may be compared, and in words what they are.

    Complete trials have their best value. Where some were pruned, the value of every trial after
    the last epoch that all have reached; those that reported nothing finite are left out.
    """
    pruned = [trial for trial in trials if trial.state == "pruned" and _finite(trial)]
    complete = [trial for trial in trials if trial.state == "complete"]
    if not pruned:
        values = [(trial, float(trial.value)) for trial in complete if trial.value is not None]
        finite = [(trial, value) for trial, value in values if math.isfinite(value)]
        return finite, "the best value of each complete trial"
    reached = [(trial, _finite(trial)) for trial in (*pruned, *complete)]
    reached = [(trial, epochs) for trial, epochs in reached if epochs]
    epoch = min(max(epochs) for _, epochs in reached)
    values = [(trial, epochs[epoch]) for trial, epochs in reached if epoch in epochs]
    values.sort(key=lambda each: each[0].number)
    return values, (
        f"the value after epoch {epoch}, which is the last that complete and pruned trials share"
    )


def _finite(trial: Trial) -> dict[int, float]:
    return {epoch: value for epoch, value in trial.reports.items() if math.isfinite(value)}


def _frozen_trials(
    values: Sequence[tuple[Trial, float]], space: Space, direction: Direction
) -> list[FrozenTrial]:
    """Return optuna's trials, whose value is the better the lower it is."""
    from optuna.trial import create_trial

    distributions = {key: distribution(each) for key, each in space.parameters.items()}
    sign = -1.0 if direction == "maximize" else 1.0
    return [
        create_trial(
            params={key: to_category(value) for key, value in trial.params.items()},
            distributions={key: distributions[key] for key in trial.params},
            value=sign * value,
        )
        for trial, value in values
    ]


def _shares(trials: Sequence[FrozenTrial], keys: Sequence[str]) -> dict[str, float]:
    """Return the importance of each of `keys`, summing to 1; NaN where none of them matters."""
    with quiet_optuna() as optuna:
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(
            target_quantile=min(0.5, max(SMALLEST_QUANTILE, NUM_BEST / len(trials))),
            region_quantile=1.0,
            evaluate_on_local=True,
        )
        study = optuna.create_study(direction="minimize")
        study.add_trials(trials)
        tried = [key for key in keys if any(key in trial.params for trial in trials)]
        values = evaluator.evaluate(study, tried)
    total = sum(values.values())
    return {key: values.get(key, 0.0) / total if total > 0 else math.nan for key in keys}


def _interval(values: Sequence[float]) -> tuple[float, float]:
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return math.nan, math.nan
    low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)

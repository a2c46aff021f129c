"""Whether a trial is worth another epoch.

asha: Li et al., A System for Massively Parallel Hyperparameter Tuning, 2020: after min_epochs, and
then after reduction_factor times as many, only one of reduction_factor of those who came that far
goes on. median: Golovin et al., Google Vizier, 2017: the best of a trial so far is below the median
of the trials that ended, at the same epoch. Both are optuna's, on a study rebuilt from the files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from ml_core.errors import ConfigError
from ml_core.search.optuna_study import RUNG, quiet_optuna, rebuild
from ml_core.search.space import Space
from ml_core.search.study_dir import Direction
from ml_core.search.trials import Trial


@dataclass(frozen=True)
class Verdict:
    """What the pruner says after an epoch, and how many rungs the trial has ended by then."""

    stop: bool
    num_rungs: int = 0


def pin_pruner(name: str, **options: int) -> dict[str, Any]:
    """Return the record of a pruner, from which `judge` works: asha, median or none."""
    if name == "none":
        return {"name": name}
    pinned: dict[str, Any] = {"name": name, **options, "optuna": metadata.version("optuna")}
    if name == "asha":
        return {**pinned, "min_early_stopping_rate": 0, "bootstrap_count": 0}
    if name == "median":
        return {**pinned, "interval_epochs": 1, "min_trials": 1}
    raise ConfigError(f"unknown pruner '{name}'; allowed: asha, median, none.")


def judge(
    pruner: Mapping[str, Any],
    trials: Sequence[Trial],
    number: int,
    reports: Mapping[int, float],
    num_rungs: Mapping[int, int],
    direction: Direction,
) -> Verdict:
    """Return the verdict on trial `number` after the last of its `reports`, metric by epoch.

    `trials` are the others as they stand; `num_rungs` is what earlier verdicts said, by epoch. A
    metric that is not a number ends a trial: at its next rung, or by median when it had no other.
    """
    if pruner["name"] == "none":
        return Verdict(False)
    # Pruners look at metrics only; without parameters nothing must fit a space.
    others = [dataclasses.replace(trial, params={}) for trial in trials if trial.number != number]
    own = Trial(number, {}, "running", reports=reports, num_rungs=num_rungs)
    study = rebuild([*others, own], Space({}), direction)
    with quiet_optuna() as optuna:
        stop = _build(optuna, pruner).prune(study, study.trials[-1])
    notes = study.trials[-1].system_attrs
    return Verdict(bool(stop), sum(key.startswith(RUNG.format("")) for key in notes))


def _build(optuna: Any, pruner: Mapping[str, Any]) -> Any:
    if pruner["name"] == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(
            min_resource=pruner["min_epochs"],
            reduction_factor=pruner["reduction_factor"],
            min_early_stopping_rate=pruner["min_early_stopping_rate"],
            bootstrap_count=pruner["bootstrap_count"],
        )
    return optuna.pruners.MedianPruner(
        n_startup_trials=pruner["num_startup_trials"],
        n_warmup_steps=pruner["warmup_epochs"],
        interval_steps=pruner["interval_epochs"],
        n_min_trials=pruner["min_trials"],
    )

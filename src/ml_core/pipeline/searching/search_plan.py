"""What a search is going to try, and that each of it is a valid configuration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ml_core.config import Config, SearchConfig
from ml_core.errors import ConfigError
from ml_core.search.pruner import pin_pruner
from ml_core.search.sampler import num_trials_of, pin_sampler
from ml_core.search.space import Params, Space, overrides
from ml_core.search.study_dir import Direction
from ml_core.search.summary import render_params

DEFAULT_NUM_TRIALS = 20
# Decided once for a study: its trials are compared by one metric on the same patches.
SHARED = (
    "data.audit_dir", "data.data_path", "data.dataset_type", "data.filter_data", "data.ledger_dir",
    "data.local_copy", "data.max_patches", "data.on_findings",
    "evaluation", "experiment_name", "output_dir", "search", "seeds", "selection", "tracking",
    "training.best_metric",
)  # fmt: skip
_MOST_CHECKED = 50  # combinations of values; each value by itself is always checked


@dataclass(frozen=True)
class SearchPlan:
    """The space, and the records of sampler and pruner as study.json keeps them."""

    space: Space
    sampler: dict[str, Any]
    pruner: dict[str, Any]
    num_trials: int
    direction: Direction


def plan_search(config: Config) -> SearchPlan:
    """Return the plan of `config.search`; raises ConfigError naming key, value and why.

    Checked are every choice, both ends of every range, and every trial that is known beforehand.
    """
    search = config.search
    if search is None:
        raise ConfigError(
            "there is no section search; say in it what to try, for example\n"
            "  search:\n    space:\n      optimizer.lr: {low: 1.0e-4, high: 1.0e-2, log: true}"
        )
    if config.seeds is not None:
        raise ConfigError(
            "seeds and search exclude each other: a trial is one run, with the one `seed`. Search "
            "first, then train what was best with several seeds."
        )
    space = _space_of(search)
    _refuse_shared(space)
    sampler = pin_sampler(
        search.sampler,
        space,
        seed=search.seed,
        num_startup_trials=search.num_startup_trials,
        trials=search.trials or (),
    )
    num_trials = num_trials_of(sampler, space) or search.num_trials or DEFAULT_NUM_TRIALS
    plan = SearchPlan(
        space,
        sampler,
        pin_pruner(**search.pruner.model_dump()),
        num_trials,
        "minimize" if config.training.best_metric == "val_loss" else "maximize",
    )
    _check_trials(config, plan)
    return plan


def _space_of(search: SearchConfig) -> Space:
    if search.trials is not None:
        return Space.of_trials(search.trials)
    space = {key: parameter.model_dump() for key, parameter in search.space.items()}
    return Space.from_dict(space)


def _refuse_shared(space: Space) -> None:
    for key in space.parameters:
        for shared in SHARED:
            inside, around = key.startswith(f"{shared}."), shared.startswith(f"{key}.")
            if key == shared or inside or around:
                raise ConfigError(
                    f"search.space.{key}: {shared} is the same for all trials of a study, which "
                    "are compared by one metric on the same patches; it cannot be searched."
                )


def _check_trials(config: Config, plan: SearchPlan) -> None:
    """Raise ConfigError at the first trial that would not be a valid configuration."""
    for what, params in _examples(plan):
        config.with_overrides([*overrides(params), "search=null"], f"search: {what}")


def _examples(plan: SearchPlan) -> Iterator[tuple[str, Params]]:
    """Yield trials to check, each with what to call it."""
    space, sampler = plan.space, plan.sampler
    if sampler["name"] == "list":
        for number, params in enumerate(sampler["trials"]):
            yield f"trials[{number}], {render_params(params)},", params
        return
    for key, value, params in space.ends():
        yield f"{key} = {value} (in a trial with {render_params(params)})", params
    if sampler["name"] == "grid":
        points = space.grid()
    else:  # tpe's own are not known yet
        points = [space.draw(sampler["seed"], number) for number in range(_MOST_CHECKED)]
    for params in points[:: -(-len(points) // _MOST_CHECKED)]:
        yield f"a trial with {render_params(params)}", params

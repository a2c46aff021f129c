"""Which parameters a trial gets: at random, modelled on the trials before it, or from a list.

tpe: Bergstra et al., Algorithms for Hyper-Parameter Optimization, 2011; multivariate after Falkner,
Klein and Hutter, BOHB, 2018, as optuna has it. Every argument that decides is pinned in the study's
record, with optuna's version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

from ml_core.errors import ConfigError
from ml_core.search.optuna_study import quiet_optuna, rebuild, to_category
from ml_core.search.space import Choices, Parameter, Params, Space, random_share, tidy
from ml_core.search.study_dir import Direction
from ml_core.search.trials import Trial

if TYPE_CHECKING:
    import optuna

_NUM_CANDIDATES = 24  # optuna's default: points compared by expected improvement


def pin_sampler(
    name: str,
    space: Space,
    *,
    seed: int = 0,
    num_startup_trials: int = 8,
    trials: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return the record of a sampler, from which `propose` works: tpe, random, grid or list."""
    if name == "grid":
        return {"name": name}
    if name == "list":
        return {"name": name, "trials": [dict(params) for params in trials]}
    if name == "random":
        return {"name": name, "seed": seed}
    if name != "tpe":
        raise ConfigError(f"unknown sampler '{name}'; allowed: tpe, random, grid, list.")
    return {
        "name": name,
        "seed": seed,
        "num_startup_trials": num_startup_trials,
        "num_candidates": _NUM_CANDIDATES,
        "multivariate": True,
        "group": space.is_conditional,  # models the keys that are active together
        "constant_liar": True,  # what runs now counts as bad, so that workers keep apart
        "optuna": metadata.version("optuna"),
    }


def num_trials_of(sampler: Mapping[str, Any], space: Space) -> int | None:
    """Return how many trials a grid or a list has; None for the others."""
    if sampler["name"] == "list":
        return len(sampler["trials"])
    return len(space.grid()) if sampler["name"] == "grid" else None


def propose(
    sampler: Mapping[str, Any],
    space: Space,
    trials: Sequence[Trial],
    number: int,
    direction: Direction,
) -> Params:
    """Return the parameters of trial `number`, given how the others stand.

    Random, grid and list do not look at the others: any number of workers gives the same trials.
    """
    if sampler["name"] == "list":
        return dict(sampler["trials"][number])
    if sampler["name"] == "grid":
        return space.grid()[number]
    num_learned_from = sum(trial.state in ("complete", "pruned") for trial in trials)
    if sampler["name"] == "random" or num_learned_from < sampler["num_startup_trials"]:
        return space.draw(sampler["seed"], number)
    return _model(sampler, space, trials, number, direction)


def _model(
    sampler: Mapping[str, Any],
    space: Space,
    trials: Sequence[Trial],
    number: int,
    direction: Direction,
) -> Params:
    """Ask optuna's TPE; its seed is a function of (seed, number)."""
    study = rebuild(trials, space, direction)
    with quiet_optuna() as optuna:
        study.sampler = optuna.samplers.TPESampler(
            n_startup_trials=sampler["num_startup_trials"],
            n_ei_candidates=sampler["num_candidates"],
            multivariate=sampler["multivariate"],
            group=sampler["group"],
            constant_liar=sampler["constant_liar"],
            seed=int(random_share(sampler["seed"], number, "tpe") * 2**32),
        )
        asked = study.ask()
        params: Params = {}
        for key, parameter in space.parameters.items():
            if space.is_active(key, params):
                params[key] = _suggest(asked, key, parameter)
        return params


def _suggest(asked: optuna.Trial, key: str, parameter: Parameter) -> Any:
    if isinstance(parameter, Choices):
        categories = [to_category(value) for value in parameter.values]
        return parameter.values[categories.index(asked.suggest_categorical(key, categories))]
    low, high = parameter.ends()
    if parameter.is_whole:
        step = int(parameter.step or 1)
        return asked.suggest_int(key, int(low), int(high), step=step, log=parameter.log)
    value = asked.suggest_float(key, low, high, step=parameter.step, log=parameter.log)
    return value if parameter.step is None else tidy(value)

import logging
import logging.handlers
import math
import warnings

import optuna
import pytest
from search_steps import end, make_study, take

from ml_core.errors import ConfigError
from ml_core.search.optuna_study import export
from ml_core.search.sampler import num_trials_of, pin_sampler, propose
from ml_core.search.space import Choices, Space, random_share, tidy
from ml_core.search.study_dir import StudyRecord
from ml_core.search.trials import load_trials

SPACE = Space.from_dict(
    {
        "optimizer.lr": {"low": 1e-4, "high": 1e-1, "log": True},
        "model.hidden_units": {"choices": [[64], [128, 64]]},
        "data.batch_size": {"low": 16, "high": 64, "step": 16},
        "optimizer.name": {"choices": ["adamw", "sgd"]},
        "optimizer.momentum": {
            "low": 0.0, "high": 0.9, "step": 0.3, "when": {"optimizer.name": ["sgd"]},
        },
    }
)  # fmt: skip
PLAIN = Space({key: each for key, each in SPACE.parameters.items() if not each.when})
LR = Space.from_dict({"optimizer.lr": {"low": 1e-4, "high": 1e-1, "log": True}})


def score(params):
    """A metric that is best, 1, at lr 0.01."""
    return 1 - abs(math.log10(params["optimizer.lr"]) + 2) / 3


def searched(folder, space, sampler, num_trials, direction="maximize"):
    """Return the trials of a study, one after the other; every fifth is pruned."""
    sign = 1 if direction == "maximize" else -1
    study = make_study(folder, num_trials=num_trials, space=space.to_dict(), direction=direction)
    for number in range(num_trials):
        params = propose(sampler, space, load_trials(study), number, direction)
        value = sign * score(params)
        is_pruned = number % 5 == 4
        reports = [value] if is_pruned else [value / 2, value]
        state = "pruned" if is_pruned else "complete"
        end(take(study, number, params=params), state, reports, value=value)
    return study


def test_random_grid_and_list_do_not_look_at_other_trials(tmp_path):
    some = load_trials(searched(tmp_path, LR, pin_sampler("random", LR), 6))
    steps = Space.from_dict({"optimizer.lr": {"low": 0.1, "high": 0.3, "step": 0.1}})
    given = [{"optimizer.lr": 0.5}, {"optimizer.lr": 0.25}]
    for space, sampler in (
        (LR, pin_sampler("random", LR, seed=5)),
        (steps, pin_sampler("grid", steps)),
        (LR, pin_sampler("list", LR, trials=given)),
    ):
        for number in range(2):
            alone = propose(sampler, space, [], number, "maximize")
            assert propose(sampler, space, some, number, "maximize") == alone
    assert num_trials_of(pin_sampler("grid", steps), steps) == 3
    assert num_trials_of(pin_sampler("list", LR, trials=given), LR) == 2
    assert propose(pin_sampler("grid", steps), steps, [], 1, "maximize") == {"optimizer.lr": 0.2}
    with pytest.raises(ConfigError, match="unknown sampler 'cmaes'; allowed: tpe, random"):
        pin_sampler("cmaes", LR)


def test_tpe_begins_at_random_and_then_goes_where_it_was_good(tmp_path):
    tpe, random = pin_sampler("tpe", LR, num_startup_trials=8), pin_sampler("random", LR)
    modelled = load_trials(searched(tmp_path / "tpe", LR, tpe, 30))
    drawn = load_trials(searched(tmp_path / "random", LR, random, 30))
    assert [trial.params for trial in modelled[:8]] == [trial.params for trial in drawn[:8]]

    def mean_of_rest(trials):
        return sum(score(trial.params) for trial in trials[10:]) / len(trials[10:])

    assert mean_of_rest(modelled) > mean_of_rest(drawn) + 0.15


def test_tpe_of_a_loss_goes_down(tmp_path):
    tpe = pin_sampler("tpe", LR, num_startup_trials=8)
    trials = load_trials(searched(tmp_path, LR, tpe, 25, "minimize"))
    assert sum(trial.value < -0.8 for trial in trials[10:]) > 8


def suggest(asked, space):
    """Ask optuna for a point of `space` by its public means."""
    params = {}
    for key, parameter in space.parameters.items():
        if not space.is_active(key, params):
            continue
        if isinstance(parameter, Choices):
            names = [str(value) for value in parameter.values]
            params[key] = parameter.values[names.index(asked.suggest_categorical(key, names))]
        elif parameter.is_whole:
            low, high, step = parameter.low, parameter.high, parameter.step
            params[key] = asked.suggest_int(key, low, high, step=step)
        else:
            low, high, step = parameter.low, parameter.high, parameter.step
            value = asked.suggest_float(key, low, high, step=step, log=parameter.log)
            params[key] = value if step is None else tidy(value)
    return params


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize(("space", "num_running"), [(SPACE, 0), (PLAIN, 2)])
def test_tpe_on_the_files_proposes_what_optuna_proposes_in_its_own_study(
    tmp_path, space, num_running
):
    # Not a conditional space with running trials: optuna then counts as tried the value that it
    # had in store for a parameter which is not active there.
    pinned = pin_sampler("tpe", space, num_startup_trials=4)
    study = make_study(tmp_path, num_trials=16, space=space.to_dict())
    live = optuna.create_study(direction="maximize")
    asked = {}
    for number in range(16):
        ours = propose(pinned, space, load_trials(study), number, "maximize")
        if number < 4 + num_running:  # random ones: optuna is given ours
            given = {key: str(v) if isinstance(v, list) else v for key, v in ours.items()}
            live.enqueue_trial(given)
        live.sampler = optuna.samplers.TPESampler(
            n_startup_trials=4, multivariate=True, group=space.is_conditional, constant_liar=True,
            seed=int(random_share(0, number, "tpe") * 2**32),
        )  # fmt: skip
        asked[number] = live.ask()
        assert suggest(asked[number], space) == ours
        take(study, number, params=ours)
        if number >= num_running:
            finish(study, live, asked, number - num_running)


def finish(study, live, asked, number):
    """End a trial in both studies: one of five pruned, one failed, the others complete."""
    folder = study.attempt(number)
    value = score(asked[number].params)
    asked[number].report(value, 1)
    if number % 5 == 3:
        end(folder, "pruned", [value], value=value)
        live.tell(asked[number], state=optuna.trial.TrialState.PRUNED)
    elif number == 7:
        end(folder, "failed", [value], cause="error")
        live.tell(asked[number], state=optuna.trial.TrialState.FAIL)
    else:
        end(folder, "complete", [value], value=value)
        live.tell(asked[number], value)


def test_a_proposal_is_a_function_of_the_trials_and_its_number(tmp_path):
    sampler = pin_sampler("tpe", LR, num_startup_trials=4)
    trials = load_trials(searched(tmp_path, LR, sampler, 8))
    first = propose(sampler, LR, trials, 8, "maximize")
    assert first == propose(sampler, LR, trials, 8, "maximize")
    assert first != propose(sampler, LR, trials, 9, "maximize")
    assert first != propose(sampler, LR, trials[:5], 8, "maximize")
    other = pin_sampler("tpe", LR, num_startup_trials=4, seed=1)
    assert first != propose(other, LR, trials, 8, "maximize")


def test_every_proposal_of_tpe_is_a_point_of_the_space(tmp_path):
    sampler = pin_sampler("tpe", SPACE, num_startup_trials=4)
    trials = load_trials(searched(tmp_path, SPACE, sampler, 16))
    for params in (trial.params for trial in trials):
        assert params["model.hidden_units"] in ([64], [128, 64])
        assert params["data.batch_size"] in (16, 32, 48, 64)
        assert ("optimizer.momentum" in params) == (params["optimizer.name"] == "sgd")
        assert params.get("optimizer.momentum", 0.3) in (0.0, 0.3, 0.6, 0.9)
        assert 1e-4 <= params["optimizer.lr"] <= 1e-1


def test_a_trial_that_failed_teaches_tpe_nothing(tmp_path):
    sampler = pin_sampler("tpe", LR, num_startup_trials=4)
    study = make_study(tmp_path, num_trials=9, space=LR.to_dict())
    for number in range(8):
        folder = take(study, number, params=LR.draw(0, number))
        how = {"cause": "error"} if number < 5 else {"value": 0.5}
        end(folder, "failed" if number < 5 else "complete", [0.5], **how)
    assert propose(sampler, LR, load_trials(study), 8, "maximize") == LR.draw(0, 8)


def test_optuna_says_nothing(tmp_path):
    said = logging.handlers.BufferingHandler(1000)
    logging.getLogger("optuna").addHandler(said)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        searched(tmp_path, SPACE, pin_sampler("tpe", SPACE, num_startup_trials=2), 4)
    logging.getLogger("optuna").removeHandler(said)
    assert said.buffer == []


def test_the_exported_journal_opens_in_optuna_with_every_trial(tmp_path):
    study = searched(tmp_path, SPACE, pin_sampler("random", SPACE), 6)
    end(take(study, 6, params=SPACE.draw(0, 6)), "failed", cause="error", error="E: no")
    trials, record = load_trials(study), StudyRecord.load(study)
    export(trials, SPACE, record.direction, "tiny/study", study.optuna_path)
    export(trials, SPACE, record.direction, "tiny/study", study.optuna_path)  # again: not twice
    assert not list(study.path.glob(".optuna*"))
    backend = optuna.storages.journal.JournalFileBackend(str(study.optuna_path))
    loaded = optuna.load_study(
        study_name="tiny/study", storage=optuna.storages.JournalStorage(backend)
    )
    assert loaded.direction.name == "MAXIMIZE"
    assert [trial.state.name for trial in loaded.trials] == (
        ["COMPLETE"] * 4 + ["PRUNED", "COMPLETE", "FAIL"]
    )
    assert [trial.value for trial in loaded.trials] == [trial.value for trial in trials]
    assert [trial.intermediate_values for trial in loaded.trials] == [
        trial.reports for trial in trials
    ]
    assert loaded.trials[0].params["optimizer.lr"] == trials[0].params["optimizer.lr"]
    assert loaded.trials[6].user_attrs["error"] == "E: no"

import itertools

import pytest
from tiny_pcam import write_config

from ml_core.config import Config
from ml_core.errors import ConfigError
from ml_core.pipeline.searching.search_plan import plan_search
from ml_core.search.optuna_study import distribution
from ml_core.search.space import Choices, Range, Space, overrides

SPACE = {
    "optimizer.momentum": {
        "low": 0.0, "high": 0.9, "step": 0.3, "when": {"optimizer.name": ["sgd"]},
    },
    "optimizer.name": {"choices": ["adamw", "sgd"]},
    "model.hidden_units": {"choices": [[64], [128, 64]]},
}  # fmt: skip


def plan_of(tmp_path, search, **sections):
    path = write_config(tmp_path / "config.yaml", tmp_path / "data", search=search, **sections)
    return plan_search(Config.load(path))


def test_a_space_says_what_it_was_made_of():
    space = Space.from_dict(SPACE)
    assert Space.from_dict(space.to_dict()) == space
    assert list(space.parameters) == ["optimizer.name", "model.hidden_units", "optimizer.momentum"]


def test_every_value_of_a_range_with_steps_and_of_choices_is_drawn():
    steps = Range(0.0, 0.5, step=0.1)
    shares = [(position + 0.5) / 1000 for position in range(1000)]
    assert {steps.at(share) for share in shares} == {0.0, 0.1, 0.2, 0.3, 0.4, 0.5}
    whole = Range(1, 4)
    drawn = [whole.at(share) for share in shares]
    assert {number: drawn.count(number) for number in drawn} == {1: 250, 2: 250, 3: 250, 4: 250}
    choices = Choices(([64], [128, 64]))
    assert [choices.at(0.0), choices.at(0.49), choices.at(0.5), choices.at(0.999)] == [
        [64], [64], [128, 64], [128, 64],
    ]  # fmt: skip


def test_a_logarithmic_range_gives_each_decade_its_share():
    values = [Range(1e-4, 1e-1, log=True).at(share / 999.001) for share in range(1000)]
    assert sum(value < 1e-3 for value in values) == pytest.approx(333, abs=2)
    assert min(values) >= 1e-4
    assert max(values) <= 1e-1
    whole = {Range(1, 100, log=True).at(share / 1000) for share in range(1000)}
    assert {1, 2, 3, 100} <= whole
    assert all(isinstance(number, int) for number in whole)


def test_a_step_that_does_not_reach_the_end_stops_before_it():
    assert Range(0.0, 0.5, step=0.2).ends() == (0.0, 0.4)
    assert Range(8, 30, step=8).grid() == (8, 16, 24)


def test_a_draw_is_a_function_of_seed_and_number_and_of_the_keys_own_name():
    space = Space.from_dict(SPACE)
    more = Space.from_dict({"data.batch_size": {"choices": [32, 64]}, **SPACE})
    for number in range(20):
        drawn = space.draw(7, number)
        assert drawn == space.draw(7, number)
        wider = more.draw(7, number)
        assert {key: wider[key] for key in drawn} == drawn
    assert space.draw(7, 0) != space.draw(8, 0)
    assert len({str(space.draw(7, number)) for number in range(20)}) > 5


def test_a_conditional_parameter_is_there_only_where_it_is_searched():
    space = Space.from_dict(SPACE)
    drawn = [space.draw(0, number) for number in range(50)]
    for params in drawn:
        assert ("optimizer.momentum" in params) == (params["optimizer.name"] == "sgd")
    assert {params["optimizer.name"] for params in drawn} == {"adamw", "sgd"}


def test_a_grid_is_every_combination_once_without_what_is_not_searched():
    points = Space.from_dict(SPACE).grid()
    assert len(points) == 2 * (1 + 4)  # hidden units x (adamw, or sgd with four momenta)
    assert all(one != other for one, other in itertools.combinations(points, 2))
    with pytest.raises(ConfigError, match="a range in a grid needs a step"):
        Space({"optimizer.lr": Range(0.1, 0.2)}).grid()


def test_overrides_set_names_first_and_survive_yaml(tmp_path):
    params = {
        "optimizer.momentum": 0.9, "optimizer.lr": 1e-05, "model.hidden_units": [128, 64],
        "training.clip_grad_norm": None, "data.balanced": False, "optimizer.name": "sgd",
    }  # fmt: skip
    written = overrides(params)
    assert written[0] == "optimizer.name=sgd"
    config = Config.load(write_config(tmp_path / "config.yaml", tmp_path / "data"), written)
    assert (config.optimizer.lr, config.optimizer.momentum) == (1e-05, 0.9)
    assert config.model.hidden_units == (128, 64)
    assert config.training.clip_grad_norm is None
    assert config.data.balanced is False


def test_given_trials_make_the_smallest_space_that_holds_them():
    trials = [{"optimizer.lr": 0.1, "model.hidden_units": [8]}, {"optimizer.lr": 0.01}]
    space = Space.of_trials(trials)
    assert space.parameters == {
        "optimizer.lr": Range(0.01, 0.1),
        "model.hidden_units": Choices(([8],)),
    }


def test_optuna_gets_the_same_values():
    choices = distribution(Choices(([64], [128, 64], None, 3)))
    assert choices.choices == ("[64]", "[128, 64]", None, 3)
    whole = distribution(Range(1, 9, step=4))
    assert (whole.low, whole.high, whole.step) == (1, 9, 4)
    real = distribution(Range(1e-4, 1e-2, log=True))
    assert (real.low, real.high, real.log) == (1e-4, 1e-2, True)


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({"a.b": {"choices": [1, 2, 1]}}, "a.b: choices .* repeat"),
        ({"a.b": {"choices": [1], "when": {"a.c": [1]}}}, "a.c is not searched"),
        (
            {"a.b": {"choices": [1], "when": {"a.c": [1]}}, "a.c": {"low": 0, "high": 1}},
            "a.c is a range; only a key with choices can decide",
        ),
        (
            {"a.b": {"choices": [1], "when": {"a.c": [9]}}, "a.c": {"choices": [1, 2]}},
            r"a.c never has \[9\]; its choices are \[1, 2\]",
        ),
        (
            {
                "a.b": {"choices": [1], "when": {"a.c": [1]}},
                "a.c": {"choices": [1], "when": {"a.b": [1]}},
            },
            "conditions of a.b, a.c wait for one another",
        ),
    ],
)
def test_a_space_that_contradicts_itself_is_refused(space, words):
    with pytest.raises(ConfigError, match=words):
        Space.from_dict(space)


# ---- what a search is going to try ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("search", "words"),
    [
        (
            {"space": {"optimizer.lr": {"low": -0.1, "high": 0.1}}},
            r"optimizer.lr = -0.1 .* optimizer.lr: .*greater than 0",
        ),
        (
            {"space": {"data.batch_size": {"choices": [32, "many"]}}},
            r"data.batch_size = many .* data.batch_size: ",
        ),
        (
            {"space": {"optimizer.learning_rat": {"choices": [0.1]}}},
            r"optimizer.learning_rat: unknown key.*",
        ),
        (  # each alone is valid, the two together are not
            {"space": {"optimizer.momentum": {"choices": [0.5]},
                       "optimizer.name": {"choices": ["sgd", "adamw"]}}},
            r"optimizer.name = adamw .* optimizer.momentum: unknown key",
        ),
        (  # nor are two others, each of which is valid beside the first of the other
            {"space": {"scheduler.warmup_epochs": {"choices": [0, 4]},
                       "training.epochs": {"choices": [8, 3]}}},
            "warmup_epochs 4, training.epochs 3 is not a valid configuration",
        ),
        (
            {"sampler": "list", "trials": [{"optimizer.lr": 0.1}, {"optimizer.lr": 0}]},
            r"trials\[1\], optimizer.lr 0, is not a valid configuration:\n  optimizer.lr: ",
        ),
        (
            {"space": {"data.data_path": {"choices": ["/a", "/b"]}}},
            "data.data_path is the same for all trials",
        ),
        ({"space": {"training.best_metric": {"choices": ["val_f1"]}}}, "cannot be searched"),
        ({"space": {"data.max_patches": {"choices": [40, 80]}}}, "cannot be searched"),
        (  # nor around a key that is shared
            {"space": {"training": {"choices": [{"best_metric": "val_f1"}]}}},
            "training.best_metric is the same for all trials",
        ),
        (
            {"sampler": "grid",
             "space": {"model.dropout_rate": {"low": 0.0, "high": 0.9, "step": 0.0001},
                       "optimizer.lr": {"choices": [0.1, 0.2]}}},
            "more than 10,000 combinations",
        ),
    ],
)  # fmt: skip
def test_a_value_that_makes_no_config_is_refused_by_key_value_and_reason(tmp_path, search, words):
    with pytest.raises(ConfigError, match=f"(?s){words}") as refused:
        plan_of(tmp_path, search)
    assert "config.yaml" not in str(refused.value)  # of the file it was tried in
    assert not (tmp_path / "runs").exists()


def test_seeds_beside_a_search_are_refused_and_so_is_a_config_without_one(tmp_path):
    space = {"optimizer.lr": {"choices": [0.1]}}
    with pytest.raises(ConfigError, match="seeds and search exclude each other"):
        plan_of(tmp_path, {"space": space}, seeds=[1, 2])
    with pytest.raises(ConfigError, match="there is no section search"):
        plan_of(tmp_path, None)


def test_a_plan_counts_its_trials_and_knows_which_way_is_better(tmp_path):
    space = {"optimizer.lr": {"choices": [0.1, 0.2]}, "training.epochs": {"choices": [1, 2, 3]}}
    assert plan_of(tmp_path, {"space": space}).num_trials == 20
    assert plan_of(tmp_path, {"space": space, "sampler": "grid"}).num_trials == 6
    given = {"sampler": "list", "trials": [{"optimizer.lr": 0.1}] * 3}
    assert plan_of(tmp_path, given).num_trials == 3
    down = plan_of(tmp_path, {"space": space}, training={"best_metric": "val_loss"})
    assert (down.direction, plan_of(tmp_path, given).direction) == ("minimize", "maximize")


def test_the_sampler_and_the_pruner_are_pinned_with_every_argument(tmp_path):
    plan = plan_of(tmp_path, {"space": SPACE, "seed": 3})
    assert plan.sampler == {
        "name": "tpe", "seed": 3, "num_startup_trials": 8, "num_candidates": 24,
        "multivariate": True, "group": True, "constant_liar": True,
        "optuna": plan.sampler["optuna"],
    }  # fmt: skip
    assert plan.pruner == {
        "name": "asha", "min_epochs": 1, "reduction_factor": 3, "min_early_stopping_rate": 0,
        "bootstrap_count": 0, "optuna": plan.sampler["optuna"],
    }  # fmt: skip

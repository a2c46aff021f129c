import itertools
import json
import math
from dataclasses import replace

import pytest

from ml_core.runs import RunDir, RunRecord
from ml_core.search.axis import Axis, axes_of, axes_of_list
from ml_core.search.deed import Deed
from ml_core.search.deed_of_run import deed_of_run
from ml_core.search.effects import check_effects, comparable
from ml_core.search.probe_points import conditions, probe_points
from ml_core.search.space import Space

DEED = Deed(
    batch_shape=(32, 3, 96, 96),
    num_patches=96,
    patches_per_step=32.0,
    steps_per_epoch=3,
    num_epochs=2,
    num_parameters=4_194,
    weight_shapes="abc",
    losses=(0.7, 0.6, 0.5),
    grad_norm=1.5,
    weight_sum=100.0,
    learning_rates="def",
    val_loss=0.65,
    plan={"early_stopping_patience": None},
)
FREE = {"lr": (), "batch": ()}
SPACE = Space.from_dict(
    {
        "optimizer.momentum": {"low": 0.0, "high": 0.8, "when": {"optimizer.name": ["sgd"]}},
        "optimizer.name": {"choices": ["adamw", "sgd"]},
        "optimizer.lr": {"low": 1e-4, "high": 1e-2, "log": True},
        "model.dropout_rate": {"low": 0.0, "high": 0.5, "step": 0.2},
    }
)


def ids(findings):
    return {
        (finding.id, finding.facts.get("parameter") or tuple(finding.facts.get("parameters", ())))
        for finding in findings
    }


def other(**changes):
    return replace(DEED, **changes)


# ---- what is concluded from deeds ------------------------------------------------------------


def test_a_parameter_whose_values_all_did_the_same_had_no_effect():
    deeds = [
        ({"lr": 0.1, "batch": 16}, DEED),
        ({"lr": 0.1, "batch": 64}, DEED),
        ({"lr": 0.2, "batch": 16}, other(losses=(0.7, 0.6, 0.4))),
    ]
    (finding,) = check_effects(FREE, deeds)
    assert (finding.id, finding.severity) == ("no-effect", "error")
    assert finding.facts["parameter"] == "batch" and finding.facts["values"] == [16, 64]
    for said in ("searching batch had no effect", "16 and 64", "32 x 3 x 96 x 96", "0.700000"):
        assert said in finding.message
    json.dumps(finding.facts)


@pytest.mark.parametrize(
    "change",
    [
        {"batch_shape": (16, 3, 96, 96)},
        {"num_patches": 95},
        {"patches_per_step": 64.0},
        {"steps_per_epoch": 6},
        {"num_epochs": 3},
        {"num_parameters": 4_195},
        {"weight_shapes": "abd"},
        {"losses": (0.7, 0.6, 0.5000001)},
        {"grad_norm": 1.50001},
        {"weight_sum": 100.0001},
        {"learning_rates": "deg"},
        {"val_loss": 0.650001},
        {"plan": {"early_stopping_patience": 3}},
        {"history": "x"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_difference_in_any_one_fact_is_an_effect(change):
    deeds = [({"lr": 0.1}, DEED), ({"lr": 0.2}, other(**change))]
    assert check_effects({"lr": ()}, deeds) == []


def test_some_values_that_did_the_same_are_a_warning():
    deeds = [
        ({"batch": 16}, DEED),
        ({"batch": 32}, other(losses=(0.1,))),
        ({"batch": 64}, other(losses=(0.1,))),
        ({"batch": 128}, other(losses=(0.1,))),
    ]
    (finding,) = check_effects({"batch": ()}, deeds)
    assert (finding.id, finding.severity) == ("values-alike", "warning")
    assert finding.message == "the values 32, 64 and 128 of batch did the same."


def test_values_that_differed_once_are_not_alike():
    """Dropout of a frozen layer: without effect at one learning rate, with one at another."""
    deeds = [
        ({"lr": 1, "batch": 16}, DEED),
        ({"lr": 1, "batch": 32}, DEED),
        ({"lr": 2, "batch": 32}, other(losses=(0.2,))),
        ({"lr": 2, "batch": 16}, other(losses=(0.3,))),
    ]
    assert check_effects(FREE, deeds) == []


def test_trials_that_differ_in_two_parameters_say_nothing_about_either():
    deeds = [({"lr": 0.1, "batch": 16}, DEED), ({"lr": 0.2, "batch": 32}, DEED)]
    (finding,) = check_effects(FREE, deeds)
    assert (finding.id, finding.severity) == ("effect-not-tested", "info")
    assert finding.facts["parameters"] == ["lr", "batch"]


def test_a_trial_cut_short_that_agreed_so_far_proves_nothing():
    pruned = other(is_whole=False)
    same = [({"lr": 0.1}, DEED), ({"lr": 0.2}, pruned)]
    assert ids(check_effects({"lr": ()}, same)) == {("effect-not-tested", ("lr",))}
    differs = [({"lr": 0.1}, DEED), ({"lr": 0.2}, replace(pruned, losses=(0.1,)))]
    assert check_effects({"lr": ()}, differs) == []


def test_what_a_decision_brings_with_it_does_not_hide_its_effect():
    """adamw and sgd differ in the optimizer alone, although only sgd has a momentum."""
    parameters = {"name": (), "momentum": ("name",), "nesterov": ("momentum",)}
    deeds = [
        ({"name": "adamw"}, DEED),
        ({"name": "sgd", "momentum": 0.9, "nesterov": True}, DEED),
        ({"name": "sgd", "momentum": 0.5, "nesterov": True}, other(val_loss=0.1)),
    ]
    assert ids(check_effects(parameters, deeds)) == {("effect-not-tested", ("nesterov",))}
    assert ids(check_effects(parameters, deeds[:2])) == {
        ("no-effect", "name"), ("effect-not-tested", ("momentum", "nesterov")),
    }  # fmt: skip


def test_a_key_that_only_one_trial_of_a_list_has_is_a_difference():
    deeds = [({"lr": 0.1}, DEED), ({"lr": 0.2, "batch": 16}, DEED)]
    assert ids(check_effects(FREE, deeds)) == {("effect-not-tested", ("lr", "batch"))}


def test_what_two_equal_trials_differ_by_is_noise():
    """A GPU that adds in any order must not make a dead parameter look alive."""
    again = other(losses=(0.7, 0.6, 0.5 + 1e-7))
    dead = [
        ({"lr": 1}, DEED),
        ({"lr": 1}, again),
        ({"lr": 2}, other(losses=(0.7, 0.6, 0.5 + 3e-7))),
    ]
    assert ids(check_effects({"lr": ()}, dead)) == {("no-effect", "lr")}
    alive = [*dead[:2], ({"lr": 2}, other(losses=(0.7, 0.6, 0.5 + 1e-5)))]
    assert check_effects({"lr": ()}, alive) == []
    exact = [dead[0], dead[2]]
    assert check_effects({"lr": ()}, exact) == [], "without noise the last bit counts"


def test_a_point_that_could_not_be_run_is_said_and_compared_with_nothing():
    deeds = [({"lr": 1}, DEED), ({"lr": 9}, Deed(error="TrainingError: loss is inf."))]
    failed, untested = check_effects({"lr": ()}, deeds)
    assert (failed.id, failed.severity) == ("did-not-run", "warning")
    assert "with lr 9 the first steps could not be taken: TrainingError: loss is inf." in (
        failed.message
    )
    assert untested.id == "effect-not-tested"


def test_values_that_are_lists_or_null_can_be_said():
    deeds = [({"batch": [64]}, DEED), ({"batch": None}, DEED), ({"batch": [64, 32]}, DEED)]
    (finding,) = check_effects({"batch": ()}, deeds)
    assert "[64], None and [64, 32]" in finding.message


def test_only_trials_with_a_neighbour_are_worth_reading():
    params = [{"lr": 1, "batch": 1}, {"lr": 2, "batch": 2}, {"lr": 2, "batch": 3}]
    assert comparable(FREE, params) == {1, 2}


def test_a_deed_survives_json():
    undefined = Deed(error="x")
    for deed in (DEED, undefined):
        text = json.dumps(deed.to_dict()).replace("NaN", "null")
        back = Deed.from_dict(json.loads(text))
        assert back == deed or all(
            a == b or (math.isnan(a) and math.isnan(b))
            for a, b in zip(vars(back).values(), vars(deed).values(), strict=True)
        )


# ---- at which points it is looked ------------------------------------------------------------


def test_points_differ_from_the_base_in_one_parameter_and_what_it_brings():
    points = probe_points(SPACE)
    assert points[0] == points[-1], "the base once more, to know the noise"
    assert points[0]["optimizer.lr"] == pytest.approx(1e-3), "the middle of a logarithmic range"
    tried = {key: {point[key] for point in points if key in point} for key in SPACE.parameters}
    assert tried["optimizer.lr"] == {1e-4, points[0]["optimizer.lr"], 1e-2}
    assert tried["model.dropout_rate"] == {0.0, 0.2, 0.4}, "the highest that is ever drawn"
    assert tried["optimizer.momentum"] == {0.0, 0.4, 0.8}
    assert all(("optimizer.momentum" in p) == (p["optimizer.name"] == "sgd") for p in points)
    silent = check_effects(conditions(SPACE), [(point, DEED) for point in points])
    assert ids(silent) == {("no-effect", key) for key in SPACE.parameters}, "every one is tested"


def test_a_condition_upon_a_condition_is_met():
    space = Space.from_dict(
        {
            "a": {"choices": [1, 2]},
            "b": {"choices": ["x", "y"], "when": {"a": [1]}},  # not where the base is
            "c": {"low": 0, "high": 9, "when": {"b": ["y"]}},
        }
    )
    points = probe_points(space)
    assert {point["c"] for point in points if "c" in point} == {0, 9, space.parameters["c"].at(0.5)}
    silent = check_effects(conditions(space), [(point, DEED) for point in points])
    assert ids(silent) == {("no-effect", key) for key in "abc"}


# ---- what the files of a run say it did ------------------------------------------------------


def write_run(path, *, losses=(0.7, 0.6, 0.5, 0.4), seconds=1.0, status="completed"):
    run = RunDir(path)
    path.mkdir()
    RunRecord(
        experiment_name="tiny",
        seed=1,
        command="",
        status=status,
        data={"train": {"num_patches": 96}},
        model={"num_parameters": 10},
        first_batch={"shape": [32, 3, 96, 96]},
    ).save(run)
    steps = [
        {"step": i, "epoch": 1 + i // 3, "time": seconds, "loss": loss, "learning_rate": 0.1,
         "grad_norm": 1.0, "patches_per_s": seconds}
        for i, loss in enumerate(losses, start=1)
    ]  # fmt: skip
    epochs = [{"epoch": 1, "val_loss": None, "seconds": seconds}, {"epoch": 2, "val_loss": 0.3}]
    for log, records in ((run.steps_log_path, steps), (run.metrics_log_path, epochs)):
        log.write_text("".join(json.dumps(record) + "\n" for record in records))
    return run


def test_the_deed_of_a_run_is_what_its_logs_say(tmp_path):
    deed = deed_of_run(write_run(tmp_path / "run"))
    assert deed.batch_shape == (32, 3, 96, 96) and deed.num_parameters == 10
    assert deed.losses == (0.7, 0.6, 0.5) and deed.steps_per_epoch == 2 and deed.num_epochs == 2
    assert math.isnan(deed.val_loss) and deed.is_whole


def test_runs_that_computed_the_same_at_another_speed_did_the_same(tmp_path):
    runs = [
        write_run(tmp_path / "a"),
        write_run(tmp_path / "b", seconds=2.0),
        write_run(tmp_path / "late", losses=(0.7, 0.6, 0.5, 0.4001)),
        write_run(tmp_path / "pruned", status="pruned"),
    ]
    same, slow, late, pruned = map(deed_of_run, runs)
    assert ids(check_effects({"k": ()}, [({"k": 1}, same), ({"k": 2}, slow)])) == {
        ("no-effect", "k")
    }
    assert check_effects({"k": ()}, [({"k": 1}, same), ({"k": 2}, late)]) == []
    assert not pruned.is_whole


# ---- a parameter as an axis ------------------------------------------------------------------


def test_a_value_lies_on_its_axis_where_the_scale_says():
    log = Axis("lr", (), 1e-4, 1e-2, log=True)
    assert [log.place(value) for value in (1e-4, 1e-3, 1e-2)] == pytest.approx([0, 0.5, 1])
    linear = Axis("p", (), 0.0, 0.5)
    assert linear.place(0.125) == 0.25
    choices = Axis("units", ([64], [128, 64]))
    assert [choices.place(value) for value in ([64], [128, 64])] == [0.25, 0.75]
    assert math.isnan(choices.place([1])) and math.isnan(linear.place("relu"))


def test_ticks_have_both_ends_and_do_not_touch():
    for axis in (
        Axis("lr", (), 1.5e-5, 0.1, log=True),
        Axis("p", (), 0.0, 0.95),
        Axis("n", (), 1, 9),
    ):
        places = [tick.place for tick in axis.ticks()]
        assert places[0] == 0 and places[-1] == 1 and len(places) > 2
        assert all(b - a > 0.15 for a, b in itertools.pairwise(places))


def test_a_list_of_many_numbers_over_decades_is_a_logarithmic_axis():
    few, many = (
        axes_of_list([{"lr": 10.0**-power, "name": "sgd"} for power in range(1, num + 1)])
        for num in (3, 7)
    )
    assert few[0].choices == (1e-3, 1e-2, 1e-1)
    assert many[0].log and (many[0].low, many[0].high) == (1e-7, 1e-1)
    assert many[1].choices == ("sgd",)
    assert [axis.key for axis in axes_of(SPACE)] == list(SPACE.parameters)

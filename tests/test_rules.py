"""Who wins by which rule, worked by hand; and that nothing but the runs decides."""

import itertools
from pathlib import Path

import pytest

from ml_core.errors import RunError
from ml_core.findings import Finding
from ml_core.runs import RunDir, RunRecord
from ml_core.selection.groups import Group
from ml_core.selection.rules import (
    Scored,
    Standing,
    best_mean,
    choose,
    constraint,
    one_standard_error,
)
from ml_core.selection.runs import Candidate

STUCK = Finding("not-learning", "error", "the loss is ln 2")


def standing(name, *values, parameters=1000, flops=10, stuck=(), **others) -> Standing:
    """A group whose seeds 1, 2, ... have these ROC-AUCs; `others` are metrics, one per seed."""
    runs = []
    for seed, value in enumerate(values, start=1):
        record = RunRecord(
            experiment_name="by_hand",
            seed=seed,
            command="ml-core train",
            run_id=f"{name}{seed}",
            status="completed",
            model={"num_parameters": parameters, "flops_per_patch": flops},
            findings=[STUCK] if seed in stuck else [],
        )
        metrics = {"roc_auc": value, **{key: column[seed - 1] for key, column in others.items()}}
        run = Candidate(RunDir(Path(f"runs/{name}{seed}")), record, {}, None, "ab", True)
        runs.append(Scored(run, metrics))
    return Standing(Group(tuple(run.candidate for run in runs)), tuple(runs))


def no_error(candidate, metric):
    raise AssertionError("two seeds have a standard error of their own")


def test_the_best_mean_wins_and_not_the_luckiest_run():
    lucky, steady = standing("lucky", 0.80, 0.96), standing("steady", 0.90, 0.92)
    choice = best_mean([lucky, steady], "roc_auc")
    assert choice.ranked == (steady, lucky)
    assert choice.champion.candidate.name == "steady2"  # its best run, 0.92
    assert choice.runner_up.candidate.name == "lucky2"
    assert choice.why == "the best mean roc_auc, 0.9100 over 2 seeds"


def test_of_a_metric_that_should_be_low_the_lowest_wins():
    high, low = standing("high", 0.9, loss=[0.5]), standing("low", 0.8, loss=[0.3])
    assert best_mean([high, low], "loss").champion.candidate.name == "low1"


def test_equal_means_go_to_fewer_parameters_then_fewer_flops_then_the_name():
    large = standing("a", 0.9, parameters=2000)
    slow = standing("b", 0.9, flops=20)
    later, first = standing("d", 0.9), standing("c", 0.9)
    for order in itertools.permutations([large, slow, later, first]):
        ranked = best_mean(order, "roc_auc").ranked
        assert ranked == (first, later, slow, large)


def test_unknown_size_is_not_simple():
    unknown = standing("a", 0.9)
    unknown.runs[0].candidate.record.model.clear()
    known = standing("b", 0.9)
    assert best_mean([unknown, known], "roc_auc").champion.candidate.name == "b1"


def test_one_standard_error_takes_the_simplest_within_it():
    # mean 0.92, sd 0.02 / sqrt(2), so the standard error of the mean of two is 0.01
    best = standing("best", 0.91, 0.93, parameters=9000)
    inside = standing("inside", 0.911, 0.911, parameters=500)
    outside = standing("outside", 0.909, 0.909, parameters=10)
    choice = one_standard_error([outside, inside, best], "roc_auc", no_error)
    assert choice.champion.candidate.name == "inside1"
    assert choice.ranked == (inside, best, outside)
    assert "the simplest of 2 within one standard error (0.0100, over 2 seeds)" in choice.why


def test_with_one_seed_the_error_over_patches_takes_its_place_and_is_named():
    best, simple = standing("best", 0.92, parameters=9000), standing("simple", 0.905, parameters=9)

    def error(candidate, metric):
        assert (candidate.name, metric) == ("best1", "roc_auc")
        return reach, "DeLong's, over the patches"

    reach = 0.016
    choice = one_standard_error([best, simple], "roc_auc", error)
    assert choice.champion.candidate.name == "simple1"
    assert "(0.0160, DeLong's, over the patches)" in choice.why
    reach = 0.014
    assert one_standard_error([best, simple], "roc_auc", error).champion.candidate.name == "best1"


def test_one_standard_error_of_a_loss_reaches_upwards():
    best = standing("best", 0.9, parameters=9000, loss=[0.30])
    near = standing("near", 0.9, parameters=9, loss=[0.31])
    far = standing("far", 0.9, parameters=1, loss=[0.33])
    choice = one_standard_error([best, near, far], "loss", lambda *_: (0.02, "by hand"))
    assert choice.champion.candidate.name == "near1"


def test_the_constraint_comes_before_the_precision():
    precise = standing("precise", 0.95, 0.95, recall=[0.90, 0.93], precision=[0.9, 0.9])
    careful = standing("careful", 0.90, 0.90, recall=[0.96, 0.95], precision=[0.6, 0.7])
    sloppy = standing("sloppy", 0.90, 0.90, recall=[0.99, 0.99], precision=[0.5, 0.6])
    choice = constraint([precise, sloppy, careful], 0.95)
    assert choice.champion.candidate.name == "careful2"
    assert choice.ranked == (careful, sloppy, precise)
    assert choice.metric == "precision"


def test_the_champion_itself_keeps_the_constraint_that_its_group_keeps_on_average():
    group = standing("a", 0.9, 0.9, recall=[0.94, 0.98], precision=[0.8, 0.6])
    assert constraint([group], 0.95).champion.candidate.name == "a2"


def test_a_constraint_that_nobody_keeps_names_the_best_recall_and_the_way_out():
    group = standing("a", 0.9, recall=[0.91], precision=[0.8])
    with pytest.raises(RunError, match=r"highest is 0\.9100, of a1.*threshold\.rule=recall"):
        constraint([group], 0.95)


@pytest.mark.parametrize("rule", ["best_mean", "one_standard_error", "constraint"])
def test_a_model_stuck_at_ln_2_is_never_champion_whatever_its_numbers(rule):
    columns = {"recall": [0.99], "precision": [0.99]}
    stuck = standing("stuck", 0.999, parameters=1, stuck=[1], **columns)
    modest = standing("modest", 0.7, recall=[0.96], precision=[0.6])

    def pick(*standings):
        return choose(
            standings,
            rule,
            metric="roc_auc",
            min_recall=0.95,
            standard_error=lambda *_: (1.0, "by hand"),
        )

    choice = pick(stuck, modest)
    assert choice.champion.candidate.name == "modest1"
    assert choice.runner_up is None  # to beat a model that is stuck is no evidence
    with pytest.raises(RunError, match=r'none of the 1 candidates has learned.*"not-learning"'):
        pick(stuck)


def test_a_stuck_seed_counts_in_the_mean_of_its_recipe_but_is_not_its_champion():
    group = standing("a", 0.99, 0.90, stuck=[1])
    choice = best_mean([group], "roc_auc")
    assert choice.champion.candidate.name == "a2"
    assert "0.9450 over 2 seeds" in choice.why


def test_a_metric_that_is_undefined_for_a_run_never_wins():
    nan = float("nan")
    undefined, known = standing("a", 0.9, f2=[nan]), standing("b", 0.5, f2=[0.1])
    assert best_mean([undefined, known], "f2").champion.candidate.name == "b1"
    with pytest.raises(RunError, match="f2 is undefined for every candidate"):
        best_mean([undefined], "f2")


def test_within_one_group_the_second_run_is_the_runner_up():
    choice = best_mean([standing("a", 0.9, 0.95, 0.92)], "roc_auc")
    assert choice.champion.candidate.name == "a2"
    assert choice.runner_up.candidate.name == "a3"
    assert best_mean([standing("a", 0.9)], "roc_auc").runner_up is None

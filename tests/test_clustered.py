import functools
import math

import numpy as np
import pytest
from sliced_world import World, nll_of

from ml_core.evaluation.predictions import sigmoid
from ml_core.evaluation.slices.clustered import clustered_intervals
from ml_core.metrics import HIGHER_IS_BETTER, compute_intervals, compute_metrics


def intervals_of(y_true, logit, slides=None, **options):
    options = {"num_resamples": 200, "nll": nll_of(y_true, logit), **options}
    if slides is None:
        return compute_intervals(y_true, sigmoid(logit), **options)
    return clustered_intervals(y_true, sigmoid(logit), slides, **options)


@functools.cache
def truth(world):
    """Return what every metric is on so many slides that chance has nothing to add."""
    tables = [world._replace(num_slides=4000).draw(seed)[:2] for seed in range(900, 903)]
    scores = [compute_metrics(y, sigmoid(logit), nll=nll_of(y, logit)) for y, logit in tables]
    return {name: np.mean([each[name] for each in scores]) for name in HIGHER_IS_BETTER}


def coverage(world, num_tables, by_slide):
    """Return by metric the share of tables whose interval holds the truth."""
    held = dict.fromkeys(HIGHER_IS_BETTER, 0)
    for seed in range(num_tables):
        y_true, logit, slides = world.draw(seed)
        intervals = intervals_of(y_true, logit, slides if by_slide else None)
        for name, value in truth(world).items():
            held[name] += intervals[name].low <= value <= intervals[name].high
    return {name: count / num_tables for name, count in held.items()}


def test_intervals_over_slides_hold_the_truth_where_those_of_patches_do_not():
    """Three standard errors below 95 % of 40 tables are 84.7 %."""
    world = World(num_slides=20, per_slide=40)
    assert min(coverage(world, 40, by_slide=True).values()) >= 0.84
    assert max(coverage(world, 40, by_slide=False).values()) <= 0.8


@pytest.mark.slow
@pytest.mark.parametrize(
    "world", [World(10, 40, 0.6), World(30, 60, 0.6), World(30, 60, 0.0)],
    ids=["10 slides", "30 slides", "30 slides alike"],
)  # fmt: skip
def test_intervals_over_slides_hold_the_truth_in_at_least_95_of_100_tables(world):
    """Three standard errors of 300 tables are 3.8 %."""
    assert min(coverage(world, 300, by_slide=True).values()) >= 0.912


def test_an_interval_over_slides_is_never_shorter_than_that_of_patches():
    for shift in (0.0, 0.6):
        y_true, logit, slides = World(shift=shift).draw(4)
        alone, clustered = intervals_of(y_true, logit), intervals_of(y_true, logit, slides)
        for name in HIGHER_IS_BETTER:
            assert clustered[name].low <= alone[name].low, name
            assert clustered[name].high >= alone[name].high, name


def test_patches_that_are_each_a_slide_are_as_sure_as_single_patches():
    y_true, logit, _ = World(num_slides=1, per_slide=600, shift=0.0).draw(0)
    alone = intervals_of(y_true, logit, num_resamples=1000)
    clustered = intervals_of(y_true, logit, np.arange(len(y_true)), num_resamples=1000)
    for name in HIGHER_IS_BETTER:
        width = clustered[name].high - clustered[name].low
        assert width <= 1.15 * (alone[name].high - alone[name].low), name


def test_copies_of_every_patch_on_its_slide_make_nothing_surer():
    y_true, logit, slides = World().draw(3)
    once = intervals_of(y_true, logit, slides)
    thrice = intervals_of(*(np.repeat(each, 3) for each in (y_true, logit, slides)))
    for name in ("roc_auc", "recall", "loss"):
        assert thrice[name].low == pytest.approx(once[name].low, abs=0.01)


def test_neither_the_order_of_rows_nor_the_names_of_slides_change_a_bit():
    y_true, logit, slides = World(num_slides=12).draw(1)
    order = np.random.default_rng(0).permutation(len(y_true))
    straight = intervals_of(y_true, logit, slides)
    assert intervals_of(y_true[order], logit[order], slides[order] * 7 + 3) == straight


def test_an_interval_of_six_slides_reaches_as_far_as_students_t():
    """Of six equal slides the error of the mean is their deviation over the root of six."""
    recalls = np.array([0.5, 0.6, 0.7, 0.8, 0.9, 0.7])
    slides, place = np.repeat(np.arange(6), 40), np.tile(np.arange(40), 6)
    y_true = place % 2  # 20 of each class on a slide
    logit = np.where((y_true == 1) & (place // 2 < 20 * recalls[slides]), 2.0, -2.0)
    low, high = intervals_of(y_true, logit, slides, num_resamples=2000)["recall"]
    mean = recalls.mean()
    reach = 2.571 * recalls.std() / math.sqrt(6) / (mean * (1 - mean))  # 5 degrees of freedom
    logits = [math.log(end / (1 - end)) - math.log(mean / (1 - mean)) for end in (low, high)]
    assert logits == pytest.approx([-reach, reach], rel=0.05)


def test_another_seed_draws_other_slides():
    y_true, logit, slides = World().draw(1)
    seeds = [intervals_of(y_true, logit, slides, seed=seed)["roc_auc"] for seed in (0, 0, 1)]
    assert seeds[0] == seeds[1] != seeds[2]


def test_without_an_error_the_interval_is_that_of_patches():
    y_true = np.arange(200) % 2
    logit, slides = np.where(y_true == 1, 3.0, -3.0), np.arange(200) // 2 % 10
    alone, clustered = intervals_of(y_true, logit), intervals_of(y_true, logit, slides)
    assert clustered["recall"] == alone["recall"]
    assert clustered["roc_auc"] == alone["roc_auc"]


def test_what_is_undefined_stays_so():
    y_true, logit, slides = World().draw(0)
    normal = y_true == 0
    intervals = intervals_of(y_true[normal], logit[normal], slides[normal])
    assert math.isnan(intervals["roc_auc"].low) and math.isnan(intervals["recall"].high)
    assert math.isfinite(intervals["specificity"].low)


def test_one_slide_shows_no_spread_between_slides():
    y_true, logit, _ = World().draw(0)
    one = intervals_of(y_true, logit, np.zeros(len(y_true), dtype=int))
    assert one == intervals_of(y_true, logit)


def test_every_interval_is_within_what_the_metric_can_be():
    """Two slides reach 12.7 standard errors to each side."""
    y_true, logit, slides = World(num_slides=2, per_slide=40).draw(3)
    for name, (low, high) in intervals_of(y_true, logit, slides).items():
        assert 0 <= low <= high, name
        assert math.isfinite(high) and (name == "loss" or high <= 1), name

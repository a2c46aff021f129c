import math

import numpy as np
import pytest
from scipy.stats import t
from sklearn.metrics import roc_auc_score
from sliced_world import World, favouring_slides

from ml_core.evaluation.predictions import sigmoid
from ml_core.evaluation.slices.differences import KINDS, compute_differences
from ml_core.evaluation.slices.exact_test import exact_p_value
from ml_core.evaluation.slices.few_slides import effective_slides, t_p_value, t_quantile
from ml_core.evaluation.slices.jackknife import LeftOut, areas_without, jackknife_error
from ml_core.evaluation.slices.mover import interval_of_sum
from ml_core.metrics import Interval, delong_interval, wilson_interval


def differences(y_true, logit, inside, slides=None, **options):
    return compute_differences(y_true, sigmoid(logit), inside, slides, threshold=0.5, **options)


def patches(normal_wrong, normal, tumours_wrong, tumours):
    """Return labels and logits of so many patches, of each class the first ones called wrong."""
    y_true = np.repeat([0, 1], [normal, tumours])
    is_wrong = np.concatenate(
        [np.arange(normal) < normal_wrong, np.arange(tumours) < tumours_wrong]
    )
    return y_true, np.where((y_true == 1) != is_wrong, 1.0, -1.0)


def two_groups(inside, outside):
    """Return labels, logits and mask of a slice and a rest, each given as to `patches`."""
    (y_in, logit_in), (y_out, logit_out) = patches(*inside), patches(*outside)
    mask = np.arange(len(y_in) + len(y_out)) < len(y_in)
    return np.append(y_in, y_out), np.append(logit_in, logit_out), mask


def test_a_slice_worked_by_hand():
    """Normal 5 of 50 wrong against 10 of 200; tumours 30 of 50 against 20 of 100."""
    found = differences(*two_groups((5, 50, 30, 50), (10, 200, 20, 100)))
    prevalence = 150 / 400
    expected = (1 - prevalence) * (0.1 - 0.05) + prevalence * (0.6 - 0.2)
    assert found["error"].value == pytest.approx(expected)
    assert found["recall"].value == pytest.approx(0.4 - 0.8)
    assert found["specificity"].value == pytest.approx(0.9 - 0.95)
    # of two scores, the area is the mean of recall and specificity
    assert found["roc_auc"].value == pytest.approx((0.4 + 0.9) / 2 - (0.8 + 0.95) / 2)


def test_the_interval_of_a_difference_of_shares_is_newcombes():
    """56 of 70 against 48 of 80: 0.0524 to 0.3339 (Newcombe 1998, table II, a, method 10)."""
    shares = [wilson_interval(56, 70), wilson_interval(48, 80)]
    interval = interval_of_sum([1, -1], [56 / 70, 48 / 80], shares)
    assert interval == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_a_slice_with_more_of_the_harder_class_is_not_worse_for_that():
    found = differences(*two_groups((10, 100, 120, 400), (100, 1000, 30, 100)))
    assert found["error"].value == pytest.approx(0)
    assert found["error"].p == 1


def test_the_slice_and_the_rest_turned_round_differ_by_as_much_the_other_way():
    y_true, logit, slides = World().draw(0)
    inside = favouring_slides(slides, 0)
    for by_slide in (None, slides):
        there = differences(y_true, logit, inside, by_slide)
        back = differences(y_true, logit, ~inside, by_slide)
        for kind in KINDS:
            assert there[kind].value == pytest.approx(-back[kind].value)
            assert there[kind].interval == pytest.approx(
                (-back[kind].interval.high, -back[kind].interval.low)
            )
            assert there[kind].p == pytest.approx(back[kind].p)


@pytest.mark.parametrize("seed", range(4))
def test_a_p_value_of_single_patches_below_a_twentieth_has_an_interval_without_zero(seed):
    generator = np.random.default_rng(seed)
    y_true, logit, _ = World(shift=0.0).draw(seed)
    for _ in range(20):
        inside = generator.random(len(y_true)) < 0.1
        worse = np.where(inside, logit - generator.normal() * (2 * y_true - 1), logit)
        for found in differences(y_true, worse, inside).values():
            if found.p <= 0.05:
                assert not found.interval.low <= 0 <= found.interval.high


def test_the_areas_of_disjoint_patches_have_variances_that_add():
    y_true, logit, _ = World(shift=0.0).draw(3)
    inside = np.arange(len(y_true)) % 5 == 0
    found = differences(y_true, logit, inside)["roc_auc"]
    areas = [roc_auc_score(y_true[side], logit[side]) for side in (inside, ~inside)]
    ends = [delong_interval(y_true[side], sigmoid(logit[side])) for side in (inside, ~inside)]
    assert found.value == pytest.approx(areas[0] - areas[1])
    below = math.hypot(areas[0] - ends[0].low, ends[1].high - areas[1])
    assert found.interval.low == pytest.approx(found.value - below)


def test_a_few_errors_prove_no_more_than_an_exact_test_says():
    """None of 12 against 30 %: 0.022 counted out, where the interval alone would say 0.017."""
    found = differences(*two_groups((0, 12, 0, 0), (150, 500, 0, 0)))["specificity"]
    assert found.p == pytest.approx(exact_p_value(np.array([[[0, 12], [150, 350]]]), [1.0]))
    assert found.p == pytest.approx(0.0222, abs=1e-4)


def test_the_area_of_ten_tumours_is_tested_with_nine_degrees_of_freedom():
    y_true, logit, _ = World(1, 400, 0.0, 0.6).draw(7)
    tumours = np.flatnonzero(y_true == 1)
    inside = (y_true == 0) & (np.arange(len(y_true)) % 2 == 0)
    inside[tumours[np.argsort(logit[tumours])[::3][:10]]] = True  # low ones
    found = differences(y_true, logit, inside)["roc_auc"]
    assert found.value < 0
    z = 1.96 * found.value / (found.interval.high - found.value)
    assert found.p == pytest.approx(2 * t.sf(abs(z), 9), rel=1e-3)


def test_a_patch_at_the_threshold_is_called_tumour():
    y_true, logit, inside = two_groups((0, 50, 0, 50), (0, 50, 0, 50))
    at_threshold = np.where(inside & (y_true == 1), 0.0, logit)
    assert differences(y_true, at_threshold, inside)["recall"].value == 0


def test_without_a_class_only_the_other_is_compared():
    y_true, logit, inside = two_groups((12, 60, 0, 0), (20, 300, 40, 200))
    found = differences(y_true, logit, inside)
    assert found["error"].value == pytest.approx(12 / 60 - 20 / 300)
    assert found["specificity"].value == pytest.approx(-(12 / 60 - 20 / 300))
    assert math.isnan(found["recall"].value) and math.isnan(found["roc_auc"].p)


@pytest.mark.parametrize("tumours", [9, 10])
def test_a_class_counts_from_its_smallest_number_on(tumours):
    found = differences(*two_groups((12, 60, 3, tumours), (20, 300, 40, 200)), min_per_class=10)
    assert math.isfinite(found["recall"].value) == (tumours == 10)
    assert math.isfinite(found["roc_auc"].value) == (tumours == 10)


def test_every_patch_has_no_rest_to_compare_with():
    y_true, logit, _ = World().draw(0)
    found = differences(y_true, logit, np.ones(len(y_true), dtype=bool))
    assert all(math.isnan(each.value) and math.isnan(each.p) for each in found.values())


def test_slides_only_ever_add_doubt():
    y_true, logit, slides = World().draw(5)
    inside = favouring_slides(slides, 5)
    alone, doubted = (differences(y_true, logit, inside, by) for by in (None, slides))
    for kind in KINDS:
        assert doubted[kind].value == alone[kind].value
        assert doubted[kind].p >= alone[kind].p
        assert doubted[kind].interval.low <= alone[kind].interval.low
        assert doubted[kind].interval.high >= alone[kind].interval.high
    assert doubted["error"].interval.high > alone["error"].interval.high


@pytest.mark.parametrize(
    ("kind", "classes"), [("recall", [1]), ("specificity", [0]), ("roc_auc", [0, 1])]
)
def test_over_slides_the_error_is_that_of_leaving_each_slide_out(kind, classes):
    y_true, logit, slides = World(num_slides=12).draw(6)
    inside = favouring_slides(slides, 6)
    found = differences(y_true, logit, inside, slides)[kind]
    without = []
    for slide in range(12):
        kept = slides != slide
        without.append(differences(y_true[kept], logit[kept], inside[kept])[kind].value)
    error = math.sqrt(11 / 12 * sum((value - found.value) ** 2 for value in without))
    cells = [(y_true == label) & side for label in classes for side in (inside, ~inside)]
    shares = [np.bincount(slides[cell], minlength=12) / cell.sum() for cell in cells]
    num_slides = effective_slides(np.array(shares))
    assert found.interval.high - found.value == pytest.approx(t_quantile(0.95, num_slides) * error)
    assert found.p == pytest.approx(t_p_value(found.value / error, num_slides))


def test_one_bad_slide_is_told_from_a_bad_property():
    """The slice holds half of each slide; the errors are those of one slide, or of all alike."""
    y_true, logit, slides = World(num_slides=30, per_slide=80, shift=0.0).draw(1)
    inside = np.arange(len(y_true)) % 2 == 0
    largest = slides == np.bincount(slides).argmax()
    of_slide = np.where(inside & largest, -logit, logit)
    of_property = np.where(inside & (np.arange(len(y_true)) % 10 == 0), -logit, logit)
    assert differences(y_true, of_slide, inside)["error"].p < 1e-4
    assert differences(y_true, of_slide, inside, slides)["error"].p > 0.05
    assert differences(y_true, of_property, inside, slides)["error"].p < 1e-3


def test_a_class_of_one_slide_is_not_known_over_slides():
    y_true, logit, slides = World(num_slides=8).draw(2)
    inside = (np.arange(len(y_true)) % 2 == 0) & (
        (y_true == 0) | (slides == slides[y_true == 1][0])
    )
    found = differences(y_true, logit, inside, slides)
    assert math.isnan(found["recall"].p) and math.isnan(found["recall"].interval.low)
    assert math.isfinite(found["specificity"].p)


def test_leaving_out_one_patch_after_another_gives_the_error_of_a_mean():
    values = np.random.default_rng(0).normal(size=50)
    without = (values.sum() - values) / 49
    expected = values.std(ddof=1) / math.sqrt(50)
    assert jackknife_error(values.mean(), without) == pytest.approx(expected)


def test_areas_without_each_slide_are_scikit_learns():
    generator = np.random.default_rng(0)
    y_true, slides = generator.integers(0, 2, 400), generator.integers(0, 9, 400)
    probs = np.round(generator.random(400) * 0.6 + 0.4 * y_true * generator.random(400), 2)  # ties
    expected = [roc_auc_score(y_true[slides != each], probs[slides != each]) for each in range(9)]
    assert areas_without(y_true, probs, slides, 9) == pytest.approx(expected)


def test_an_area_without_the_slide_of_all_tumours_is_unknown():
    y_true, probs, slides = np.array([[1, 0.9, 0], [1, 0.8, 0], [0, 0.3, 0], [0, 0.2, 1]]).T
    areas = areas_without(y_true.astype(int), probs, slides.astype(int), 2)
    assert math.isnan(areas[0]) and areas[1] == 1


def test_equal_slides_count_in_full_and_one_large_slide_counts_alone():
    assert effective_slides(np.ones(12)) == pytest.approx(12)
    assert effective_slides(np.array([1.0, 0, 0])) == pytest.approx(1)
    assert 1 < effective_slides(np.array([10.0, 1, 1, 1])) < 1.1
    two_means = np.array([[1.0, 1, 0, 0], [0, 0, 1, 1]])
    assert effective_slides(two_means) == pytest.approx(4)


def test_few_slides_reach_further():
    assert t_quantile(0.95, 5) == pytest.approx(2.776, abs=1e-3)  # Student's table, 4 degrees
    assert t_quantile(0.95, 1.2) == pytest.approx(12.706, abs=1e-3)  # never below 1 degree
    assert t_p_value(2.776, 5) == pytest.approx(0.05, abs=1e-4)


def test_an_estimate_that_no_slide_changes_is_not_doubted_by_slides():
    assert LeftOut(0.2, np.full(6, 0.2), 6).p_value == 0
    assert LeftOut(0.0, np.full(6, 0.0), 6).p_value == 1


def test_the_interval_of_a_sum_of_unknowns_is_unknown():
    assert math.isnan(
        interval_of_sum([1, 1], [0.1, 0.2], [Interval(0, 1), Interval(math.nan, 1)]).low
    )


def false_alarms(world, num_tables, by_slide, share=0.2):
    """Return by kind the share of tables with p <= 0.05 in a slice that is like the rest."""
    p_values = {kind: [] for kind in KINDS}
    for seed in range(num_tables):
        y_true, logit, slides = world.draw(seed)
        inside = favouring_slides(slides, seed, share)
        for kind, found in differences(y_true, logit, inside, slides if by_slide else None).items():
            p_values[kind].append(found.p)
    return {kind: np.nanmean(np.array(each) <= 0.05) for kind, each in p_values.items()}


def test_where_slides_differ_only_tests_that_know_them_keep_their_level():
    """Three standard errors above 5 % of 80 tables are 12.3 %."""
    world = World(num_slides=40, per_slide=60)
    assert max(false_alarms(world, 80, by_slide=True).values()) <= 0.12
    assert min(false_alarms(world, 80, by_slide=False).values()) >= 0.13


@pytest.mark.slow
@pytest.mark.parametrize(
    "world",
    [World(54, 100, 0.5), World(12, 60, 0.6), World(54, 20, 0.0, 1.6)],
    ids=["54 slides", "12 slides", "slides alike, few errors"],
)
def test_a_sound_model_alarms_in_at_most_5_of_100_slices_over_slides(world):
    """Three standard errors of 600 tables are 2.7 %."""
    assert max(false_alarms(world, 600, by_slide=True).values()) <= 0.077


@pytest.mark.slow
@pytest.mark.parametrize(("num_patches", "separation"), [(400, 1.2), (150, 1.6)])
def test_a_sound_model_alarms_in_at_most_5_of_100_slices_of_single_patches(num_patches, separation):
    """80 and 30 patches in the slice; three standard errors of 1,500 tables are 1.7 %."""
    alarms = false_alarms(World(1, num_patches, 0.0, separation), 1500, by_slide=False)
    assert max(alarms.values()) <= 0.067

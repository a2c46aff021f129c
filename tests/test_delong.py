import math
import time

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ml_core.metrics import Interval, auc_standard_error, delong_interval, delong_test

# The 43 patients of DeLong, DeLong and Clarke-Pearson (Biometrics 44, 1988) with all three tests,
# as SAS/STAT prints them (PROC LOGISTIC, "Comparing Receiver Operating Characteristic Curves"):
# albumin, total protein, K-G score (low is good there), 1 for those whom surgery helped.
PATIENTS = """
3.0 5.8 10 0   3.2 6.3  5 1   3.9 6.8  3 1   2.8 4.8  6 0   3.2 5.8  3 1   0.9 4.0  5 0
2.5 5.7  8 0   1.6 5.6  5 1   3.8 5.7  5 1   3.7 6.7  6 1   3.2 5.4  4 1   3.8 6.6  6 1
4.1 6.6  5 1   3.6 5.7  5 1   4.3 7.0  4 1   3.6 6.7  4 0   2.3 4.4  6 1   4.2 7.6  4 0
4.0 6.6  6 0   3.5 5.8  6 1   3.8 6.8  7 1   3.0 4.7  8 0   4.5 7.4  5 1   3.7 7.4  5 1
3.1 6.6  6 1   4.1 8.2  6 1   4.3 7.0  5 1   4.3 6.5  4 1   3.2 5.1  5 1   2.6 4.7  6 1
3.3 6.8  6 0   1.7 4.0  7 0   3.7 6.1  5 1   3.3 6.3  7 1   4.2 7.7  6 1   3.5 6.2  5 1
2.9 5.7  9 0   2.1 4.8  7 1   2.8 6.2  8 0   4.0 7.0  7 1   3.3 5.7  6 1   3.7 6.9  5 1
3.6 6.6  5 1
"""
ALBUMIN, PROTEIN, KG_SCORE, HELPED = np.array(PATIENTS.split(), float).reshape(43, 4).T
TESTS = {"ALB": ALBUMIN / 10, "TP": PROTEIN / 10, "K-G": 1 - KG_SCORE / 10}


def two_models(num_patches, seed=0, skill=(1.0, 0.6), share_of_tumour=0.5):
    """Return labels and the probabilities of two models that see the same patches."""
    generator = np.random.default_rng(seed)
    y_true = (np.arange(num_patches) < share_of_tumour * num_patches).astype(int)
    shared = generator.normal(size=num_patches)
    logits = [
        each * (2 * y_true - 1) + shared + 0.7 * generator.normal(size=num_patches)
        for each in skill
    ]
    return y_true, *(1 / (1 + np.exp(-logit)) for logit in logits)


def by_definition(y_true, *probs):
    """Return areas and covariance (DeLong et al. 1988, equations 3 to 6), over all pairs."""
    tumour, normal = y_true == 1, y_true == 0
    wins = np.array(
        [
            (each[tumour][:, None] > each[normal]) + 0.5 * (each[tumour][:, None] == each[normal])
            for each in probs
        ]
    )  # (models, P, N)
    by_tumour = np.cov(wins.mean(axis=2)) / tumour.sum()
    by_normal = np.cov(wins.mean(axis=1)) / normal.sum()
    return wins.mean(axis=(1, 2)), by_tumour + by_normal


@pytest.mark.parametrize(
    ("name", "area", "error"),
    [("ALB", 0.7366, 0.0927), ("K-G", 0.7258, 0.1028), ("TP", 0.6478, 0.1000)],
)
def test_areas_and_errors_are_those_printed_for_delongs_patients(name, area, error):
    assert roc_auc_score(HELPED, TESTS[name]) == pytest.approx(area, abs=5e-5)
    assert auc_standard_error(HELPED, TESTS[name]) == pytest.approx(error, abs=5e-5)


@pytest.mark.parametrize(
    ("name", "difference", "error", "low", "high", "chi_squared", "p_value"),
    [
        ("ALB", 0.0108, 0.0953, -0.1761, 0.1976, 0.0127, 0.9102),
        ("TP", -0.0780, 0.1046, -0.2830, 0.1271, 0.5554, 0.4561),
    ],
)
def test_the_paired_test_is_the_one_printed_for_delongs_patients(
    name, difference, error, low, high, chi_squared, p_value
):
    found = delong_test(HELPED, TESTS[name], TESTS["K-G"])
    printed = (difference, error, low, high, chi_squared, p_value)
    values = (found.difference, found.standard_error, *found.interval, found.z**2, found.p_value)
    assert values == pytest.approx(printed, abs=5e-5)


@pytest.mark.parametrize("digits", [1, 2, 9])
@pytest.mark.parametrize("share_of_tumour", [0.5, 0.05])
def test_the_paired_test_equals_its_definition_over_all_pairs(digits, share_of_tumour):
    y_true, *probs = two_models(200, share_of_tumour=share_of_tumour)
    a, b = (np.round(each, digits) for each in probs)
    areas, covariance = by_definition(y_true, a, b)
    error = math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    found = delong_test(y_true, a, b)
    assert (found.auc_a, found.auc_b) == pytest.approx(areas, abs=1e-12)
    assert (found.auc_a, found.auc_b) == pytest.approx(
        [roc_auc_score(y_true, each) for each in (a, b)], abs=1e-12
    )
    assert found.standard_error == pytest.approx(error, abs=1e-12)
    assert found.z == pytest.approx((areas[0] - areas[1]) / error)
    assert auc_standard_error(y_true, a) == pytest.approx(math.sqrt(covariance[0, 0]), abs=1e-12)


def test_swapping_the_models_turns_the_sign_and_nothing_else():
    y_true, a, b = two_models(300)
    one, other = delong_test(y_true, a, b), delong_test(y_true, b, a)
    assert one.difference == -other.difference and one.z == -other.z
    assert one.interval == pytest.approx((-other.interval.high, -other.interval.low))
    assert one.p_value == other.p_value


def test_the_order_of_the_patches_and_the_scale_of_the_scores_do_not_matter():
    y_true, a, b = two_models(300)
    shuffled = np.random.default_rng(4).permutation(300)
    expected = delong_test(y_true, a, b)
    for found in (
        delong_test(y_true[shuffled], a[shuffled], b[shuffled]),
        delong_test(y_true, a**3, b / 2),
    ):
        assert found.interval == pytest.approx(expected.interval, abs=1e-14)
        assert found.p_value == pytest.approx(expected.p_value, abs=1e-12)


def test_models_that_rank_alike_differ_by_nothing():
    y_true, a, _ = two_models(100)
    found = delong_test(y_true, a, a**2)
    assert (found.difference, found.standard_error, found.z, found.p_value) == (0, 0, 0, 1)
    assert found.interval == (0, 0)


def test_equally_good_models_are_called_different_in_about_one_of_twenty_tables():
    tests = [delong_test(*two_models(150, seed, skill=(0.8, 0.8))) for seed in range(1000)]
    assert 0.03 < np.mean([test.p_value < 0.05 for test in tests]) < 0.07


def test_a_perfect_order_is_no_proof_on_four_patches_and_one_on_four_hundred():
    few = delong_test([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4], [0.5] * 4)
    many = delong_test([0, 1] * 200, [0.1, 0.9] * 200, [0.5] * 400)
    assert few.difference == many.difference == 0.5
    assert few.interval.low < 0 and few.p_value > 0.05
    assert many.interval.low > 0.48 and many.p_value < 1e-6
    other_way = delong_test([0, 1] * 200, [0.5] * 400, [0.1, 0.9] * 200)
    assert other_way.interval.high < -0.48 and other_way.z == -many.z


def test_an_interval_of_few_patches_ends_where_a_difference_can():
    a, b = [0.1, 0.2, 0.5, 0.4, 0.8, 0.9], [0.9, 0.8, 0.4, 0.5, 0.2, 0.1]
    found = delong_test([0, 0, 0, 1, 1, 1], a, b)
    assert found.difference + 1.96 * found.standard_error > 1 == found.interval.high


def test_with_one_class_the_test_is_undefined_and_with_one_patch_of_it_only_its_error():
    alone = delong_test([1, 1, 1], [0.1, 0.2, 0.3], [0.3, 0.2, 0.1])
    assert all(math.isnan(value) for value in (alone.auc_a, alone.difference, alone.p_value))
    assert all(math.isnan(end) for end in alone.interval)
    single = delong_test([0, 0, 1], [0.1, 0.2, 0.3], [0.3, 0.2, 0.1])
    assert single.difference == 1.0
    assert math.isnan(single.standard_error) and math.isnan(single.interval.low)


def test_models_of_other_patches_are_refused():
    with pytest.raises(ValueError, match="one length"):
        delong_test([0, 1], [0.1, 0.2], [0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match=r"NaN or outside 0\.\.1, the first at position 1"):
        delong_test([0, 1], [0.1, 0.2], [0.1, math.nan])
    with pytest.raises(ValueError, match="level is 95; allowed"):
        delong_test([0, 1], [0.1, 0.2], [0.1, 0.2], level=95)


def test_the_interval_of_one_area_stays_within_0_and_1_and_holds_the_area():
    for seed in range(50):
        y_true, a, _ = two_models(20, seed, skill=(2.0, 0.0))
        low, high = delong_interval(y_true, a)
        assert 0 <= low <= roc_auc_score(y_true, a) <= high <= 1
        assert low < high


def test_the_interval_of_one_area_is_as_wide_as_the_error_says_where_0_and_1_are_far():
    y_true, a, _ = two_models(4000, skill=(0.3, 0.0))
    low, high = delong_interval(y_true, a)
    assert high - low == pytest.approx(2 * 1.96 * auc_standard_error(y_true, a), rel=0.001)
    half = delong_interval(y_true, a, level=0.6827)
    assert half.high - half.low == pytest.approx((high - low) / 1.96, rel=0.001)


def test_a_perfect_order_has_an_interval_that_narrows_with_the_patches():
    ten = delong_interval([0, 1] * 5, [0.1, 0.9] * 5)
    thousand = delong_interval([0, 1] * 500, [0.1, 0.9] * 500)
    assert 0.5 < ten.low < thousand.low < 1 == ten.high
    reversed_order = delong_interval([0, 1] * 5, [0.9, 0.1] * 5)
    assert reversed_order == pytest.approx((0, 1 - ten.low))


def test_constant_predictions_have_half_the_area_for_certain():
    assert auc_standard_error([0, 0, 1, 1], [0.5] * 4) == 0.0
    assert delong_interval([0, 0, 1, 1], [0.5] * 4) == Interval(0.5, 0.5)


def test_a_single_patch_of_a_class_leaves_the_error_undefined():
    assert math.isnan(auc_standard_error([0, 0, 0, 1], [0.1, 0.2, 0.3, 0.4]))
    assert all(math.isnan(end) for end in delong_interval([0, 0, 0, 1], [0.1, 0.2, 0.3, 0.4]))


def test_half_a_million_patches_are_compared_in_the_time_of_a_few_sorts():
    y_true, a, b = two_models(500_000)  # all pairs would be 500 GB
    started = time.process_time()
    found = delong_test(y_true, a, b)
    assert time.process_time() - started < 5
    assert found.interval.low < found.difference < found.interval.high

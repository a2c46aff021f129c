import itertools
import math

import numpy as np
import pytest
from scipy.stats import false_discovery_control, fisher_exact, hypergeom

from ml_core.evaluation.slices.exact_test import exact_p_value
from ml_core.evaluation.slices.false_discovery import benjamini_hochberg
from ml_core.evaluation.slices.mantel_haenszel import hypergeometric, mantel_haenszel_test

# Admissions to Berkeley in 1973, by department: admitted and rejected, men and women (Bickel,
# Hammel and O'Connell, Science 187, 1975; UCBAdmissions of R).
BERKELEY = [
    [[512, 313], [89, 19]],
    [[353, 207], [17, 8]],
    [[120, 205], [202, 391]],
    [[138, 279], [131, 244]],
    [[53, 138], [94, 299]],
    [[22, 351], [24, 317]],
]
# Rabbits cured and dead, by dose of penicillin, injected at once and 1.5 hours later (Mantel 1963;
# Agresti, Categorical Data Analysis, 1990, page 231; the example of R's mantelhaen.test).
RABBITS = [
    [[0, 6], [0, 5]],
    [[3, 3], [0, 6]],
    [[6, 0], [2, 4]],
    [[5, 1], [6, 0]],
    [[2, 0], [5, 0]],
]


def test_the_statistic_of_berkeley_is_the_published_one():
    test = mantel_haenszel_test(BERKELEY)
    assert test.statistic == pytest.approx(1.5246, abs=5e-5)
    assert test.p_value == pytest.approx(math.erfc(math.sqrt(1.5246 / 2)), abs=0.015)
    assert test.difference < 0  # fewer men within departments, though more in all


def test_the_exact_p_value_of_the_rabbits_is_the_published_one():
    assert mantel_haenszel_test(RABBITS).p_value == pytest.approx(0.03994, abs=5e-6)


def test_a_table_worked_by_hand():
    """3 of 4 hits in the group where 2 are expected; variance 4 * 4 * 4 * 4 / (64 * 7)."""
    test = mantel_haenszel_test([[[3, 1], [1, 3]]])
    assert test.difference == pytest.approx(3 / 4 - 1 / 4)
    assert test.statistic == pytest.approx(1 / (256 / 448))
    assert test.p_value == pytest.approx((1 + 16 + 16 + 1) / 70)


@pytest.mark.parametrize("seed", range(5))
def test_one_stratum_is_fishers_exact_test(seed):
    table = np.random.default_rng(seed).integers(1, 40, (2, 2))
    expected = fisher_exact(table).pvalue
    assert mantel_haenszel_test([table]).p_value == pytest.approx(expected)


def test_a_stratum_without_a_patch_in_the_group_says_nothing():
    empty = [[0, 0], [7, 3]]
    assert mantel_haenszel_test([*RABBITS, empty]) == mantel_haenszel_test(RABBITS)
    assert math.isnan(mantel_haenszel_test([empty]).p_value)


def test_errors_everywhere_or_nowhere_prove_nothing():
    for table in ([[5, 0], [9, 0]], [[0, 5], [0, 9]]):
        test = mantel_haenszel_test([table])
        assert (test.difference, test.statistic, test.p_value) == (0, 0, 1)


@pytest.mark.parametrize("tables", [[[1, 2], [3, 4]], [[[1.5, 2], [3, 4]]], [[[-1, 2], [3, 4]]]])
def test_what_is_no_table_of_counts_is_refused(tables):
    with pytest.raises(ValueError, match="needed are"):
        mantel_haenszel_test(tables)


@pytest.mark.parametrize(
    ("group", "hits", "total"), [(3, 4, 10), (9, 8, 10), (5, 0, 9), (9000, 3000, 16_000)]
)
def test_chances_of_hits_in_the_group_are_hypergeometric(group, hits, total):
    first, chances = hypergeometric(group, hits, total)
    possible = np.arange(first, first + len(chances))
    assert (first, possible[-1]) == (max(0, group + hits - total), min(group, hits))
    expected = hypergeom.pmf(possible, total, hits, group)
    assert chances == pytest.approx(expected, rel=1e-9, abs=1e-290)


def permuted_p_value(tables, weights):
    """Go through every way the hits of each stratum can fall on its patches."""
    shown = []
    for table, weight in zip(tables, weights, strict=True):
        (inside, outside), hits = table.sum(axis=1), table[:, 0].sum()
        ways = itertools.combinations(range(inside + outside), hits)
        falls = [sum(place < inside for place in way) for way in ways]
        shown.append([weight * (a / inside - (hits - a) / outside) for a in falls])
    shares = tables[..., 0] / tables.sum(axis=-1)
    seen = abs((weights * (shares[:, 0] - shares[:, 1])).sum())
    totals = [sum(differences) for differences in itertools.product(*shown)]
    return np.mean([abs(total) >= seen - 1e-12 for total in totals])


@pytest.mark.parametrize("tables", [[[[3, 2], [1, 4]]], [[[3, 2], [1, 3]], [[0, 4], [2, 3]]]])
def test_the_exact_p_value_counts_every_way_errors_can_fall(tables):
    tables, weights = np.array(tables), np.array([0.3, 0.7])[: len(tables)]
    assert exact_p_value(tables, weights) == pytest.approx(permuted_p_value(tables, weights))


def test_classes_that_differ_in_opposite_directions_need_the_weights_of_the_split():
    """Of few tumours many are missed, of many normal patches few are called."""
    tables = np.array([[[4, 196], [200, 1800]], [[30, 10], [400, 1600]]])
    weighted_by_slice = mantel_haenszel_test(tables)
    assert weighted_by_slice.p_value > 0.1
    assert exact_p_value(tables, [0.5, 0.5]) < 1e-6


def test_small_p_values_keep_their_digits():
    tables = np.array([[[90, 60], [100, 2000]]] * 2)
    assert 0 < exact_p_value(tables, [0.5, 0.5]) < 1e-90


def test_q_values_are_scipys():
    p = np.random.default_rng(0).random(40) ** 3
    assert benjamini_hochberg(p) == pytest.approx(false_discovery_control(p))


def test_the_published_example_rejects_four_of_fifteen():
    """The p-values of section 4.1 of Benjamini and Hochberg 1995, thrombolysis after infarction."""
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344]
    p += [0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0]
    shuffled = np.random.default_rng(1).permutation(15)
    q = benjamini_hochberg(np.array(p)[shuffled])
    assert sorted(np.array(p)[shuffled][q <= 0.05]) == p[:4]


def test_tests_that_were_not_made_do_not_count():
    q = benjamini_hochberg([0.01, math.nan, 0.04, math.nan])
    assert q[[0, 2]] == pytest.approx([0.02, 0.04])
    assert np.isnan(q[[1, 3]]).all()
    assert len(benjamini_hochberg([])) == 0


@pytest.mark.parametrize("p", [[0.1, 1.2], [-0.1], [[0.1], [0.2]]])
def test_what_is_no_p_value_is_refused(p):
    with pytest.raises(ValueError, match="needed are numbers from 0 to 1"):
        benjamini_hochberg(p)

"""Fixed point: what a number becomes, and that sums of such have the same bits in any order."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from ml_core.numerics.fixed_point import (
    LARGEST,
    MAX_TERMS,
    UNITS,
    FixedPoint,
    fits,
    on_grid,
    round_,
    to_units,
)

CPU = torch.device("cpu")


def units(values):
    values = torch.tensor(values, dtype=torch.float32)
    return FixedPoint(len(values), CPU).units_of(values).tolist()


def values(numbers):
    numbers = torch.tensor(numbers, dtype=torch.int64)
    return FixedPoint(len(numbers), CPU).values_of(numbers, out=torch.empty(len(numbers)))


def random_gradients(num, size, seed=0):
    """Return `num` rows of float32, of all magnitudes that a gradient has."""
    rng = np.random.default_rng(seed)
    exponents = rng.integers(-50, 10, (num, size))
    rows = np.ldexp(rng.standard_normal((num, size)), exponents).astype(np.float32)
    return [torch.from_numpy(row) for row in rows]


def total(rows):
    """Return the sum of `rows` through units, float32."""
    fixed = FixedPoint(len(rows[0]), CPU)
    sums = torch.zeros(len(rows[0]), dtype=torch.int64)
    for row in rows:
        sums += fixed.units_of(row)
    return fixed.values_of(sums, out=torch.empty(len(sums)))


def bits(tensor):
    return tensor.view(torch.int32).tolist()


def test_a_unit_is_two_to_the_minus_36_and_ties_go_to_even():
    unit = 2.0**-36
    assert units([unit, -unit, 3 * unit, 1.0, -2.5]) == [1, -1, 3, 2**36, -5 * 2**35]
    assert units([0.5 * unit, 1.5 * unit, 2.5 * unit, -0.5 * unit, -1.5 * unit]) == [0, 2, 2, 0, -2]
    assert units([0.49 * unit, 0.51 * unit, 2.0**-149]) == [0, 1, 0]


def test_units_are_those_of_exact_arithmetic_for_gradients_of_all_magnitudes():
    (row,) = random_gradients(1, 20_000)
    assert units(row.tolist()) == [round(value * 2**36) for value in row.tolist()]


def test_a_total_is_rounded_once_to_the_nearest_float32():
    rng = np.random.default_rng(1)
    numbers = rng.integers(-(2**62), 2**62, 20_000) >> rng.integers(0, 62, 20_000)
    nearest = numbers.astype(np.float32) * np.float32(2.0**-36)
    assert bits(values(numbers.tolist())) == nearest.view(np.int32).tolist()
    halfway = [2**24 + 1, 2**24 + 3, 2**25 + 2, 2**25 + 3]
    assert values(halfway).mul(2.0**36).tolist() == [2**24, 2**24 + 4, 2**25, 2**25 + 4]


def test_sums_have_the_same_bits_in_any_order_and_any_grouping():
    rows = random_gradients(16, 4096)
    rng = np.random.default_rng(2)
    expected = bits(total(rows))
    for _ in range(5):
        shuffled = [rows[i] for i in rng.permutation(len(rows))]
        assert bits(total(shuffled)) == expected


def test_sums_of_floats_do_not():
    rows = random_gradients(16, 4096)
    forward, backward = sum(rows), sum(rows[::-1])
    assert bits(forward) != bits(backward)


def test_one_term_is_rounded_in_place_to_the_bits_it_would_have_as_a_sum():
    (row,) = random_gradients(1, 20_000)
    row[:3] = torch.tensor([-0.0, -(2.0**-40), 2.0**-40])
    expected = bits(total([row]))
    round_(row)
    assert bits(row) == expected
    assert bits(row[:3]) == [0, 0, 0]  # no -0.0, which an integer cannot be


def test_as_many_terms_as_allowed_of_the_largest_value_allowed_do_not_overflow():
    largest = torch.nextafter(torch.tensor([LARGEST]), torch.tensor([0.0]))
    for sign in (1.0, -1.0):
        exact = MAX_TERMS * units((sign * largest).tolist())[0]
        assert abs(exact) < 2**62
        assert total([sign * largest] * MAX_TERMS).item() == np.float32(exact / 2**36)


@pytest.mark.parametrize("bad", [LARGEST, -LARGEST, 1e30, 3e38, float("inf"), float("nan")])
def test_a_number_that_is_too_large_or_not_finite_does_not_fit(bad):
    row = torch.full((1000,), 0.1)
    assert fits(row)
    row[500] = bad
    assert not fits(row)


def test_many_numbers_fit_whose_norm_is_too_large():
    assert fits(torch.full((10_000,), 60_000.0))
    assert fits(torch.empty(0))


def test_losses_on_the_grid_have_an_exact_sum():
    losses = [float(np.float32(loss)) for loss in (1e-7, 3.3e-9, 700.123, 2.0**-30, 0.6931)]
    exact = sum(round(Fraction(loss) * 2**36) for loss in losses)
    assert [to_units(loss) for loss in losses] == [round(Fraction(x) * 2**36) for x in losses]
    for order in (losses, losses[::-1]):
        assert sum(on_grid(loss) for loss in order) * UNITS == exact
    assert on_grid(float("inf")) == float("inf") and np.isnan(on_grid(float("nan")))

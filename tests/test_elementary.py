"""exp, log, cosine and power without a mathematical library: how near they come, and their ends."""

import math

import numpy as np
import pytest
import torch

from ml_core.numerics import elementary_arrays
from ml_core.numerics.elementary import exp, log, log1p
from ml_core.numerics.fdlibm import EXP_HIGHEST, EXP_LOWEST
from ml_core.numerics.portable_math import cos, power


def units_in_last_place(found, x, function):
    """Return the errors of `found` against 64 bits of mantissa, in units of its own last place."""
    truth = function(x.numpy().astype(np.longdouble))
    found = found.numpy()
    return np.abs(found - truth) / np.spacing(np.abs(found))


# ---- exp and log -------------------------------------------------------------------------------


def test_exp_is_within_one_unit_in_the_last_place():
    x = torch.cat([torch.linspace(-700, 700, 100_001), torch.linspace(-1, 1, 20_001)]).double()
    assert units_in_last_place(exp(x), x, np.exp).max() < 1


def test_log_is_within_two_units_in_the_last_place():
    wide = torch.linspace(-700, 700, 50_001, dtype=torch.float64).exp()
    x = torch.cat([wide, torch.linspace(0.5, 2, 50_000, dtype=torch.float64)])
    assert units_in_last_place(log(x), x, np.log).max() < 2


def test_log1p_is_within_three_units_in_the_last_place_for_small_numbers_too():
    sizes = torch.linspace(-300, 2, 20_001, dtype=torch.float64)
    small = torch.linspace(-0.99, 0.99, 20_000, dtype=torch.float64)
    x = torch.cat([10**sizes, -(10 ** sizes[sizes < -1]), small])
    assert units_in_last_place(log1p(x), x, np.log1p).max() < 3
    assert log1p(torch.zeros(1, dtype=torch.float64)).item() == 0


def test_exp_and_log_undo_one_another_at_whole_powers():
    assert exp(torch.zeros(1, dtype=torch.float64)).item() == 1.0
    powers = 2.0 ** torch.arange(-1000, 1000, dtype=torch.float64)
    expected = torch.arange(-1000, 1000, dtype=torch.float64) * math.log(2)
    torch.testing.assert_close(log(powers), expected, rtol=4e-16, atol=0)


def test_the_ends_of_exp():
    x = torch.tensor([-math.inf, EXP_LOWEST - 1, EXP_HIGHEST + 1, math.inf, math.nan]).double()
    assert exp(x).tolist()[:4] == [0.0, 0.0, math.inf, math.inf]
    assert math.isnan(exp(x)[4])
    assert 0 < exp(torch.tensor([EXP_LOWEST]).double()).item() < 1e-307
    assert 8e307 < exp(torch.tensor([EXP_HIGHEST]).double()).item() < math.inf


def test_the_ends_of_log():
    found = log(torch.tensor([0.0, 1.0, math.inf, -1.0, -math.inf, math.nan]).double())
    assert found.tolist()[:3] == [-math.inf, 0.0, math.inf]
    assert found[3:].isnan().all()


def test_shape_is_kept_and_the_argument_left_alone():
    x = torch.rand(3, 4, 5, dtype=torch.float64).transpose(0, 2)
    before = x.clone()
    for function in (exp, log):
        assert function(x).shape == x.shape
        assert torch.equal(function(x), function(x.contiguous()))
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("function", "x", "bits"),
    [
        (exp, 0.1, "0x1.1aec7b35a00d4p+0"),
        (exp, -20.25, "0x1.b93de1e27ca3bp-30"),
        (exp, 300.5, "0x1.719c25b8f5b4ap+433"),
        (log, 0.1, "-0x1.26bb1bbb55515p+1"),
        (log, 1e-200, "-0x1.cc845b54b54f2p+8"),
        (log, 255.0, "0x1.62a40fda3e3ccp+2"),
    ],
)
def test_the_bits_of_exp_and_log_are_these_on_every_machine(function, x, bits):
    for count in (1, 3, 64):  # a vector's worth, and what is left over
        found = function(torch.full((count,), x, dtype=torch.float64))
        assert {value.hex() for value in found.tolist()} == {bits}


def test_arrays_get_the_bits_of_tensors():
    x = torch.cat([
        torch.linspace(-800, 800, 10_001).double(),
        torch.tensor([0.0, math.inf, -math.inf, 1e-300, 5e-17]).double(),
    ])  # fmt: skip
    assert np.array_equal(elementary_arrays.exp(x.numpy()), exp(x).numpy())
    above = x[(x >= 0) & x.isfinite()]
    assert np.array_equal(elementary_arrays.log1p(above.numpy()), log1p(above).numpy())
    for function in (elementary_arrays.exp, elementary_arrays.log1p):
        assert np.isnan(function(np.array([math.nan]))).all()
        assert function(np.zeros(())).shape == ()


# ---- cosine and power --------------------------------------------------------------------------


def test_cosine_agrees_with_the_library_to_one_rounding():
    for x in np.linspace(-30, 30, 6001).tolist():
        assert cos(x) == pytest.approx(math.cos(x), abs=2.3e-16)


def test_cosine_at_the_ends_of_a_schedule():
    assert cos(0.0) == 1.0
    assert cos(math.pi) == -1.0
    assert abs(cos(math.pi / 2)) < 1e-16


def test_a_cosine_too_far_out_is_refused():
    with pytest.raises(AssertionError, match="exact up to 10"):
        cos(1e7)


@pytest.mark.parametrize("base", [0.9, 0.999, 0.5, 0.1])
def test_power_is_repeated_multiplication(base):
    assert power(base, 0) == 1.0
    assert power(base, 1) == base
    assert power(base, 3) == pytest.approx(base * base * base, rel=1e-15)
    assert power(base, 1000) == pytest.approx(base**1000, rel=1000 * 2**-53)


def test_a_power_too_small_for_a_float_is_zero():
    assert power(0.9, 10**7) == 0.0


def test_powers_of_a_half_are_exact():
    assert [power(0.5, n) for n in (1, 2, 10, 100)] == [2.0**-n for n in (1, 2, 10, 100)]


def test_the_bits_of_cosine_and_power_are_these_on_every_machine():
    assert [cos(x).hex() for x in (0.3, 2.5, -4.0)] == [
        "0x1.e921dd42f09bap-1", "-0x1.9a2f7ef858b7dp-1", "-0x1.4eaa606db24c1p-1",
    ]  # fmt: skip
    assert power(0.999, 777).hex() == "0x1.d6a2958545178p-2"

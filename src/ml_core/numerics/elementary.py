"""exp, log and log1p of float64 tensors, to the same bits on every machine that follows IEEE 754.

torch's own come from a vector library that differs between instruction sets and devices. Here they
are additions, products, divisions and bit operations, one rounding each, in a fixed order: nothing
is left to a compiler that could fuse a product and a sum. The method and the coefficients are those
of Sun's fdlibm, e_exp.c and e_log.c (1993); errors stay below 1 unit in the last place (exp), and
below 2 (log).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_LN2_HIGH = float.fromhex("0x1.62e42fee00000p-1")  # 32 bits of ln 2: n * _LN2_HIGH is exact
_LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
_LOG2_E = float.fromhex("0x1.71547652b82fep+0")
EXP_LOWEST, EXP_HIGHEST = -708.0, 709.0  # below: 0; above: infinity
_EXP = (
    1.66666666666666019037e-01, -2.77777777770155933842e-03, 6.61375632143793436117e-05,
    -1.65339022054652515390e-06, 4.13813679705723846039e-08,
)  # fmt: skip
_LOG = (
    6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01,
    2.222219843214978396e-01, 1.818357216161805012e-01, 1.531383769920937332e-01,
    1.479819860511658591e-01,
)  # fmt: skip


def exp(x: Tensor) -> Tensor:
    """Return e^x, float64 of the same shape; 0 below -708, infinity above 709, NaN stays NaN."""
    inside = x.clamp(EXP_LOWEST, EXP_HIGHEST)
    n = (inside * _LOG2_E).round_()
    high = inside - n * _LN2_HIGH
    low = n * _LN2_LOW
    r = high - low  # within ±ln(2) / 2
    square = r * r
    c = r - square * _polynomial(square, _EXP)
    mantissa = 1.0 - ((low - (r * c) / (2.0 - c)) - high)
    # NaN becomes any integer, and its power of two, times a mantissa that is NaN, is NaN again
    power = ((n.to(torch.int64) + 1023) << 52).view(torch.float64)
    result = mantissa * power
    result.masked_fill_(x < EXP_LOWEST, 0.0)
    return result.masked_fill_(x > EXP_HIGHEST, math.inf)


def log(x: Tensor) -> Tensor:
    """Return ln(x) of numbers that are above 2^-1022 and finite, float64 of the same shape.

    NaN stays NaN; 0 gives -infinity, infinity infinity, and what is negative NaN.
    """
    bits = x.view(torch.int64)
    # x = 2^n (1 + f) with 1 + f from sqrt(1/2) to sqrt(2)
    mantissa = (bits & (2**52 - 1)) | (1023 << 52)
    is_upper = mantissa >= _SQRT2_BITS
    n = (((bits >> 52) & 2047) - 1023 + is_upper).to(torch.float64)
    f = (mantissa - (is_upper.to(torch.int64) << 52)).view(torch.float64) - 1.0
    s = f / (2.0 + f)
    square = s * s
    half = f * f * 0.5
    rest = s * (half + square * _polynomial(square, _LOG))
    result = n * _LN2_HIGH - ((half - (rest + n * _LN2_LOW)) - f)
    result.masked_fill_(x == 0, -math.inf)
    result.masked_fill_(x == math.inf, math.inf)
    return result.masked_fill_((x < 0) | x.isnan(), math.nan)


def log1p(x: Tensor) -> Tensor:
    """Return ln(1 + x) of finite x > -1, float64 of the same shape, in full for small x as well.

    The error of 1 + x is made up for by a quotient: Kahan, in the manual of the HP-15C (1982).
    """
    whole = 1.0 + x
    taken = whole - 1.0
    result = log(whole) * (x / taken)
    return torch.where(taken == 0, x, result)


_SQRT2_BITS = 0x3FF6A09E667F3BCD


def _polynomial(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """Return c0 + x (c1 + x (c2 + ...)), a product and a sum at a time."""
    value = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value.mul_(x).add_(coefficient)
    return value

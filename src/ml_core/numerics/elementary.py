"""exp, log and log1p of float64 tensors, to the same bits on every machine that follows IEEE 754.

torch's own come from a vector library that differs between instruction sets and devices. These are
sums, products, quotients and bit operations (`fdlibm`). Errors stay below 1 unit in the last place
(exp), 2 (log) and 3 (log1p).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ml_core.numerics.fdlibm import (
    EXP_HIGHEST,
    EXP_LOWEST,
    EXPONENT_BIAS,
    LOG2_E,
    MANTISSA_BITS,
    SQRT2_BITS,
    exp_over_power_of_two,
    log_of_parts,
)


def exp(x: Tensor) -> Tensor:
    """Return e^x, float64 of the same shape; 0 below -708, infinity above 709, NaN stays NaN."""
    inside = x.clamp(EXP_LOWEST, EXP_HIGHEST)
    n = (inside * LOG2_E).round_()
    # NaN becomes any integer, and its power of two, times a mantissa that is NaN, is NaN again
    power = ((n.to(torch.int64) + EXPONENT_BIAS) << MANTISSA_BITS).view(torch.float64)
    result = exp_over_power_of_two(inside, n) * power
    result.masked_fill_(x < EXP_LOWEST, 0.0)
    return result.masked_fill_(x > EXP_HIGHEST, math.inf)


def log(x: Tensor) -> Tensor:
    """Return ln(x) of numbers that are above 2^-1022 and finite, float64 of the same shape.

    NaN stays NaN; 0 gives -infinity, infinity infinity, and what is negative NaN.
    """
    bits = x.view(torch.int64)
    # x = 2^n (1 + f) with 1 + f from sqrt(1/2) to sqrt(2)
    mantissa = (bits & (2**MANTISSA_BITS - 1)) | (EXPONENT_BIAS << MANTISSA_BITS)
    is_upper = (mantissa >= SQRT2_BITS).to(torch.int64)
    n = ((bits >> MANTISSA_BITS) & 2047) - EXPONENT_BIAS + is_upper
    f = (mantissa - (is_upper << MANTISSA_BITS)).view(torch.float64) - 1.0
    result: Tensor = log_of_parts(f, n.to(torch.float64))
    result.masked_fill_(x == 0, -math.inf)
    result.masked_fill_(x == math.inf, math.inf)
    return result.masked_fill_((x < 0) | x.isnan(), math.nan)


def log1p(x: Tensor) -> Tensor:
    """Return ln(1 + x) of finite x > -1, float64 of the same shape, in full for small x as well.

    The error of 1 + x is made up for by a quotient: Kahan, in the manual of the HP-15C (1982).
    """
    whole = 1.0 + x
    taken = whole - 1.0
    return torch.where(taken == 0, x, log(whole) * (x / taken))

"""exp and log1p of numpy's arrays, to the bits that `elementary` gives for tensors.

numpy's own exp differs between instruction sets, its log1p between C libraries. What only reads
predictions need not load torch for this.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

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

Floats = npt.NDArray[np.float64]


def exp(x: Floats) -> Floats:
    """Return e^x, of the same shape; 0 below -708, infinity above 709, NaN stays NaN."""
    inside = np.clip(x, EXP_LOWEST, EXP_HIGHEST)
    n = np.rint(inside * LOG2_E)
    with np.errstate(invalid="ignore"):  # NaN becomes any integer; the product is NaN all the same
        whole = n.astype(np.int64)
    power = ((whole + EXPONENT_BIAS) << MANTISSA_BITS).view(np.float64)
    result = exp_over_power_of_two(inside, n) * power
    return np.where(x < EXP_LOWEST, 0.0, np.where(x > EXP_HIGHEST, np.inf, result))


def log1p(x: Floats) -> Floats:
    """Return ln(1 + x) of finite x >= 0, of the same shape; NaN stays NaN."""
    whole = 1.0 + x
    taken = whole - 1.0
    is_tiny = taken == 0
    return np.where(is_tiny, x, _log(whole) * (x / np.where(is_tiny, 1.0, taken)))


def _log(x: Floats) -> Floats:
    bits = x.view(np.int64)
    mantissa = (bits & (2**MANTISSA_BITS - 1)) | (EXPONENT_BIAS << MANTISSA_BITS)
    is_upper = (mantissa >= SQRT2_BITS).astype(np.int64)
    n = ((bits >> MANTISSA_BITS) & 2047) - EXPONENT_BIAS + is_upper
    f = (mantissa - (is_upper << MANTISSA_BITS)).view(np.float64) - 1.0
    return log_of_parts(f, n.astype(np.float64))

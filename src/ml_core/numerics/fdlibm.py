"""The arithmetic of exp and log, the same for numpy's arrays and torch's tensors.

Method and coefficients are those of Sun's fdlibm, e_exp.c and e_log.c (1993). One rounding per
operation, in a fixed order: neither numpy nor torch fuses a product with a sum of another call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    Array = TypeVar("Array", Tensor, npt.NDArray[np.float64])

LN2_HIGH = float.fromhex("0x1.62e42fee00000p-1")  # 32 bits of ln 2: n * LN2_HIGH is exact
LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
LOG2_E = float.fromhex("0x1.71547652b82fep+0")
SQRT2_BITS = 0x3FF6A09E667F3BCD  # of the float
MANTISSA_BITS, EXPONENT_BIAS = 52, 1023
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


def exp_over_power_of_two(x: Array, n: Array) -> Array:
    """Return e^x / 2^n, where n is x / ln 2 rounded to a whole number."""
    high = x - n * LN2_HIGH
    low = n * LN2_LOW
    r = high - low  # within ±ln(2) / 2
    square = r * r
    c = r - square * _polynomial(square, _EXP)
    return 1.0 - ((low - (r * c) / (2.0 - c)) - high)


def log_of_parts(f: Array, n: Array) -> Array:
    """Return ln(2^n (1 + f)), where 1 + f lies from sqrt(1/2) to sqrt(2)."""
    s = f / (2.0 + f)
    square = s * s
    half = f * f * 0.5
    rest = s * (half + square * _polynomial(square, _LOG))
    return n * LN2_HIGH - ((half - (rest + n * LN2_LOW)) - f)


def _polynomial(x: Array, coefficients: tuple[float, ...]) -> Array:
    """Return c0 + x (c1 + x (c2 + ...))."""
    value = x * coefficients[-1] + coefficients[-2]
    for coefficient in reversed(coefficients[:-2]):
        value = value * x + coefficient
    return value

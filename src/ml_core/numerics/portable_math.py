"""Cosine and power of Python floats, to the same bits on every machine.

`math.cos` and `**` come from the C library, whose last bits differ between versions; products and
sums of Python floats are IEEE operations with one rounding each.
"""

from __future__ import annotations

import math

# Sun's fdlibm (1993), k_cos.c and k_sin.c: the Taylor series, adjusted to |x| <= pi / 4.
_COS = (
    4.16666666666666019037e-02, -1.38888888888741095749e-03, 2.48015872894767294178e-05,
    -2.75573143513906633035e-07, 2.08757232129817482790e-09, -1.13596475577881948265e-11,
)  # fmt: skip
_SIN = (
    -1.66666666666666324348e-01, 8.33333333332248946124e-03, -1.98412698298579493134e-04,
    2.75573137070700676789e-06, -2.50507602534068634195e-08, 1.58969099521155010221e-10,
)  # fmt: skip
# pi / 2 in two parts; n times the first is exact for |n| < 2^20.
_HALF_PI_HIGH, _HALF_PI_LOW = 1.57079632673412561417e00, 6.07710050650619224932e-11


def cos(x: float) -> float:
    """Return the cosine of |x| < 10^6 radians, to 2^-52."""
    assert abs(x) < 1e6, f"cos of {x}: the reduction to ±pi / 4 is exact up to 10^6 only"
    turns = round(x / (math.pi / 2))
    rest = (x - turns * _HALF_PI_HIGH) - turns * _HALF_PI_LOW
    square = rest * rest
    cosine = 1.0 - (0.5 * square - square * square * _polynomial(square, _COS))
    sine = rest + rest * square * _polynomial(square, _SIN)
    return (cosine, -sine, -cosine, sine)[turns % 4]


def power(base: float, exponent: int) -> float:
    """Return base^exponent of a whole exponent >= 0, by squaring; relative error < exponent / 2^53.

    The result is 0 where it is too small for a float.
    """
    assert exponent >= 0, f"exponent {exponent} must be at least 0"
    result = 1.0
    while exponent:
        if exponent & 1:
            result *= base
        base *= base
        exponent >>= 1
    return result


def _polynomial(x: float, coefficients: tuple[float, ...]) -> float:
    """Return c0 + x (c1 + x (c2 + ...))."""
    value = 0.0
    for coefficient in reversed(coefficients):
        value = value * x + coefficient
    return value

"""Rounding of the factors of a product, so that its sums come out the same in any order.

A factor is rounded to 22 bits below its largest magnitude: to multiples q of a power of two, its
unit, with |q| <= 2^21. Products of two such factors are multiples of the product of their units,
and up to 2,048 of them add up to 2^53 at most. float64 holds each of these sums exactly, so there
is no rounding left that could depend on the order, the number of threads, fused operations or the
library. The idea is that of Demmel and Nguyen, Fast reproducible floating-point summation (ARITH
2013), and of Ozaki et al., Error-free transformations of matrix multiplication (2012).
"""

from __future__ import annotations

import torch
from torch import Tensor

MAX_TERMS = 2048  # 2 * 21 + log2(2048) = 53, the bits of float64
FACTOR_BITS = 21
# Adding 1.5 * 2^23 units to what is within 2^21 of them pushes the bits below the unit out of a
# float32, rounded to nearest; taking it away again is exact.
_ANCHOR = 1.5 * 2.0**23 * 2.0 ** (1 - FACTOR_BITS)
_SMALLEST = 2.0**-60  # factors whose largest is below have the unit of this one: 2^-80
_EXPONENT = 0x7F800000  # where float32 keeps it


def leading_power(x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Return the largest power of two that is not above the largest |x| over `dim`, float32.

    The dimensions stay, with size 1. It is at least 2^-60, and infinite where x is or holds NaN.
    """
    highest = torch.maximum(x.amax(dim, keepdim=True), x.amin(dim, keepdim=True).neg_())
    bits = highest.clamp_min_(_SMALLEST).view(torch.int32)
    return bits.bitwise_and_(_EXPONENT).view(torch.float32)


def round_below(x: Tensor, power: Tensor) -> Tensor:
    """Return float32 `x` rounded to multiples of 2^-20 * `power`, which is from `leading_power`.

    |x| must be below 2 * power; `power` is broadcast. Everything is NaN where it is infinite.
    """
    anchor = power * _ANCHOR
    return (x + anchor).sub_(anchor)


def pieces(terms: int) -> list[slice]:
    """Return the equal pieces, of 2,048 at most, that a sum of `terms` products is cut into."""
    num_pieces = max(1, -(-terms // MAX_TERMS))
    size = -(-terms // num_pieces)
    return [slice(start, start + size) for start in range(0, max(terms, 1), max(size, 1))]


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """Return the product of rounded float64 `a` (M, K) and `b` (K, N), float64.

    The pieces of a longer sum are added one after the other. A sum that is zero has either sign:
    whoever keeps it adds 0.
    """
    first, *others = pieces(a.shape[1])
    total = a[:, first] @ b[first]
    for piece in others:
        total += a[:, piece] @ b[piece]
    return total

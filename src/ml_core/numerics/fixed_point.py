"""Float32 numbers as integers: sums that have the same bits in whatever order they are added.

A number is rounded once to a multiple of 2**-36, to even where two are as near; from there on only
integers are added, and addition of integers is associative. The total is rounded once to float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

FRACTION_BITS = 36
UNITS = float(1 << FRACTION_BITS)  # a power of two, so that multiplying by it rounds nothing
# A term is smaller than 2**16 and a sum has at most 2**10 of them: |sum| < 2**62, which int64
# holds with a bit to spare.
LARGEST = float(1 << 16)
MAX_TERMS = 1 << 10
# Numbers worked on at a time on a CPU, so that a cache still holds what was just made of them.
# Measured from 4,096 to 262,144: fewer are slower, since each call costs a microsecond.
PIECE = 131_072


def on_grid(value: float) -> float:
    """Return `value` as a multiple of 2**-36; sums of such are exact as long as they are < 2**17.

    Python's floats have 53 bits: 36 behind the point, 17 before it. NaN and infinity stay.
    """
    return to_units(value) / UNITS if abs(value) < LARGEST else value


def to_units(value: float) -> int:
    """Return the nearest number of units of 2**-36, to even where two are as near."""
    return round(value * UNITS)


def fits(values: Tensor) -> bool:
    """Return whether every one of `values` may be a term: finite and smaller than `LARGEST`."""
    # a norm bounds every number and is read twice as fast as their extremes
    if float(torch.linalg.vector_norm(values)) < LARGEST:
        return True
    low, high = torch.aminmax(values)
    return float(high) < LARGEST and float(low) > -LARGEST  # False for NaN


class FixedPoint:
    """Turns float32 values (n,) into int64 units and back, n at most `size`, in its own scratch."""

    def __init__(self, size: int, device: torch.device) -> None:
        self._floats = torch.empty(size, dtype=torch.float32, device=device)
        self._units = torch.empty(size, dtype=torch.int64, device=device)

    def units_of(self, values: Tensor, out: Tensor | None = None) -> Tensor:
        """Return `values` in units, int64 (n,): in `out`, or in scratch until the next call."""
        scaled = self._floats[: len(values)]
        torch.mul(values, UNITS, out=scaled)
        scaled.round_()  # to even at ties
        units = self._units[: len(values)] if out is None else out
        return units.copy_(scaled)

    def values_of(self, units: Tensor, out: Tensor) -> Tensor:
        """Put what `units` stand for, rounded to float32 (n,), into `out`.

        No value can be subnormal, so the multiplication rounds nothing a second time.
        """
        values = self._floats[: len(units)]
        values.copy_(units)
        return torch.mul(values, 1.0 / UNITS, out=out)


def round_(values: Tensor) -> None:
    """Round `values` in place as `units_of` and `values_of` would: a sum of one term.

    From 2**24 units on a float32 is a whole number of them, so that nothing is rounded there.
    """
    values.mul_(UNITS).round_().mul_(1.0 / UNITS)
    values.add_(0.0)  # integers know no -0.0

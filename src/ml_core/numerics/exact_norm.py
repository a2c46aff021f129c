"""L2 norms by integer sums: the same bits in any order, on any number of threads or devices."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

_PIECE = 1 << 16  # elements at a time: half a megabyte as integers
_SUM_BITS = 62  # of int64, whose sign and one bit more are left alone


def exact_norms(tensors: Sequence[Tensor]) -> list[float]:
    """Return the L2 norm of each of `tensors`, NaN or infinite where an element is.

    Squares of float32 are exact in float64. They are scaled by a power of two and rounded to
    integers of as many bits as their sum leaves, 40 for 4 million elements: a square counts to
    within 2^-39 of the largest, and the rest is exact but for one root.
    """
    if not tensors:
        return []
    # they travel from the device once, together
    highest = torch.stack([_highest(tensor) for tensor in tensors]).tolist()
    norms = [math.nan if math.isnan(high) else high for high in highest]  # 0 and inf as well
    where = [i for i, high in enumerate(highest) if high > 0 and math.isfinite(high)]
    if not where:
        return norms
    scales = [_scale(tensors[i].numel(), highest[i]) for i in where]
    sums = [_square_sum(tensors[i], scale) for i, scale in zip(where, scales, strict=True)]
    squares = torch.stack(sums).tolist()
    for i, scale, square in zip(where, scales, squares, strict=True):
        norms[i] = math.sqrt(square) / scale
    return norms


def joint_norm(norms: Iterable[float]) -> float:
    """Return the norm of vectors laid end to end, from the norm of each."""
    return math.sqrt(math.fsum(norm * norm for norm in norms))


def _highest(tensor: Tensor) -> Tensor:
    return tensor.detach().abs().amax() if tensor.numel() else tensor.new_zeros(())


def _scale(num: int, highest: float) -> float:
    """Return the power of two that leaves `num` squares in a sum of 62 bits."""
    bits = (_SUM_BITS - math.ceil(math.log2(num))) // 2
    return math.ldexp(1.0, min(bits, 30) - math.frexp(highest)[1])


def _square_sum(tensor: Tensor, scale: float) -> Tensor:
    """Return the sum of the squares of scale * tensor, each rounded to a whole number, 0-d."""
    total = torch.zeros((), dtype=torch.int64, device=tensor.device)
    for piece in torch.split(tensor.detach().reshape(-1), _PIECE):
        scaled = piece.to(torch.float64) * scale
        total += (scaled * scaled).round_().to(torch.int64).sum()
    return total

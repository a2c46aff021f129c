"""Which taps of a strided kernel reach which pixels of its input."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """Along one axis: the pixels that meet the same taps, and where their windows lie.

    The gradient at pixel number j of `pixels` is the sum over `taps`, in reverse, of the gradients
    at `origin` + j and after, counted with the zeros of `frame` in front.
    """

    pixels: slice
    taps: slice
    count: int  # pixels
    origin: int


def frame(length: int, kernel: int, stride: int, padding: int) -> tuple[int, int]:
    """Return (zeros in front of the outputs, outputs and zeros from there on) that phases look at.

    A pixel has up to 1 + lead taps, and so many outputs less one lie before its own.
    """
    lead = (kernel - 1) // stride
    return lead, (length - 1 + padding) // stride + 1


def phases(length: int, kernel: int, stride: int, padding: int) -> list[Phase]:
    """Return the phases of an axis of `length` pixels that have a tap at all.

    Output o sees pixel stride * o - padding + k through tap k. So pixel a + stride * j meets the
    taps k0, k0 + stride, ... with k0 = (a + padding) mod stride, and tap k0 comes from output
    j + (a + padding - k0) / stride.
    """
    lead, _ = frame(length, kernel, stride, padding)
    found = []
    for first in range(min(stride, length)):
        shift, tap = divmod(first + padding, stride)
        num_taps = len(range(tap, kernel, stride))
        if num_taps:
            found.append(
                Phase(
                    pixels=slice(first, None, stride),
                    taps=slice(tap, None, stride),
                    count=len(range(first, length, stride)),
                    origin=lead + shift - (num_taps - 1),
                )
            )
    return found

"""A model that sees each patch as it lies, where it would average over eight orientations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

_AVERAGING = "average_orientations"  # the switch of a model that sees each patch eight times


@contextmanager
def one_orientation(model: nn.Module) -> Iterator[bool]:
    """Let `model` see each patch as it lies; yields whether it would have averaged orientations."""
    averaging = [m for m in model.modules() if getattr(m, _AVERAGING, False) is True]
    for module in averaging:
        setattr(module, _AVERAGING, False)
    try:
        yield bool(averaging)
    finally:
        for module in averaging:
            setattr(module, _AVERAGING, True)

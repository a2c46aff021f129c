"""The precisions a model can compute in, and the context that puts one of them in force."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

# fp32: torch's own float32; bf16: autocast, products in bfloat16; exact: order-free (see `exact`)
PRECISIONS = ("fp32", "bf16", "exact")


def arithmetic(precision: str, device_type: str) -> contextlib.AbstractContextManager[None]:
    """Return the context in which a forward pass and its loss compute in `precision`.

    What was computed inside knows its own backward pass, which may come after it. In "exact" every
    function that is not known to give the same bits everywhere raises ConfigError. Raises
    ValueError for another precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; allowed: {', '.join(PRECISIONS)}")
    if precision == "bf16":
        return torch.autocast(device_type, dtype=torch.bfloat16)
    if precision == "exact":
        return _exactly()
    return contextlib.nullcontext()


@contextlib.contextmanager
def _exactly() -> Iterator[None]:
    from ml_core.numerics.exact.mode import ExactMode  # for those who never ask, import is quicker

    with ExactMode():
        yield

"""The precisions a model can compute in, and the context that puts one of them in force."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

# fp32: torch's own float32; bf16: autocast, products in bfloat16; exact: order-free (see `exact`)
PRECISIONS = ("fp32", "bf16", "exact")

# For a forward pass that is measured, nothing else: no training and no score is computed in them.
# fp16: autocast, whose gradients would need scaling; tf32: float32 of which a GPU's products use
# 10 of the 23 bits (torch, "CUDA semantics", TensorFloat-32).
MEASURED_PRECISIONS = ("tf32", "fp16")


def arithmetic(precision: str, device_type: str) -> contextlib.AbstractContextManager[None]:
    """Return the context in which a forward pass and its loss compute in `precision`.

    What was computed inside knows its own backward pass, which may come after it. In "exact" every
    function that is not known to give the same bits everywhere raises ConfigError. Raises
    ValueError for another precision.
    """
    allowed = PRECISIONS + MEASURED_PRECISIONS
    if precision not in allowed:
        raise ValueError(f"unknown precision {precision!r}; allowed: {', '.join(allowed)}")
    if precision in ("bf16", "fp16"):
        dtype = torch.bfloat16 if precision == "bf16" else torch.float16
        return torch.autocast(device_type, dtype=dtype)
    if precision == "tf32":
        return _in_tf32()
    if precision == "exact":
        return _exactly()
    return contextlib.nullcontext()


@contextlib.contextmanager
def _exactly() -> Iterator[None]:
    from ml_core.numerics.exact.mode import ExactMode  # for those who never ask, import is quicker

    with ExactMode():
        yield


@contextlib.contextmanager
def _in_tf32() -> Iterator[None]:
    """Let the products of a GPU be TF32 while inside; a CPU is not concerned.

    By the older of torch's two interfaces, as everywhere here: reading it raises once the other has
    been written to.
    """
    matmul, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = convolutions

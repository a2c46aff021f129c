"""The ways to compute that are measured beside one another, by torch alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from gpu_checks.asked import Asked
from ml_core.models import build_model

# autocast type, and whether float32 products may be TF32 (torch: convolutions may by default)
PRECISIONS: dict[str, tuple[torch.dtype | None, bool]] = {
    "fp32": (None, False),
    "tf32": (None, True),
    "bf16": (torch.bfloat16, False),
    "fp16": (torch.float16, False),
}


@contextlib.contextmanager
def computing_in(precision: str, device: torch.device) -> Iterator[None]:
    """Let a model compute in `precision` while inside, on this device and in this process."""
    dtype, tf32 = PRECISIONS[precision]
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32
        with torch.autocast(device.type, dtype=dtype) if dtype else contextlib.nullcontext():
            yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def default_cnn(asked: Asked, *, channels_last: bool = True) -> nn.Module:
    """Return the default CNN on the device, with the same weights each time."""
    torch.manual_seed(0)
    model: nn.Module = build_model("cnn", **({"widths": [8]} if asked.is_tiny else {}))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return model.to(asked.device).to(memory_format=layout)


def patches(asked: Asked, num: int) -> Tensor:
    """Return random patches (num, 3, 96, 96), uint8, as the loader has them: channels last."""
    pixels = torch.randint(0, 256, (num, 96, 96, 3), dtype=torch.uint8, device=asked.device)
    return pixels.permute(0, 3, 1, 2)


def graph_of(call: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Return what repeats `call` by one launch, on the same memory: its result is always the same.

    As torch's "CUDA semantics" has it: warmed up on another stream, then recorded.
    """
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()

    def replay(_kept: object = call) -> Tensor:
        """Launch it; what was recorded points into memory that `call` keeps from being freed."""
        graph.replay()
        return result

    return replay

"""What the device can do at most: by a large product and a large copy."""

from __future__ import annotations

import torch

from ml_core.data.free_memory import free_memory_of
from ml_core.numerics.arithmetic import arithmetic
from ml_core.pipeline.benchmarking.figures import Peak, Precision
from ml_core.pipeline.benchmarking.measuring.device_faults import faults_told
from ml_core.pipeline.benchmarking.measuring.timing import rate_of

# A product of n x n takes 2 n^3 operations on 3 n^2 numbers: from here on its size is no limit to
# its rate, and one takes milliseconds on a GPU, tenths of a second on two cores.
GPU_SIZE, CPU_SIZE = 8192, 2048
# Beyond every cache: those of large servers hold up to 1 GB, those of GPUs some 50 MB.
COPY_BYTES = 1 << 30
MOST_OF_FREE = 0.25  # two copies of it are held
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}  # float32 in the others


def measure_peak(device: torch.device, precision: Precision, *, budget_s: float) -> Peak:
    """Return the rates of a product in `precision` and of a copy, with the threads there are.

    `budget_s` for each; the upper quartile of the pieces counts, as other work on the machine can
    only take away. For "exact", which trades speed for equal bits, the product is in float32: that
    is what the device could do. Bytes are counted where they are read and where they are written.
    Raises ConfigError where the device gives up.
    """
    with faults_told("what shows the device's peak", device):
        return Peak(
            flops=_product_rate(device, precision, budget_s), bytes=_copy_rate(device, budget_s)
        )


def _product_rate(device: torch.device, precision: Precision, budget_s: float) -> float:
    size = CPU_SIZE if device.type == "cpu" else GPU_SIZE
    dtype = _DTYPES.get(precision, torch.float32)
    # random numbers: of zeros a GPU makes products faster, since it draws less power
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(left)

    def multiply() -> int:
        torch.mm(left, right, out=out)
        return 2 * size**3

    context = "tf32" if precision == "tf32" else "fp32"
    with torch.inference_mode(), arithmetic(context, device.type):
        return rate_of(multiply, device=device, budget_s=budget_s).high


def _copy_rate(device: torch.device, budget_s: float) -> float:
    free = free_memory_of(device)
    num_bytes = COPY_BYTES if free is None else min(COPY_BYTES, int(MOST_OF_FREE * free))
    source = torch.ones(num_bytes // 4, dtype=torch.int32, device=device)
    target = torch.empty_like(source)

    def copy() -> int:
        target.copy_(source)
        return 2 * source.nbytes

    return rate_of(copy, device=device, budget_s=budget_s).high

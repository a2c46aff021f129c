"""What a device or its memory does to a measurement, in words."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import torch

from ml_core.errors import ConfigError

# Of torch's CPU allocator, of CUDA's libraries where their own workspace does not fit, and of
# oneDNN, which names no reason: its primitives fail for want of memory and for nothing else here.
_NO_MEMORY = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|_ALLOC_FAILED"
    r"|could not create a (?:memory|primitive)|could not execute a primitive",
    re.IGNORECASE,
)
_GPU_LOST = re.compile(
    r"CUDA error|CUDA driver|cuDNN error|CUDNN_STATUS|CUBLAS_STATUS|HIP error"
    r"|No CUDA GPUs are available|Found no NVIDIA driver"
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` says that memory, of the device or of the machine, has ended."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(_NO_MEMORY.search(str(error)))


def is_device_error(error: BaseException) -> bool:
    """Return whether `error` is the device's own: it is gone, or met an error it cannot leave."""
    return isinstance(error, RuntimeError) and bool(_GPU_LOST.search(str(error)))


def told(error: BaseException) -> str:
    """Return the first line of `error`, without torch's hints for those who debug kernels."""
    lines = str(error).strip().splitlines()
    return lines[0].strip().rstrip(".") if lines else type(error).__name__


@contextlib.contextmanager
def faults_told(what: str, device: torch.device) -> Iterator[None]:
    """Raise as ConfigError what `device` or the memory does while `what` is measured."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise ConfigError(
                f"{what} does not fit into the memory of {device} ({told(error)}). Set "
                "data.batch_size lower, or give more memory."
            ) from error
        if is_device_error(error):
            raise ConfigError(gone(device, told(error))) from error
        raise


def gone(device: torch.device | str, words: str) -> str:
    """Return that `device` no longer answers, with the `words` of torch, and what to do."""
    return (
        f"{device} does not answer any more while it is measured; torch says: {words}. See whether "
        "nvidia-smi lists it, then measure again, or with --set training.device=cpu."
    )

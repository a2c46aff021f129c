"""What a check is asked for: on which device, with which patches, and until when."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from ml_core.reproducibility.preflight import prepare_numerics


class Asked:
    """The question's own terms; making it starts the device as `ml-core train` does at `fast`.

    `device` with its number; `data_dir` None where there are no real patches; `is_tiny` asks for
    sizes that a CPU does in a second.
    """

    def __init__(
        self, device: str, *, data_dir: Path | None, scratch: Path, is_tiny: bool, ends_at: float
    ) -> None:
        prepare_numerics("fast", None, device)
        self.device = torch.device(device)
        if self.device.type == "cuda" and self.device.index is None:
            self.device = torch.device("cuda", torch.cuda.current_device())
        self.data_dir = data_dir
        self.scratch = scratch
        self.is_tiny = is_tiny
        self.ends_at = ends_at

    @property
    def left_s(self) -> float:
        """Seconds in which something may still be begun."""
        return self.ends_at - time.monotonic()

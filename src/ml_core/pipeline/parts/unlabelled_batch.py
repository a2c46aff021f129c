"""A batch of patches whose truth nobody has told, as the inference path takes it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch


class UnlabelledBatch(NamedTuple):
    """What `ml_core.evaluation.predictor` needs of a batch, without labels."""

    images: torch.Tensor  # (B, 3, H, W) uint8
    labels: None
    index: torch.Tensor  # type: ignore[assignment]  # (B,) long, hides tuple.index


def unlabelled(patches: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64]) -> UnlabelledBatch:
    """Return patches (B, H, W, 3) as the batch of `rows` (B,)."""
    images = torch.from_numpy(np.ascontiguousarray(patches)).permute(0, 3, 1, 2)
    return UnlabelledBatch(images, None, torch.from_numpy(rows))

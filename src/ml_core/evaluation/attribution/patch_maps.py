"""The maps of one model on some patches, by every method that it has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ml_core.evaluation.attribution.grad_cam import activation_maps
from ml_core.evaluation.attribution.last_map import NoLastMap
from ml_core.evaluation.attribution.occlusion import occlusion_maps
from ml_core.metrics.arrays import Floats, Ints

ReadPatches = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.uint8]]

CAMS = ("grad_cam", "hires_cam")
METHODS = (*CAMS, "occlusion")
_BLOCK = 64  # patches read and explained at once


@dataclass(frozen=True)
class PatchMaps:
    """`maps` (N, h, w) by method, above 0 what speaks for the class called; or `why_not` by method.

    `logit` (N,) are the log-odds of tumour; for `layer` and `averages` see `ActivationMaps`.
    """

    maps: dict[str, Floats]
    why_not: dict[str, str]
    logit: Floats
    layer: str = ""
    averages: bool = False


@dataclass(frozen=True)
class Explainer:
    """How patches are explained, the same for each model: see `measure_saliency`."""

    read: ReadPatches
    grid: int
    device: torch.device | str
    batch_size: int
    progress: Callable[[int], object] | None

    def explain(self, model: nn.Module, index: Ints, lenders: Ints) -> PatchMaps:
        """Return the maps of `model` on patches `index` (N,), covered by those of `lenders` (N,).

        They are read by blocks.
        """
        blocks = []
        for start in range(0, len(index), _BLOCK):
            rows = slice(start, start + _BLOCK)
            patches, covers = self.read(index[rows]), self.read(lenders[rows])
            blocks.append(self._explain_block(model, patches, covers))
            if self.progress is not None:
                self.progress(len(patches))
        first = blocks[0]
        return PatchMaps(
            {name: np.concatenate([block.maps[name] for block in blocks]) for name in first.maps},
            first.why_not,
            np.concatenate([block.logit for block in blocks]),
            first.layer,
            first.averages,
        )

    def _explain_block(
        self, model: nn.Module, patches: npt.NDArray[np.uint8], covers: npt.NDArray[np.uint8]
    ) -> PatchMaps:
        asked: Any = {"device": self.device, "batch_size": self.batch_size}
        covered = occlusion_maps(model, patches, [covers], grid=self.grid, **asked)
        maps = {"occlusion": covered.maps}
        try:
            cams = activation_maps(model, patches, covered.logit > 0, **asked)
        except NoLastMap as reason:
            return PatchMaps(maps, dict.fromkeys(CAMS, str(reason)), covered.logit)
        maps |= {"grad_cam": cams.grad_cam, "hires_cam": cams.hires_cam}
        return PatchMaps(maps, {}, covered.logit, cams.layer, cams.averages)

"""Patches with their maps, to be looked at."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from ml_core.evaluation.attribution.occlusion import occlusion_maps
from ml_core.evaluation.attribution.patch_maps import CAMS, Explainer, PatchMaps
from ml_core.evaluation.predictions import sigmoid
from ml_core.metrics.arrays import Floats, Ints

EXAMPLE_GRID = 12  # windows along a side: 8 pixels of 96, about a nucleus
NUM_LENDERS = 2  # patches that cover a window in turn, so that less of the map is the lender's
_DIGITS = 4  # of the values of a map: more than a picture of it shows


def saliency_examples(
    model: nn.Module,
    explainer: Explainer,
    trained: PatchMaps,
    index: Ints,
    y_true: Ints,
    num_examples: int,
) -> list[dict[str, Any]]:
    """Return the first of `index` (n,), of both classes in turn, with their maps by method.

    `trained` are the maps of `model` on all of them, of which the CAMs are taken; occlusion is done
    again, finer. "y_prob" is the model's own, without calibration; a map that the model does not
    have is None.
    """
    rank = np.empty(len(index), np.int64)
    for label in (0, 1):
        rank[y_true == label] = np.arange(int((y_true == label).sum()))
    chosen = np.lexsort((-y_true, rank))[:num_examples]  # a tumour first
    if len(chosen) == 0:
        return []
    num_lenders = min(NUM_LENDERS, len(index) - 1)
    patches = explainer.read(index[chosen])
    occlusion = occlusion_maps(
        model,
        patches,
        [explainer.read(np.roll(index, 1 + i)[chosen]) for i in range(num_lenders)],
        grid=min(EXAMPLE_GRID, *patches.shape[1:3]),
        device=explainer.device,
        batch_size=explainer.batch_size,
    ).maps
    return [
        {
            "index": int(index[row]),
            "y_true": int(y_true[row]),
            "y_prob": float(sigmoid(trained.logit[row])),
            **{name: _rounded(trained.maps[name][row]) if name in trained.maps else None
               for name in CAMS},
            "occlusion": _rounded(occlusion[place]),
        }
        for place, row in enumerate(chosen)
    ]  # fmt: skip


def _rounded(values: Floats) -> list[list[float]]:
    return [[float(f"{value:.{_DIGITS}g}") for value in row] for row in values]

"""What a model's answer loses when a part of the patch is covered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ml_core.evaluation.predictor import evaluating
from ml_core.metrics.arrays import Floats

Patches = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class OcclusionMaps:
    """`maps` (N, grid, grid): the log-odds of the class called, less those with the window covered.

    Above 0 what speaks for that class. `logit` (N,) are the log-odds of tumour of whole patches.
    """

    maps: Floats
    logit: Floats


def occlusion_maps(
    model: nn.Module,
    patches: Patches,
    covers: Sequence[Patches],
    *,
    grid: int = 6,
    device: torch.device | str = "cpu",
    batch_size: int = 256,
) -> OcclusionMaps:
    """Return what covering each of `grid` x `grid` windows changes (Zeiler and Fergus, ECCV 2014).

    A window of `patches` (N, H, W, 3) is covered by the same window of each of `covers`, of the
    same shape, in turn, and the changes are averaged. Give other patches: then it is what the model
    would lose if other tissue lay there (marginal sampling, Zintgraf et al., ICLR 2017). A flat
    colour is something that no patch has and may itself be taken for an answer.

    Windows do not overlap, so each pixel counts once. The model is asked as it is used, with all
    orientations if it averages them, but in float32: one window changes less than bf16 can hold.
    That is 1 + len(covers) grid**2 patches through the model for each patch.

    Where `grid` does not divide a side, windows differ by a pixel. Raises ValueError for sides of
    fewer pixels than `grid`.
    """
    if min(patches.shape[1:3]) < grid:
        raise ValueError(
            f"patches of {patches.shape[1]} x {patches.shape[2]} pixels have no {grid} windows "
            "along a side; allowed are grids up to the shorter side."
        )
    num_views = 1 + len(covers) * grid**2
    together = max(1, batch_size // num_views)  # patches in one batch, with all their views
    log_odds = np.empty((len(patches), num_views))
    with evaluating(model), torch.inference_mode():
        for start in range(0, len(patches), together):
            rows = range(start, min(start + together, len(patches)))
            views = np.concatenate(
                [_views(patches[row], [each[row] for each in covers], grid) for row in rows]
            )
            log_odds[rows] = _log_odds(model, views, device, batch_size).reshape(-1, num_views)
    whole = log_odds[:, 0]
    covered = log_odds[:, 1:].reshape(len(patches), len(covers), grid, grid).mean(axis=1)
    sign = np.where(whole > 0, 1.0, -1.0)[:, None, None]
    return OcclusionMaps(sign * (whole[:, None, None] - covered), whole)


def _views(patch: Patches, covers: Sequence[Patches], grid: int) -> Patches:
    """Return the patch, then for each cover the patch with each window covered, row by row."""
    views = np.repeat(patch[None], 1 + len(covers) * grid**2, axis=0)
    rows, columns = (_pieces(length, grid) for length in patch.shape[:2])
    windows = [(row, column) for row in rows for column in columns]
    for number, view in enumerate(views[1:]):
        cover, window = covers[number // len(windows)], windows[number % len(windows)]
        view[window] = cover[window]
    return views


def _pieces(length: int, num: int) -> list[slice]:
    edges = [round(i * length / num) for i in range(num + 1)]
    return [slice(start, stop) for start, stop in pairwise(edges)]


def _log_odds(
    model: nn.Module, patches: Patches, device: torch.device | str, batch_size: int
) -> Floats:
    logits = []
    for start in range(0, len(patches), batch_size):
        images = torch.from_numpy(patches[start : start + batch_size]).permute(0, 3, 1, 2)
        logits.append(model(images.to(device)).float())
    both = torch.cat(logits).double().cpu().numpy()  # (N, 2)
    log_odds: Floats = both[:, 1] - both[:, 0]
    return log_odds

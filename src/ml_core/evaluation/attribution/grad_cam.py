"""Maps of what in the last convolutional map the answer was made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ml_core.evaluation.attribution.last_map import NoLastMap, find_last_map, tapped_map
from ml_core.evaluation.attribution.one_orientation import one_orientation
from ml_core.evaluation.predictor import evaluating
from ml_core.metrics.arrays import Floats


@dataclass(frozen=True)
class ActivationMaps:
    """Maps (N, h, w) of N patches at the resolution of `layer`: above 0 what speaks for the class.

    `averages` says that the model averages orientations; these maps are of one, the patch as it
    lies.
    """

    layer: str
    grad_cam: Floats
    hires_cam: Floats
    averages: bool


def activation_maps(
    model: nn.Module,
    patches: npt.NDArray[np.uint8],
    called: npt.NDArray[np.bool_],
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 256,
) -> ActivationMaps:
    """Return Grad-CAM and HiResCAM of `patches` (N, H, W, 3), which go through the model once.

    With A_k the k-th channel of the last map and y the log-odds of the class that is explained,
    tumour where `called` (N,), else normal:

    grad_cam   ReLU(sum_k mean(dy/dA_k) A_k) (Selvaraju et al., ICCV 2017, eq. 1 and 2).
    hires_cam  sum_k dy/dA_k A_k, elementwise (Draelos and Carin, arXiv 2011.08891).

    Grad-CAM averages the gradient over the map before it looks where, so what the layers behind the
    map do by position, say pool the centre apart, it cannot show. HiResCAM does: its sum is y
    less the bias where those layers are linear or pick the highest.

    The model's mode, gradients and hooks are as they were afterwards. Raises NoLastMap for a model
    without a last convolutional map, or whose logits do not depend on it.
    """
    parts = []
    with evaluating(model), one_orientation(model) as averages:
        layer = find_last_map(model, _images(patches[:1], device))
        # Whoever calls this within inference_mode() would otherwise get no gradient.
        with torch.inference_mode(False), torch.enable_grad(), tapped_map(model, layer) as maps:
            for start in range(0, len(patches), batch_size):
                batch = slice(start, start + batch_size)
                logits = model(_images(patches[batch], device))
                signs = torch.from_numpy(np.where(called[batch], 1.0, -1.0)).to(logits)
                parts.append(_weighed(maps.pop(), signs * (logits[:, 1] - logits[:, 0]), layer))
                maps.clear()
    grad_cam, hires_cam = (
        torch.cat(side).double().cpu().numpy() for side in zip(*parts, strict=True)
    )
    return ActivationMaps(layer, grad_cam, hires_cam, averages)


def _weighed(activation: Tensor, log_odds: Tensor, layer: str) -> tuple[Tensor, Tensor]:
    """Return Grad-CAM and HiResCAM, (B, h, w) each, of a map (B, C, h, w)."""
    # Patches do not meet in the layers behind the map, so one sum gives the gradient of each.
    (gradient,) = (
        torch.autograd.grad(log_odds.sum(), activation, allow_unused=True)
        if log_odds.requires_grad
        else (None,)
    )
    if gradient is None:
        raise NoLastMap(f"the logits do not depend on {layer}, the last map of the model")
    with torch.no_grad():
        weights = gradient.mean(dim=(2, 3), keepdim=True)  # (B, C, 1, 1)
        grad_cam = torch.relu((weights * activation).sum(dim=1))
        hires_cam = (gradient * activation).sum(dim=1)
    return grad_cam, hires_cam


def _images(patches: npt.NDArray[np.uint8], device: torch.device | str) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(patches)).permute(0, 3, 1, 2).to(device)

"""What the last layer of a model sees of each patch: tapped while the model predicts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ml_core.evaluation.feature_basis import FeatureBasis, fit_basis
from ml_core.evaluation.feature_table import FeatureTable

if TYPE_CHECKING:  # the tables are read without torch
    import torch
    from torch import nn

__all__ = [
    "FeatureBasis",
    "FeatureTable",
    "FeatureTap",
    "fit_basis",
    "last_linear",
    "logit_direction",
    "tapped_features",
]

Floats32 = npt.NDArray[np.float32]

MAX_TAPPED = 4096  # inputs of the last layer: the axes of more take minutes and gigabytes


class FeatureTap:
    """The inputs of a model's last linear layer, patch by patch, in the order of the forwards."""

    def __init__(self) -> None:
        self._calls: list[torch.Tensor] = []  # of the forward that is under way
        self._batches: list[torch.Tensor] = []

    def features(self) -> Floats32:
        """Return what has been tapped, (N, D); raises RuntimeError where the model never ran."""
        import torch

        if not self._batches:
            raise RuntimeError("no feature was tapped: predict inside the `with` block.")
        tapped: Floats32 = torch.cat(self._batches).cpu().numpy()
        return tapped

    def _keep_call(self, layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if inputs[0].ndim != 2:
            raise ValueError(
                f"the last linear layer takes inputs of shape {tuple(inputs[0].shape)}; features "
                "are tapped where it takes one row per patch, (B, D)."
            )
        self._calls.append(inputs[0].detach().float())

    def _begin_forward(self, model: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._calls.clear()

    def _end_forward(self, model: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        import torch

        if not self._calls:
            raise ValueError("the last linear layer had no part in the forward: nothing to tap.")
        # averaged as the orientations' logits are, so that the layer gives the averaged logits
        self._batches.append(torch.stack(self._calls).mean(dim=0))
        self._calls.clear()


@contextmanager
def tapped_features(model: nn.Module) -> Iterator[FeatureTap]:
    """Yield what gathers the input of the last `nn.Linear` while `model` is run in the block.

    A row is the mean over the calls of one forward, so where a model averages orientations the
    layer makes of a row exactly the logits that the model gives. The model's results, weights and
    modes are untouched, and its hooks are gone afterwards, whatever happens. Features stay on the
    model's device until they are asked for: 4 D bytes a patch. Raises ValueError without such a
    layer, where it takes more than MAX_TAPPED inputs, or where it does not see one row per patch.
    """
    tap = FeatureTap()
    layer = last_linear(model)
    if layer.in_features > MAX_TAPPED:
        raise ValueError(
            f"the last linear layer of {type(model).__name__} takes {layer.in_features:,} inputs; "
            f"features are tapped of up to {MAX_TAPPED:,}."
        )
    handles = [
        model.register_forward_pre_hook(tap._begin_forward),
        layer.register_forward_pre_hook(tap._keep_call),
        model.register_forward_hook(tap._end_forward),
    ]
    try:
        yield tap
    finally:
        for handle in handles:
            handle.remove()


def last_linear(model: nn.Module) -> nn.Linear:
    """Return the layer that makes the two logits; raises ValueError where there is none."""
    from torch import nn

    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not layers or layers[-1].out_features != 2:
        found = f"one of {layers[-1].out_features} outputs" if layers else "none"
        raise ValueError(
            f"{type(model).__name__} has no last linear layer of 2 outputs, normal and tumour, but "
            f"{found}: its features cannot be tapped."
        )
    return layers[-1]


def logit_direction(model: nn.Module) -> Floats32:
    """Return the weights (D,) by which the features make the log-odds of tumour, without bias."""
    weight = last_linear(model).weight.detach().float()
    direction: Floats32 = (weight[1] - weight[0]).cpu().numpy()
    return direction

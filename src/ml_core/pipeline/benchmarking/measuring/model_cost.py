"""What a patch costs in a model: arithmetic, and the bytes that its layers hand on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ml_core.models import PatchClassifier, describe_model
from ml_core.numerics.arithmetic import arithmetic


def model_cost(model: PatchClassifier, precision: str) -> dict[str, Any]:
    """Return what `describe_model` does, and "bytes_per_patch": what all layers give, summed.

    Of one patch in a forward pass of training in `precision`; in "exact", whose layers are no
    modules of torch, as in fp32. The model is left in the mode it was in.
    """
    was_training = model.training
    model.train()  # in eval mode some models look at a patch in several orientations
    try:
        cost = describe_model(model)
        cost["bytes_per_patch"] = _result_bytes(model, "bf16" if precision == "bf16" else "fp32")
    finally:
        model.train(was_training)
    return cost


def _result_bytes(model: PatchClassifier, precision: str) -> int:
    found = 0

    def note(_module: nn.Module, _inputs: tuple[Any, ...], result: Any) -> None:
        nonlocal found
        if isinstance(result, Tensor):
            found += result.nbytes

    device = next(model.parameters()).device
    patch = torch.zeros(1, *model.input_shape, dtype=torch.uint8, device=device)
    layers = [module for module in model.modules() if not list(module.children())]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        with torch.no_grad(), arithmetic(precision, device.type):
            model(patch)
    finally:
        for hook in hooks:
            hook.remove()
    return found

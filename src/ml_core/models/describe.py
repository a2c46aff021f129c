"""How large a model is and what one patch costs."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ml_core.models.build import model_spec
from ml_core.models.patch_classifier import PatchClassifier


def describe_model(model: PatchClassifier) -> dict[str, Any]:
    """Return {"name", "num_parameters", "flops_per_patch"}; the model is left as it was.

    FLOPs are those of the matrix products and convolutions of one forward pass, a multiply and an
    add counted as two, as torch.utils.flop_counter does; norms, ReLUs and pooling are not counted.
    """
    # A copy without storage: nothing is computed, and dropout draws no random numbers.
    shadow = copy.deepcopy(model).to("meta")
    patch = torch.zeros(1, *model.input_shape, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        shadow(patch)
    return {
        "name": model_spec(model)["name"],
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "flops_per_patch": counter.get_total_flops(),
    }

"""How large a model is and what one patch costs."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ml_core.models.build import model_spec
from ml_core.models.patch_classifier import PatchClassifier


def describe_model(model: PatchClassifier) -> dict[str, Any]:
    """Return {"name", "num_parameters", "flops_per_patch"}; the model is left as it was.

    FLOPs are those of the matrix products and convolutions of one forward pass, a multiply and an
    add counted as two, as torch.utils.flop_counter does; norms, ReLUs and pooling are not counted.
    """
    # One patch through a copy on the CPU takes milliseconds; without storage, on the device "meta",
    # torch would load its compiler for it. What dropout draws there is drawn by nobody else.
    shadow = copy.deepcopy(model).cpu()
    patch = torch.zeros(1, *model.input_shape)
    with torch.random.fork_rng(devices=[]), _FlopCounter() as counter, torch.no_grad():
        shadow(patch)
    return {
        "name": model_spec(model)["name"],
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "flops_per_patch": counter.num_flops,
    }


class _FlopCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch gives it no types
    """torch's FlopCounterMode without a table by module, and without what makes it slow to begin.

    A mode loads torch's compiler, a second and more, to have itself left out of what is compiled.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # the same
        self.num_flops = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = kwargs or {}
        formula = flop_registry.get(func._overloadpacket)
        if formula is None:  # perhaps made of functions that have one
            with self:
                result = func.decompose(*args, **options)
            if result is not NotImplemented:
                return result
        result = func(*args, **options)
        if formula is not None:
            self.num_flops += formula(*args, **options, out_val=result)
        return result

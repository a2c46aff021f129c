"""An optimizer's state as named tensors and a JSON-able rest, and back to the same bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def on_cpu(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return contiguous clones, as safetensors takes them: it refuses two names for one tensor."""
    layout = torch.contiguous_format
    return {name: t.detach().cpu().clone(memory_format=layout) for name, t in state.items()}


def flatten_optimizer(
    optimizer: torch.optim.Optimizer | None,
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Split an optimizer's state into tensors by name and the JSON-able rest."""
    if optimizer is None:
        return {}, {"param_groups": [], "scalars": {}}
    state = optimizer.state_dict()
    tensors: dict[str, torch.Tensor] = {}
    scalars: dict[str, Any] = {}
    for index, values in state["state"].items():
        for key, value in values.items():
            place = tensors if isinstance(value, torch.Tensor) else scalars
            place[f"{index}.{key}"] = value
    return on_cpu(tensors), {"param_groups": state["param_groups"], "scalars": scalars}


def unflatten_optimizer(
    tensors: Mapping[str, torch.Tensor], rest: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the `state_dict` that `flatten_optimizer` took apart."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in [*tensors.items(), *rest["scalars"].items()]:
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    return {"state": state, "param_groups": rest["param_groups"]}


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Put a checkpoint's state into `optimizer`, each tensor in its parameter's memory format.

    The format matters: kernels that run over strided memory may round differently, and then a
    resumed run would not be the same run.
    """
    optimizer.load_state_dict(state)
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                values[key] = torch.empty_like(parameter).copy_(value)

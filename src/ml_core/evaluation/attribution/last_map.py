"""The last map of a model: the output that still knows where in the patch something was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

_Handles = list[torch.utils.hooks.RemovableHandle]


class NoLastMap(ValueError):
    """The model has no single last convolutional map; the message says why."""


def find_last_map(model: nn.Module, images: Tensor) -> str:
    """Return the name of the module whose output is the last map, found by running `images`.

    That is the module which ends last among those that give (B, C, h, w) of more than one position
    after a convolution: the final block of a residual network, not the 1x1 convolution of its
    shortcut, which comes last among the layers. Raises NoLastMap where there is none, or where the
    convolutions run more than once for a patch, so that no run of them is the last map.
    """
    ended: list[str] = []  # names of maps after the first convolution, in order of their end
    runs: dict[str, int] = {}  # how often each convolution ran
    handles: _Handles = []

    def listen(name: str, module: nn.Module) -> None:
        def on_end(_: nn.Module, __: tuple[Tensor, ...], output: object) -> None:
            if isinstance(module, _ConvNd):
                runs[name] = runs.get(name, 0) + 1
            if runs and _is_map(output):
                ended.append(name)

        handles.append(module.register_forward_hook(on_end))

    for name, module in model.named_modules():
        listen(name, module)
    try:
        with torch.no_grad():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    if not ended:
        raise NoLastMap("the model has no convolution, so no map that knows where in the patch")
    if max(runs.values()) > 1:
        raise NoLastMap(
            f"the model runs its convolutions {max(runs.values())} times for a patch, so none of "
            "their maps is the last one"
        )
    return ended[-1]


@contextmanager
def tapped_map(model: nn.Module, name: str) -> Iterator[list[Tensor]]:
    """Yield a list whose last element, after a forward pass, is the output of module `name`.

    It is cut from what lies before it and takes a gradient from what comes after, so that neither
    the weights' gradients nor whether they have any matter.
    """
    maps: list[Tensor] = []

    def on_end(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        leaf = output.detach().requires_grad_()
        maps.append(leaf)
        return leaf.clone()  # a layer after it may write in place, which torch forbids on a leaf

    handle = model.get_submodule(name).register_forward_hook(on_end)
    try:
        yield maps
    finally:
        handle.remove()


def _is_map(output: object) -> bool:
    return isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1

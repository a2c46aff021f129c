"""The gradients of a model as a few flat rows of numbers, and back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ml_core.errors import ConfigError

SMALL = 4096  # numbers of a gradient; working on fewer costs the call, not the numbers

Rows = list[Tensor]  # float32 (n,) each


class FlatGradients:
    """Takes p.grad of `parameters` away as rows: one for each large gradient, one for all small.

    Numbers come in the order of the parameter's memory, whatever its strides, so that a large
    gradient is not copied. Raises ConfigError for parameters that are not float32.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        for parameter in parameters:
            if parameter.dtype != torch.float32:
                raise ConfigError(
                    f"a parameter of shape {tuple(parameter.shape)} is {parameter.dtype}; the "
                    "elastic and portable levels add float32 gradients only. Use "
                    "training.numerics: fast, or float32 parameters."
                )
        self.parameters = list(parameters)
        self._large = [p for p in parameters if p.numel() > SMALL]
        self._small = [p for p in parameters if p.numel() <= SMALL]
        self._small_sizes = [p.numel() for p in self._small]
        self.device = self.parameters[0].device

    @property
    def sizes(self) -> list[int]:
        """The lengths of the rows."""
        return [p.numel() for p in self._large] + [sum(self._small_sizes)]

    def used(self) -> list[int]:
        """Return 1 for each parameter that has a gradient, 0 for others."""
        return [int(p.grad is not None) for p in self.parameters]

    def take(self) -> Rows:
        """Return the gradients as rows, zeros where there is none, and leave None in p.grad."""
        rows = _apart([_take_flat(p) for p in self._large])
        if self._small:
            return [*rows, torch.cat([_take_flat(p) for p in self._small])]
        return [*rows, torch.zeros(0, device=self.device)]

    def give(self, rows: Rows, used: Sequence[int]) -> None:
        """Put `rows` into p.grad, without a copy, where `used` is not 0."""
        small = torch.split_with_sizes(rows[-1], self._small_sizes)
        for parameter, row in zip([*self._large, *self._small], [*rows[:-1], *small], strict=True):
            parameter.grad = row.as_strided(
                parameter.shape, parameter.stride(), row.storage_offset()
            )
        for parameter, count in zip(self.parameters, used, strict=True):
            if not count:
                parameter.grad = None  # so that no weight decay touches what the model left out


def _apart(rows: Rows) -> Rows:
    """Return `rows`, those copied that lie where another does: each is written to in its place.

    Autograd hands one memory to two parameters that were added to the same patch of a batch of one.
    """
    met = set[int]()
    for number, row in enumerate(rows):
        if row.data_ptr() in met:
            rows[number] = row.clone()
        met.add(row.data_ptr())
    return rows


def _take_flat(parameter: nn.Parameter) -> Tensor:
    """Return the gradient in the order of the parameter's memory, (n,), and leave None."""
    gradient, parameter.grad = parameter.grad, None
    if gradient is None:
        return torch.zeros(parameter.numel(), device=parameter.device)
    if gradient.stride() != parameter.stride():
        gradient = torch.empty_like(parameter).copy_(gradient)
    return gradient.as_strided((gradient.numel(),), (1,))

"""Operations element by element: one rounding each, and gradients added up in a fixed order."""

from __future__ import annotations

from collections.abc import Callable
from types import EllipsisType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ml_core.errors import ConfigError
from ml_core.numerics.exact.summation import exact_expand

_PLAIN = {"alpha": 1, "rounding_mode": None}  # as given where it is not given


def exact_elementwise(func: Callable[..., Any], *operands: Any, **options: Any) -> Any:
    """Return func(*operands, **options), whose tensors are broadcast.

    An operand that is broadcast has a gradient that is a sum: it is added up in a fixed order.
    Raises ConfigError for `alpha`, whose product is fused with the sum on some machines only, and
    for `rounding_mode`.
    """
    for option, value in options.items():
        if option in _PLAIN and value != _PLAIN[option]:
            raise ConfigError(
                f"exact arithmetic has no {func.__name__} with {option}={value}. Write the product "
                "and the sum, or the division and the rounding, as two steps."
            )
    given = [*operands, *options.values()]
    shapes = (x.shape for x in given if isinstance(x, Tensor))
    shape: torch.Size = torch.broadcast_shapes(*shapes)  # type: ignore[no-untyped-call]
    whole = {name: _broadcast(x, shape) for name, x in options.items()}
    return func(*(_broadcast(x, shape) for x in operands), **whole)


def exact_divide(func: Callable[..., Any], x: Tensor, other: Any, **options: Any) -> Any:
    """Return func(x, other), a division; a plain number becomes a tensor.

    By a plain number a GPU does not divide: it multiplies by its reciprocal, which rounds twice.
    """
    return exact_elementwise(func, x, _as_tensor(other, x), **options)


def exact_divide_number(number: Any, x: Tensor) -> Tensor:
    """Return `number` / x, rounded once."""
    result: Tensor = exact_elementwise(torch.div, _as_tensor(number, x), x)
    return result


def exact_expansion(func: Callable[..., Tensor], x: Tensor, *sizes: Any, **options: Any) -> Tensor:
    """Return func(x, *sizes), which broadcasts x; the gradient is added up in a fixed order."""
    return exact_expand(x, func(x.detach(), *sizes, **options).shape)


def exact_pad(
    input: Tensor, pad: Any, mode: str = "constant", value: float | None = None
) -> Tensor:
    """Return what `F.pad` does; raises ConfigError for a mode that shows a pixel twice."""
    if mode != "constant":
        raise ConfigError(
            f"exact arithmetic has no padding of mode {mode!r}; it has 'constant'. Change that "
            "layer, or train with training.numerics: elastic."
        )
    return F.pad(input, pad, mode, value)


def exact_index(input: Tensor, index: Any) -> Any:
    """Return input[index]; raises ConfigError where a gradient would have to be gathered."""
    parts = index if isinstance(index, tuple) else (index,)
    is_plain = all(part is None or isinstance(part, int | slice | EllipsisType) for part in parts)
    if input.requires_grad and not is_plain:
        raise ConfigError(
            "exact arithmetic has no indexing by a list or tensor in front of a trained layer; it "
            "has slices and numbers. Use those, or train with training.numerics: elastic."
        )
    return input[index]


def _broadcast(x: Any, shape: torch.Size) -> Any:
    trained = isinstance(x, Tensor) and x.requires_grad
    return exact_expand(x, shape) if trained else x


def _as_tensor(x: Any, like: Tensor) -> Tensor:
    if isinstance(x, Tensor):
        return x
    dtype = like.dtype if like.is_floating_point() else torch.get_default_dtype()
    return torch.full((), x, dtype=dtype, device=like.device)

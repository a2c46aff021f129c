"""The mode in which torch's functions are exact, or refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ml_core.errors import ConfigError
from ml_core.numerics.exact.functions import FLOAT32_ONLY, PASSING, REPLACED, WRAPPED

_HAS = (
    "products, conv2d, linear, group_norm, layer_norm, average pooling, sums, means, maxima, "
    "relu and its like, +, -, *, /, cross_entropy, and whatever moves values without changing them"
)


class ExactMode(TorchFunctionMode):
    """While entered, every function of torch gives the same bits on every machine.

    Products, convolutions, norms, means and sums are replaced; what is one IEEE operation per
    element, or none, passes. Raises ConfigError for all others and for products of other numbers
    than float32.
    """

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name, options = func.__name__, kwargs or {}
        if name in PASSING:
            return func(*args, **options)
        if name in WRAPPED:
            return WRAPPED[name](func, *args, **options)
        if name not in REPLACED:
            raise ConfigError(
                f"exact arithmetic has no {name}: torch gives no promise that its bits are the "
                f"same on another machine. It has: {_HAS}. Build the model of these, or train with "
                "training.numerics: elastic."
            )
        if name in FLOAT32_ONLY:
            _check_float32(name, args)
        return REPLACED[name](*args, **options)


def _check_float32(name: str, args: Iterable[Any]) -> None:
    for x in args:
        if isinstance(x, Tensor) and x.is_floating_point() and x.dtype != torch.float32:
            raise ConfigError(
                f"exact arithmetic has {name} in float32 only, not in {x.dtype}. Leave the model "
                "and its inputs in float32."
            )

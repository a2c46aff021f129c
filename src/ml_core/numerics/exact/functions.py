"""Which of torch's functions exact arithmetic has: those it replaces, and those it lets pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ml_core.errors import ConfigError
from ml_core.numerics.exact.convolution import exact_conv2d
from ml_core.numerics.exact.cross_entropy import exact_cross_entropy
from ml_core.numerics.exact.elementwise import (
    exact_divide,
    exact_divide_number,
    exact_elementwise,
    exact_expansion,
    exact_index,
    exact_pad,
)
from ml_core.numerics.exact.normalisation import exact_group_norm, exact_layer_norm
from ml_core.numerics.exact.pooling import exact_adaptive_avg_pool2d, exact_avg_pool2d
from ml_core.numerics.exact.product import exact_linear, exact_matmul
from ml_core.numerics.exact.summation import exact_mean, exact_sum


def exact_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    ignore_index: int = -100,
    reduce: None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return what `F.cross_entropy` does for logits (B, num_classes) and labels (B,).

    Raises ConfigError for class weights, whose place is the sampling: data.balanced; and for a
    class that is to be ignored.
    """
    if ignore_index >= 0:
        raise ConfigError(
            f"exact arithmetic has no cross_entropy with ignore_index={ignore_index}. Leave those "
            "patches out: data.exclusions."
        )
    if weight is not None or input.ndim != 2 or target.is_floating_point():
        raise ConfigError(
            "exact arithmetic has cross_entropy for logits (B, num_classes) and labels (B,), "
            "without class weights. Balance the classes by sampling instead."
        )
    losses = exact_cross_entropy(input, target, label_smoothing)
    if reduction == "none":
        return losses
    return exact_sum(losses) if reduction == "sum" else exact_mean(losses)


def no_dropout(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Return `input`; raises ConfigError where units would be dropped by torch's own generator."""
    if training and p > 0:
        raise ConfigError(
            "exact arithmetic has no dropout of its own: torch draws it for the whole batch, so "
            "that a patch's mask depends on the others. Enter keyed_dropout inside."
        )
    return input


# Instead of torch's function of that name; in float32 only, since they round to a common unit.
FLOAT32_ONLY: dict[str, Callable[..., Any]] = {
    "linear": exact_linear,
    "matmul": exact_matmul,
    "__matmul__": exact_matmul,
    "mm": exact_matmul,
    "bmm": exact_matmul,
    "conv2d": exact_conv2d,
    "group_norm": exact_group_norm,
    "layer_norm": exact_layer_norm,
    "avg_pool2d": exact_avg_pool2d,
    "adaptive_avg_pool2d": exact_adaptive_avg_pool2d,
    "cross_entropy": exact_loss,
}
REPLACED: dict[str, Callable[..., Any]] = {
    **FLOAT32_ONLY,
    "sum": exact_sum,
    "mean": exact_mean,
    "pad": exact_pad,
    "__getitem__": exact_index,
    "__rdiv__": lambda x, number: exact_divide_number(number, x),
    **dict.fromkeys(("dropout", "dropout1d", "dropout2d", "dropout3d"), no_dropout),
}

# One rounding per element or none, forward and backward; `max` and `min` of two tensors as well.
_ELEMENTWISE = (
    "add", "add_", "__add__", "__radd__", "__iadd__", "sub", "sub_", "__sub__", "__rsub__",
    "__isub__", "mul", "mul_", "__mul__", "__rmul__", "__imul__", "maximum", "minimum", "max",
    "min", "where", "masked_fill", "clamp", "clamp_", "clamp_min", "clamp_max", "clip", "relu",
    "relu_", "relu6", "leaky_relu", "leaky_relu_", "hardtanh", "threshold", "abs", "neg", "sqrt",
)  # fmt: skip
_DIVISIONS = ("div", "div_", "true_divide", "__truediv__", "__idiv__")

# Around torch's own function, which is handed on as their first argument.
WRAPPED: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(_ELEMENTWISE, exact_elementwise),
    **dict.fromkeys(_DIVISIONS, exact_divide),
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), exact_expansion),
}

_SELECTION = ("amax", "amin", "argmax", "argmin", "all", "any")
_COMPARISON = (
    "eq", "ne", "lt", "le", "gt", "ge", "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__",
    "isfinite", "isnan", "isinf", "equal", "logical_and", "logical_or", "logical_not", "__and__",
    "__or__", "__invert__",
)  # fmt: skip
_MOVEMENT = (
    "cat", "concat", "stack", "flatten", "unflatten", "reshape", "view", "view_as", "permute",
    "transpose", "t", "swapaxes", "movedim", "flip", "fliplr", "flipud", "rot90", "roll", "squeeze",
    "unsqueeze", "chunk", "split", "tensor_split", "unbind", "narrow", "select", "contiguous",
    "clone", "pixel_shuffle", "pixel_unshuffle", "to", "type", "type_as", "float", "double", "int",
    "long", "bool", "cpu", "cuda", "detach",
)  # fmt: skip
_CREATION = (
    "tensor", "as_tensor", "arange", "zeros", "ones", "full", "empty", "zeros_like", "ones_like",
    "full_like", "empty_like", "new_zeros", "new_ones", "new_full", "new_empty", "new_tensor",
)  # fmt: skip
_INSPECTION = (
    "__get__", "__set__", "__len__", "__bool__", "__float__", "__int__", "__index__", "__iter__",
    "__repr__", "__format__", "dim", "size", "stride", "numel", "item", "tolist", "numpy",
    "is_floating_point", "is_contiguous", "is_complex", "element_size", "data_ptr",
    "storage_offset", "get_device", "register_hook", "retain_grad", "requires_grad_", "backward",
)  # fmt: skip
PASSING = frozenset((*_SELECTION, *_COMPARISON, *_MOVEMENT, *_CREATION, *_INSPECTION))

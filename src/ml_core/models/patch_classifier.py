"""What all models have in common: one input shape, preprocessing, then a net that gives logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ml_core.models.preprocess import Preprocess


class PatchClassifier(nn.Module):
    """Patches (B, C, H, W) -> logits (B, num_classes), by `net` after `preprocess`.

    Patches are grey levels 0..255, uint8 or float; without a `preprocess` they go through PCam's.
    `options` holds the arguments, JSON-able, that the shape and the number of classes leave open.
    Raises ValueError for patches of another shape.
    """

    net: nn.Module

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        preprocess: Preprocess | None,
        options: dict[str, Any],
    ) -> None:
        super().__init__()
        self.input_shape = tuple(input_shape)
        if len(self.input_shape) != 3 or not all(_is_count(size) for size in self.input_shape):
            raise ValueError(
                f"input_shape {self.input_shape} must be three whole numbers above 0: "
                "channels, height, width; PCam has (3, 96, 96)"
            )
        if not _is_count(num_classes) or num_classes < 2:
            raise ValueError(
                f"num_classes {num_classes!r} must be a whole number of at least 2; "
                "tumour against normal is 2"
            )
        preprocess = Preprocess() if preprocess is None else preprocess
        if len(preprocess.mean) != self.input_shape[0]:
            raise ValueError(
                f"preprocess has {len(preprocess.mean)} channel means, but input_shape "
                f"{self.input_shape} has {self.input_shape[0]} channels; they must agree"
            )
        self.num_classes = num_classes
        self.options = options
        self.preprocess = preprocess

    def forward(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or tuple(images.shape[1:]) != self.input_shape:
            channels, height, width = self.input_shape
            raise ValueError(
                f"{type(self).__name__} takes patches of shape (B, {channels}, {height}, {width}), "
                f"got {tuple(images.shape)}; channels come before height and width"
            )
        logits: Tensor = self.net(self.preprocess(images))  # (B, num_classes)
        return logits


def check_counts(name: str, values: Sequence[int]) -> None:
    """Raise ValueError unless `values` holds one or more whole numbers, each above 0."""
    if not values or not all(_is_count(value) for value in values):
        raise ValueError(
            f"{name} {list(values)} must be one or more whole numbers above 0, one per layer"
        )


def check_dropout_rate(rate: float) -> None:
    """Raise ValueError unless 0 <= rate < 1 (at 1 nothing would pass)."""
    if not 0 <= rate < 1:
        raise ValueError(f"dropout_rate {rate} must be at least 0 and below 1")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0

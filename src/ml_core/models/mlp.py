"""The course's multi-layer perceptron: every pixel is a feature, none knows its neighbours."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from ml_core.models.patch_classifier import PatchClassifier, check_counts, check_dropout_rate
from ml_core.models.preprocess import Preprocess


class MLP(PatchClassifier):
    """Flatten -> [Linear -> ReLU -> Dropout] for each of `hidden_units` -> Linear.

    (B, *input_shape) -> logits (B, num_classes). Raises ValueError for arguments out of range.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        hidden_units: Sequence[int],
        num_classes: int = 2,
        dropout_rate: float = 0.2,
        *,
        preprocess: Preprocess | None = None,
    ) -> None:
        check_counts("hidden_units", hidden_units)
        check_dropout_rate(dropout_rate)
        options = {"hidden_units": list(hidden_units), "dropout_rate": dropout_rate}
        super().__init__(input_shape, num_classes, preprocess, options)
        layers: list[nn.Module] = [nn.Flatten()]
        num_inputs = math.prod(self.input_shape)
        for num_units in hidden_units:
            layers += [nn.Linear(num_inputs, num_units), nn.ReLU(), nn.Dropout(dropout_rate)]
            num_inputs = num_units
        self.net = nn.Sequential(*layers, nn.Linear(num_inputs, num_classes))

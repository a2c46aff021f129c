"""A small residual network for patches whose label lies in the centre."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ml_core.models.patch_classifier import PatchClassifier, check_counts, check_dropout_rate
from ml_core.models.preprocess import Preprocess

# On a CPU in bf16 a group of 8 channels, narrower than a vector register, takes 10 times as long.
CHANNELS_PER_GROUP = 32


class CNN(PatchClassifier):
    """A strided stem, stages of residual blocks, then centre and whole pooled side by side.

    (B, *input_shape) -> logits (B, num_classes). The stem halves the patch and so does each stage,
    the i-th with `widths[i]` channels: 48, then 24, 12 and 6 pixels for three stages on 96. Groups
    are normalised patch by patch, in training too. Raises ValueError for arguments out of range.
    """

    def __init__(
        self,
        input_shape: Sequence[int] = (3, 96, 96),
        widths: Sequence[int] = (32, 64, 128),
        blocks_per_stage: int = 1,
        num_classes: int = 2,
        dropout_rate: float = 0.2,
        average_orientations: bool = False,
        *,
        preprocess: Preprocess | None = None,
    ) -> None:
        check_counts("widths", widths)
        check_counts("blocks_per_stage", [blocks_per_stage])
        check_dropout_rate(dropout_rate)
        if any(width % 8 for width in widths):
            raise ValueError(f"widths {list(widths)} must be multiples of 8")
        options = {
            "widths": list(widths),
            "blocks_per_stage": blocks_per_stage,
            "dropout_rate": dropout_rate,
            "average_orientations": average_orientations,
        }
        super().__init__(input_shape, num_classes, preprocess, options)
        if average_orientations and self.input_shape[1] != self.input_shape[2]:
            raise ValueError(f"average_orientations needs square patches, not {self.input_shape}")
        self.average_orientations = average_orientations
        num_inputs = widths[0]
        layers: list[nn.Module] = [
            nn.Conv2d(self.input_shape[0], num_inputs, 3, stride=2, padding=1, bias=False),
            _norm(num_inputs),
            nn.ReLU(inplace=True),  # nobody needs the norm's output: not its gradient either
        ]
        for width in widths:
            for block in range(blocks_per_stage):
                layers.append(ResidualBlock(num_inputs, width, stride=2 if block == 0 else 1))
                num_inputs = width
        self.net = nn.Sequential(
            *layers,
            CentreAndWholePool(),
            nn.Dropout(dropout_rate),
            nn.Linear(3 * num_inputs, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        if self.training or not self.average_orientations:
            return super().forward(images)
        orientations = [
            torch.rot90(seen, turns, dims=(2, 3))
            for seen in (images, images.flip(3))
            for turns in range(4)
        ]
        # one after the other: eight copies of the activations at once are eight times the memory
        logits = [super(CNN, self).forward(turned) for turned in orientations]
        return torch.stack(logits).mean(dim=0)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which averages before it changes the channels.

    Averaging keeps the three in four pixels that a strided 1x1 convolution drops: He et al., Bag of
    tricks for image classification, CVPR 2019 (their ResNet-D).
    """

    def __init__(self, num_inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(num_inputs, width, 3, stride=stride, padding=1, bias=False),
            _norm(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            _norm(width),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or num_inputs != width:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride, ceil_mode=True),
                nn.Conv2d(num_inputs, width, 1, bias=False),
                _norm(width),
            )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.relu(self.branch(x) + self.shortcut(x))
        return y


class CentreAndWholePool(nn.Module):
    """(B, C, H, W) -> (B, 3 C): highest and mean of the central third, mean of everything.

    A third of 96 is 32: the square that decides PCam's label. The label asks for any tumour in it,
    hence the highest value.
    """

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        top, left = height // 3, width // 3
        centre = x[:, :, top : height - top, left : width - left]
        parts = [centre.amax(dim=(2, 3)), centre.mean(dim=(2, 3)), x.mean(dim=(2, 3))]
        return torch.cat(parts, dim=1)


def _norm(num_channels: int) -> nn.GroupNorm:
    num_groups, rest = divmod(num_channels, CHANNELS_PER_GROUP)
    return nn.GroupNorm(num_groups if rest == 0 else 1, num_channels)

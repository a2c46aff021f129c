"""The section `model`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Tag

from ml_core.config.section import Section, by_name


class MLPConfig(Section):
    """`model` when `name` is mlp (the default, as in the course)."""

    name: Literal["mlp"] = Field("mlp", description="the course's multilayer perceptron")
    hidden_units: tuple[Annotated[int, Field(ge=1, le=10**6)], ...] = Field(
        (64, 32), min_length=1, description="units of each hidden layer"
    )
    dropout_rate: float = Field(0.2, ge=0, lt=1, description="share of units dropped in training")
    num_classes: Literal[2] = Field(2, description="normal and tumour")
    normalization: Literal["standard", "none"] = Field(
        "standard",
        description="standard: per channel, with the train split's mean and deviation; "
        "none: 0..1 only",
    )


class CNNConfig(Section):
    """`model` when `name` is cnn."""

    name: Literal["cnn"] = Field(description="a small residual network for 96x96 patches")
    widths: tuple[Annotated[int, Field(ge=8, le=2**16, multiple_of=8)], ...] = Field(
        (32, 64, 128), min_length=1, description="channels of each stage"
    )
    blocks_per_stage: int = Field(1, ge=1, le=1000, description="residual blocks in each stage")
    dropout_rate: float = Field(0.2, ge=0, lt=1, description="share of features dropped at the end")
    average_orientations: bool = Field(
        False, description="predict with the mean over the 8 flips and turns; 8 times the work"
    )
    num_classes: Literal[2] = Field(2, description="normal and tumour")
    normalization: Literal["standard", "none"] = Field("standard", description="as for mlp")


ModelConfig = Annotated[
    Annotated[MLPConfig, Tag("mlp")] | Annotated[CNNConfig, Tag("cnn")], by_name("mlp")
]

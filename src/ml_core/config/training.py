"""The sections `training`, `optimizer` and `scheduler`: how the weights are found."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, Tag, model_validator

from ml_core.config.section import DEVICE_PATTERN, Decay, Section, by_name

BEST_METRICS = ("val_roc_auc", "val_pr_auc", "val_f1", "val_f2", "val_accuracy", "val_loss")
NUMERICS = ("fast", "elastic", "portable")


class TrainingConfig(Section):
    """How long, in which arithmetic, and what counts as best."""

    epochs: int = Field(10, ge=1, description="passes over the train split")
    best_metric: Literal[BEST_METRICS] = Field(  # type: ignore[valid-type]  # one list, two uses
        "val_roc_auc", description="which validation metric chooses the checkpoint `best`"
    )
    early_stopping_patience: int | None = Field(
        None, ge=1, description="stop after this many epochs without a better best_metric"
    )
    clip_grad_norm: float | None = Field(
        None, gt=0, description="scale gradients down to this global norm; off by default"
    )
    accumulate_steps: int = Field(1, ge=1, le=10**6, description="batches per optimizer step")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="of the training loss only")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 autocast on a GPU that has it, fp32 elsewhere"
    )
    channels_last: bool = Field(True, description="memory format of images and kernels")
    device: str = Field("auto", pattern=DEVICE_PATTERN, description="auto: a GPU if there is one")
    num_threads: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="CPU threads; part of the recipe, so a resumed run keeps its own",
    )
    numerics: Literal[NUMERICS] = Field(  # type: ignore[valid-type]  # one list, two uses
        "fast",
        description="what weights may depend on besides the recipe: fast, the number of threads "
        "and the kind of machine; elastic, the kind of machine; portable, nothing",
    )
    micro_batch: int = Field(
        32,
        ge=1,
        description="patches per backward pass in elastic and portable, part of the recipe; as "
        "many ranks as a batch has micro-batches can share it, and larger ones cost less",
    )
    checkpoint_every: int | None = Field(
        None,
        ge=1,
        description="steps between checkpoints inside an epoch; each epoch ends with one",
    )
    chain_every: int = Field(
        500, ge=1, description="steps between links of chain.jsonl, by which `verify` audits a part"
    )
    rank_timeout_s: float = Field(
        45.0,
        gt=0,
        description="seconds that ranks wait for one another before they give up; more than a "
        "checkpoint takes",
    )

    @model_validator(mode="after")
    def _check_numerics(self) -> Self:
        if self.numerics == "portable" and self.precision != "auto":
            raise ValueError(
                f"numerics: portable has its own arithmetic, precision is {self.precision}. "
                "Set training.precision to auto, or numerics to fast or elastic."
            )
        if self.numerics == "elastic" and self.num_threads is None:
            raise ValueError(
                "numerics: elastic makes the number of threads part of the recipe. Say how many "
                "each rank shall use, for example training.num_threads: 2."
            )
        return self


class AdamWConfig(Section):
    """`optimizer` when `name` is adamw (the default)."""

    name: Literal["adamw"] = Field("adamw", description="Adam with decoupled weight decay")
    lr: float = Field(1e-3, gt=0, le=1e6, description="learning rate, the schedule's highest")
    weight_decay: float = Field(
        0.01, ge=0, description="of kernels and matrices; biases and norms are spared"
    )
    betas: tuple[Decay, Decay] = Field((0.9, 0.999), description="decay of the two moments")


class AdamConfig(Section):
    """`optimizer` when `name` is adam."""

    name: Literal["adam"] = Field(description="Adam")
    lr: float = Field(1e-3, gt=0, le=1e6, description="learning rate, the schedule's highest")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty of kernels and matrices")
    betas: tuple[Decay, Decay] = Field((0.9, 0.999), description="decay of the two moments")


class SGDConfig(Section):
    """`optimizer` when `name` is sgd."""

    name: Literal["sgd"] = Field(description="stochastic gradient descent")
    lr: float = Field(1e-2, gt=0, le=1e6, description="learning rate, the schedule's highest")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty of kernels and matrices")
    momentum: float = Field(0.9, ge=0, lt=1, description="0 is plain SGD")
    nesterov: bool = Field(False, description="look-ahead momentum")


class ConstantConfig(Section):
    """`scheduler` when `name` is constant (the default)."""

    name: Literal["constant"] = Field("constant", description="the learning rate stays")
    warmup_epochs: float = Field(0.0, ge=0, description="linear rise from 0")


class CosineConfig(Section):
    """`scheduler` when `name` is cosine."""

    name: Literal["cosine"] = Field(description="half a cosine from lr down to min_factor x lr")
    warmup_epochs: float = Field(0.0, ge=0, description="linear rise from 0")
    min_factor: float = Field(0.0, ge=0, le=1, description="last learning rate over the highest")


class OneCycleConfig(Section):
    """`scheduler` when `name` is one_cycle."""

    name: Literal["one_cycle"] = Field(description="cosine up, cosine down (Smith and Topin 2018)")
    warmup_share: float = Field(0.3, gt=0, lt=1, description="share of all steps spent rising")
    start_factor: float = Field(0.04, gt=0, le=1, description="first over highest learning rate")
    min_factor: float = Field(4e-6, ge=0, le=1, description="last over highest learning rate")


class StepConfig(Section):
    """`scheduler` when `name` is step."""

    name: Literal["step"] = Field(description="lr x gamma every step_epochs")
    step_epochs: int = Field(5, ge=1, description="epochs between two drops")
    gamma: float = Field(0.1, gt=0, lt=1, description="factor of a drop")
    warmup_epochs: float = Field(0.0, ge=0, description="linear rise from 0")


class PlateauConfig(Section):
    """`scheduler` when `name` is plateau."""

    name: Literal["plateau"] = Field(description="lr x gamma when val_loss stops falling")
    gamma: float = Field(0.1, gt=0, lt=1, description="factor of a drop")
    patience: int = Field(2, ge=0, description="epochs without a lower val_loss before a drop")


OptimizerConfig = Annotated[
    Annotated[AdamWConfig, Tag("adamw")]
    | Annotated[AdamConfig, Tag("adam")]
    | Annotated[SGDConfig, Tag("sgd")],
    by_name("adamw"),
]
SchedulerConfig = Annotated[
    Annotated[ConstantConfig, Tag("constant")]
    | Annotated[CosineConfig, Tag("cosine")]
    | Annotated[OneCycleConfig, Tag("one_cycle")]
    | Annotated[StepConfig, Tag("step")]
    | Annotated[PlateauConfig, Tag("plateau")],
    by_name("constant"),
]

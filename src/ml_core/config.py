"""One YAML file -> one validated, path-resolved, immutable `Config`.

The course's keys keep their names. Unknown keys, wrong values and repeated keys are errors that
name the file, the key, what is allowed and the nearest valid key. Relative paths in the file are
relative to the file; those given with `--set` are relative to where the command was typed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from ml_core.config_problems import Words, explain, section_variants, shown
from ml_core.errors import ConfigError
from ml_core.yaml_file import parse_yaml, read_yaml

# What a value must match, and how that is said to a person.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
DEVICE_PATTERN = r"^(auto|cpu|cuda(:\d+)?|mps)$"
SQLITE = "sqlite:///"
MLFLOW_PATTERN = r"^(sqlite:///|https?://).+"
PATTERNS = {
    NAME_PATTERN: "letters, digits, '.', '_' and '-', since it names a folder",
    DEVICE_PATTERN: "auto, cpu, cuda, cuda:N or mps",
    MLFLOW_PATTERN: "sqlite:///file.db, http://server or https://server",
}
PositiveInt = Annotated[int, Field(ge=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
BEST_METRICS = ("val_roc_auc", "val_pr_auc", "val_f1", "val_f2", "val_accuracy", "val_loss")


class Section(BaseModel):
    """A part of the configuration: immutable, and no key that nobody reads."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_yes_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Python counts True as 1, so `epochs: yes` would train one epoch."""
        values = value if isinstance(value, list) else [value]
        wants_bool = cls.model_fields[str(info.field_name)].annotation is bool
        if not wants_bool and any(isinstance(each, bool) for each in values):
            raise ValueError("yes and no (true and false) mean nothing here")
        return value


class AugmentConfig(Section):
    """What is done to a training patch, on the device, keyed on (seed, epoch, index)."""

    dihedral: bool = Field(True, description="one of the 8 flips and quarter turns, at random")
    stain_jitter: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="relative spread of the haematoxylin, eosin and residual amounts; 0 is off",
    )


class DataConfig(Section):
    """Which patches, and how they are drawn."""

    data_path: Path = Field(description="folder of the PCam files, {train,valid,test}_{x,y}.h5")
    dataset_type: Literal["pcam"] = Field("pcam", description="the file layout")
    input_shape: tuple[Literal[3], PositiveInt, PositiveInt] = Field(
        (3, 96, 96), description="channels, height, width"
    )
    batch_size: int = Field(64, ge=1, description="patches per batch")
    num_workers: int = Field(
        0,
        ge=0,
        description="reader processes; 0 reads in the training process, which is the fastest for "
        "contiguous uint8 files",
    )
    balanced: bool = Field(True, description="draw as many tumour as normal patches per epoch")
    filter_data: bool = Field(
        False, description="drop patches whose mean is not strictly between 0 and 255"
    )
    on_findings: Literal["refuse", "exclude", "ignore"] = Field(
        "refuse",
        description="what to do when the audit found errors in train or valid; exclude: leave out "
        "the patches in its exclusions.csv; ignore: train in spite of them, as the report will say",
    )
    audit_dir: Path | None = Field(
        None, description="folder of the audit; `audit` in data_path by default"
    )
    max_patches: int | None = Field(
        None,
        ge=2,
        description="use only this many patches of each split, spread over the file; recorded",
    )
    augment: AugmentConfig = Field(AugmentConfig(), description="see below")


class MLPConfig(Section):
    """`model` when `name` is mlp (the default, as in the course)."""

    name: Literal["mlp"] = Field("mlp", description="the course's multilayer perceptron")
    hidden_units: tuple[PositiveInt, ...] = Field(
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
    widths: tuple[Annotated[int, Field(ge=8, multiple_of=8)], ...] = Field(
        (32, 64, 128), min_length=1, description="channels of each stage"
    )
    blocks_per_stage: int = Field(1, ge=1, description="residual blocks in each stage")
    dropout_rate: float = Field(0.2, ge=0, lt=1, description="share of features dropped at the end")
    average_orientations: bool = Field(
        False, description="predict with the mean over the 8 flips and turns; 8 times the work"
    )
    num_classes: Literal[2] = Field(2, description="normal and tumour")
    normalization: Literal["standard", "none"] = Field("standard", description="as for mlp")


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
    accumulate_steps: int = Field(1, ge=1, description="batches per optimizer step")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="of the training loss only")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 autocast on a GPU that has it, fp32 elsewhere"
    )
    channels_last: bool = Field(True, description="memory format of images and kernels")
    device: str = Field("auto", pattern=DEVICE_PATTERN, description="auto: a GPU if there is one")
    num_threads: int | None = Field(
        None, ge=1, description="CPU threads; part of the recipe, so a resumed run keeps its own"
    )


class AdamWConfig(Section):
    """`optimizer` when `name` is adamw (the default)."""

    name: Literal["adamw"] = Field("adamw", description="Adam with decoupled weight decay")
    lr: float = Field(1e-3, gt=0, description="learning rate, the schedule's highest")
    weight_decay: float = Field(
        0.01, ge=0, description="of kernels and matrices; biases and norms are spared"
    )
    betas: tuple[Decay, Decay] = Field((0.9, 0.999), description="decay of the two moments")


class AdamConfig(Section):
    """`optimizer` when `name` is adam."""

    name: Literal["adam"] = Field(description="Adam")
    lr: float = Field(1e-3, gt=0, description="learning rate, the schedule's highest")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty of kernels and matrices")
    betas: tuple[Decay, Decay] = Field((0.9, 0.999), description="decay of the two moments")


class SGDConfig(Section):
    """`optimizer` when `name` is sgd."""

    name: Literal["sgd"] = Field(description="stochastic gradient descent")
    lr: float = Field(1e-2, gt=0, description="learning rate, the schedule's highest")
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


class TrackingConfig(Section):
    """Where the run's numbers go besides its own files."""

    tensorboard: bool = Field(True, description="write TensorBoard events")
    mlflow_uri: str | None = Field(
        None,
        pattern=MLFLOW_PATTERN,
        description="sqlite:///file.db or http(s)://server; fed by a separate process",
    )


class EvaluationConfig(Section):
    """How the predictions are scored."""

    threshold: float = Field(0.5, gt=0, lt=1, description="tumour from this probability on")
    num_resamples: int = Field(1000, ge=100, description="bootstrap resamples of every interval")


def _by_name(default: str) -> Discriminator:
    def name_of(value: Any) -> Any:
        if isinstance(value, Mapping):
            return str(value.get("name", default))
        return getattr(value, "name", default)

    return Discriminator(name_of)


ModelConfig = Annotated[
    Annotated[MLPConfig, Tag("mlp")] | Annotated[CNNConfig, Tag("cnn")], _by_name("mlp")
]
OptimizerConfig = Annotated[
    Annotated[AdamWConfig, Tag("adamw")]
    | Annotated[AdamConfig, Tag("adam")]
    | Annotated[SGDConfig, Tag("sgd")],
    _by_name("adamw"),
]
SchedulerConfig = Annotated[
    Annotated[ConstantConfig, Tag("constant")]
    | Annotated[CosineConfig, Tag("cosine")]
    | Annotated[OneCycleConfig, Tag("one_cycle")]
    | Annotated[StepConfig, Tag("step")]
    | Annotated[PlateauConfig, Tag("plateau")],
    _by_name("constant"),
]

# The course's spelling of a key, and whose it is here.
COURSE_KEYS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("training", "learning_rate"): ("optimizer", "lr"),
    ("training", "save_dir"): ("output_dir",),
}


class Config(Section):
    """The whole configuration of an experiment."""

    experiment_name: str = Field(pattern=NAME_PATTERN, description="names the folder of its runs")
    seed: int = Field(42, ge=0, lt=2**63, description="of the one run, where `seeds` is not given")
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] | None = Field(
        None, min_length=1, description="train once per seed, each as its own run"
    )
    output_dir: Path = Field(Path("runs"), description="folder of all runs")
    data: DataConfig
    model: ModelConfig = MLPConfig()
    training: TrainingConfig = TrainingConfig()
    optimizer: OptimizerConfig = AdamWConfig()
    scheduler: SchedulerConfig = ConstantConfig()
    tracking: TrackingConfig = TrackingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _check_across_sections(self) -> Self:
        if self.seeds is not None and len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} repeats a seed; each must be its own run")
        sgd = self.optimizer if isinstance(self.optimizer, SGDConfig) else None
        if sgd and sgd.nesterov and sgd.momentum == 0:
            raise ValueError("optimizer.nesterov needs optimizer.momentum above 0")
        _, height, width = self.data.input_shape
        if self.data.augment.dihedral and height != width:
            raise ValueError(
                f"data.augment.dihedral turns patches by 90 degrees, data.input_shape "
                f"{height} x {width} is not square; set data.augment.dihedral=false"
            )
        warmup = getattr(self.scheduler, "warmup_epochs", 0.0)
        if warmup >= self.training.epochs and warmup > 0:
            raise ValueError(
                f"scheduler.warmup_epochs {warmup:g} leaves nothing of "
                f"training.epochs {self.training.epochs}"
            )
        return self

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds to train, one run each."""
        return self.seeds if self.seeds is not None else (self.seed,)

    @classmethod
    def load(cls, path: str | Path, overrides: Iterable[str] = ()) -> Config:
        """Read `path`, apply overrides such as "training.epochs=3"; raises ConfigError."""
        path = Path(path)
        raw = read_yaml(path)
        _resolve_paths(raw, path.resolve().parent)
        _move_course_keys(raw, path)
        for override in overrides:
            _apply_override(raw, override)
        _resolve_paths(raw, Path.cwd())
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            raise ConfigError(explain(error, path, cls, Words(PATTERNS, COURSE_KEYS))) from error

    def dump_yaml(self) -> str:
        """Return the resolved configuration as YAML that `load` reads back to an equal Config."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load_config(path: str | Path) -> dict[str, Any]:
    """Return the YAML file as the plain nested dict that the course's code expects, as written.

    Nothing is checked but the YAML itself; `Config.load` gives the validated, resolved form.
    """
    return read_yaml(Path(path))


def _resolve_paths(raw: dict[str, Any], base: Path) -> None:
    """Make every path of `raw` absolute against `base`, in place."""
    places: list[tuple[Any, str]] = [(raw, "output_dir"), (raw.get("data"), "data_path")]
    places += [(raw.get("data"), "audit_dir")]
    places += [(raw.get("training"), "save_dir")]
    if "output_dir" not in raw and not _has(raw.get("training"), "save_dir"):
        raw["output_dir"] = "runs"
    for section, key in places:
        if isinstance(section, dict) and isinstance(section.get(key), str):
            section[key] = _absolute(section[key], base)
    tracking = raw.get("tracking")
    if isinstance(tracking, dict) and isinstance(uri := tracking.get("mlflow_uri"), str):
        file = uri.removeprefix(SQLITE)
        if file not in (uri, ""):
            tracking["mlflow_uri"] = SQLITE + _absolute(file, base)


def _absolute(path: str, base: Path) -> str:
    try:
        return os.path.normpath(base / Path(path).expanduser())
    except RuntimeError as error:
        raise ConfigError(f"{path}: no such home directory; write the path out.") from error


def _has(section: Any, key: str) -> bool:
    return isinstance(section, dict) and key in section


def _apply_override(raw: dict[str, Any], override: str) -> None:
    """Put "a.b=c" into `raw`; c is read as YAML."""
    dotted, equals, text = override.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"--set {override!r} is not of the form key.subkey=value.")
    value = parse_yaml(text, f"--set {override!r}: the value")
    keys = list(COURSE_KEYS.get(tuple(keys), keys))
    section = raw
    for key in keys[:-1]:
        section = _subsection(section, key, f"--set {override!r}")
    section[keys[-1]] = value
    if len(keys) == 2 and keys[1] == "name":
        _drop_keys_of_other_variants(section, keys[0], str(value))


def _subsection(section: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    """Return the mapping at `key`, made where there is none."""
    if section.get(key) is None:
        section[key] = {}
    found = section[key]
    if not isinstance(found, dict):
        raise ConfigError(f"{where}: {key} is {shown(found)}; it must hold keys and values.")
    return found


def _drop_keys_of_other_variants(section: dict[str, Any], section_name: str, name: str) -> None:
    """Drop what only other variants have, as momentum at adam; a misspelt key stays an error."""
    field = Config.model_fields.get(section_name)
    variants = section_variants(field.annotation) if field else {}
    if name in variants:
        others = {key for variant in variants.values() for key in variant.model_fields}
        for key in others - set(variants[name].model_fields):
            section.pop(key, None)


def _move_course_keys(raw: dict[str, Any], path: Path) -> None:
    for (section_name, key), target in COURSE_KEYS.items():
        section = raw.get(section_name)
        if not isinstance(section, dict) or key not in section:
            continue
        value = section.pop(key)
        parent = raw
        for part in target[:-1]:
            parent = _subsection(parent, part, str(path))
        if target[-1] in parent and parent[target[-1]] != value:
            raise ConfigError(
                f"{path}: {section_name}.{key} is {value} and {'.'.join(target)} is "
                f"{parent[target[-1]]}; they are the same setting, keep one."
            )
        parent[target[-1]] = value


def config_schema() -> dict[str, Any]:
    """Return the JSON Schema of a config file, for editors."""
    schema = Config.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    training = schema["$defs"]["TrainingConfig"]["properties"]
    training["learning_rate"] = {"type": "number", "description": "the course's optimizer.lr"}
    training["save_dir"] = {"type": "string", "description": "the course's output_dir"}
    return schema

"""The root of the configuration: one YAML file -> one validated, path-resolved `Config`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from ml_core.config.data import DataConfig
from ml_core.config.model import MLPConfig, ModelConfig
from ml_core.config.scoring import EvaluationConfig, SelectionConfig, TrackingConfig
from ml_core.config.search import SearchConfig
from ml_core.config.section import NAME_PATTERN, PATTERNS, SQLITE, Section
from ml_core.config.training import (
    AdamWConfig,
    ConstantConfig,
    OptimizerConfig,
    SchedulerConfig,
    SGDConfig,
    TrainingConfig,
)
from ml_core.config_problems import Words, explain, section_variants, shown
from ml_core.errors import ConfigError
from ml_core.yaml_file import parse_yaml, read_yaml

LONGEST_SLICE_NAME = 60  # characters: it heads a row of a table

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
    slices: dict[str, str] = Field(
        {},
        description="your own slices of patches: a name and what holds for its patches, for "
        "example `dark: brightness < 100`",
    )
    search: SearchConfig | None = None
    selection: SelectionConfig = SelectionConfig()

    @field_validator("slices", mode="before")
    @classmethod
    def _check_slices(cls, slices: Any) -> Any:
        if not isinstance(slices, dict):
            raise ValueError("must hold names and queries, such as `dark: brightness < 100`")
        for name, query in slices.items():
            if not isinstance(name, str) or not name.strip() or len(name) > LONGEST_SLICE_NAME:
                raise ValueError(
                    f"{name!r} names no slice; allowed is text of up to "
                    f"{LONGEST_SLICE_NAME} characters"
                )
            if not isinstance(query, str) or not query.strip():
                raise ValueError(f"{name!r} needs a query, such as `brightness < 100`")
        return slices

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
        return cls._validated(raw, str(path))

    def with_overrides(self, overrides: Iterable[str], what: str = "the configuration") -> Config:
        """Return this with overrides such as "training.epochs=3"; raises ConfigError about `what`.

        Paths among them are relative to the working directory, as after `--set`.
        """
        raw = self.model_dump(mode="json")
        for override in overrides:
            _apply_override(raw, override)
        _resolve_paths(raw, Path.cwd())
        return type(self)._validated(raw, what)

    @classmethod
    def _validated(cls, raw: Mapping[str, Any], what: str) -> Config:
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            raise ConfigError(explain(error, what, cls, Words(PATTERNS, COURSE_KEYS))) from error

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
    places += [(raw.get("data"), "audit_dir"), (raw.get("data"), "ledger_dir")]
    places += [(raw.get("data"), "local_copy")]
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
    if len(keys) > 1 and keys[-1] == "name":
        _drop_keys_of_other_variants(section, keys[:-1], str(value))


def _subsection(section: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    """Return the mapping at `key`, made where there is none."""
    if section.get(key) is None:
        section[key] = {}
    found = section[key]
    if not isinstance(found, dict):
        raise ConfigError(f"{where}: {key} is {shown(found)}; it must hold keys and values.")
    return found


def _drop_keys_of_other_variants(section: dict[str, Any], path: list[str], name: str) -> None:
    """Drop what only other variants have, as momentum at adam; a misspelt key stays an error."""
    variants: dict[str, type[BaseModel]] = {"": Config}
    for key in path:
        parent = next(iter(variants.values())) if len(variants) == 1 else None
        field = parent.model_fields.get(key) if parent else None
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

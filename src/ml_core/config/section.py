"""What every section of the configuration is: immutable, checked, without unknown keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, ValidationInfo, field_validator

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


class Section(BaseModel):
    """A part of the configuration: immutable, and no key that nobody reads."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )

    FREE_VALUES: ClassVar[frozenset[str]] = frozenset()  # fields whose values other sections judge

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_yes_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Python counts True as 1, so `epochs: yes` would train one epoch."""
        values = value if isinstance(value, list) else [value]
        name = str(info.field_name)
        wants_bool = name in cls.FREE_VALUES or cls.model_fields[name].annotation is bool
        if not wants_bool and any(isinstance(each, bool) for each in values):
            raise ValueError("yes and no (true and false) mean nothing here")
        return value


def by_name(default: str) -> Discriminator:
    """Return what tells the variants of a section apart: their key `name`."""

    def name_of(value: Any) -> Any:
        if isinstance(value, Mapping):
            return str(value.get("name", default))
        return getattr(value, "name", default)

    return Discriminator(name_of)

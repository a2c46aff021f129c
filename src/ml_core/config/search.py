"""The section `search`: which values `tune` tries, in which order, and when it gives up on one."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, Tag, model_validator

from ml_core.config.section import PositiveInt, Section, by_name


class ParameterConfig(Section):
    """One searched key: `choices`, or a range from `low` to `high`."""

    FREE_VALUES: ClassVar[frozenset[str]] = frozenset({"choices", "when"})

    choices: tuple[Any, ...] | None = Field(None, min_length=1, description="the values to try")
    low: int | float | None = Field(None, description="smallest value of a range, included")
    high: int | float | None = Field(None, description="largest value of a range, included")
    log: bool = Field(False, description="draw from the range on a logarithmic scale")
    step: int | float | None = Field(None, gt=0, description="distance between values of a range")
    when: dict[str, tuple[Any, ...]] = Field(
        {}, description="searched only where these searched keys have one of these values"
    )

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        if self.choices is not None:
            if (self.low, self.high, self.step, self.log) != (None, None, None, False):
                raise ValueError("choices stand alone, without low, high, step and log")
            return self
        if self.low is None or self.high is None:
            raise ValueError("needs choices: [...], or both low and high")
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} is not below high {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs low above 0; it is {self.low:g}")
        if self.log and self.step is not None:
            raise ValueError("log and step exclude each other; for such values write choices")
        return self


class AshaConfig(Section):
    """`search.pruner` when `name` is asha (the default)."""

    name: Literal["asha"] = Field(
        "asha", description="asynchronous successive halving (Li et al. 2020)"
    )
    min_epochs: int = Field(1, ge=1, description="the first rung: epochs every trial gets")
    reduction_factor: int = Field(3, ge=2, description="one of so many goes on from each rung")


class MedianConfig(Section):
    """`search.pruner` when `name` is median."""

    name: Literal["median"] = Field(description="stop below the median of earlier trials")
    num_startup_trials: int = Field(4, ge=1, description="trials that end before any is stopped")
    warmup_epochs: int = Field(1, ge=0, description="epochs every trial gets")


class NoPrunerConfig(Section):
    """`search.pruner` when `name` is none."""

    name: Literal["none"] = Field(description="every trial trains to its end")


PrunerConfig = Annotated[
    Annotated[AshaConfig, Tag("asha")]
    | Annotated[MedianConfig, Tag("median")]
    | Annotated[NoPrunerConfig, Tag("none")],
    by_name("asha"),
]


class SearchConfig(Section):
    """What `ml-core tune` tries; the metric is training.best_metric."""

    FREE_VALUES: ClassVar[frozenset[str]] = frozenset({"trials"})

    sampler: Literal["tpe", "random", "grid", "list"] = Field(
        "tpe",
        description="tpe: models what was good (Bergstra et al. 2011), multivariate; grid: every "
        "combination; list: what `trials` lists",
    )
    num_trials: int | None = Field(
        None, ge=1, description="how many; 20 for tpe and random, all of them for grid and list"
    )
    num_workers: int = Field(1, ge=1, description="processes that run trials side by side")
    seed: int = Field(0, ge=0, lt=2**32, description="of the sampler; the runs have `seed`")
    num_startup_trials: PositiveInt = Field(8, description="of tpe: random ones before it models")
    pruner: PrunerConfig = AshaConfig()
    max_retries: int = Field(
        1,
        ge=0,
        description="of a trial that was killed or whose worker was lost; one that raises an error "
        "would raise it again",
    )
    lost_after_s: float = Field(
        120.0,
        ge=10,
        description="seconds without a sign of life before a trial on another machine is lost; on "
        "this one it is seen at once",
    )
    space: dict[str, ParameterConfig] = Field({}, description="config key: values to try")
    trials: tuple[dict[str, Any], ...] | None = Field(
        None, min_length=1, description="of list: the keys and values of each trial"
    )

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.sampler == "list":
            if self.trials is None or self.space:
                raise ValueError("sampler list takes `trials`, one mapping each, and no `space`")
        elif self.trials is not None:
            raise ValueError(f"`trials` belongs to sampler list, not {self.sampler}")
        elif not self.space:
            raise ValueError(f"sampler {self.sampler} needs a `space` of at least one key")
        if self.sampler in ("grid", "list") and self.num_trials is not None:
            raise ValueError(
                f"num_trials of sampler {self.sampler} is its own length; leave it out"
            )
        for key, parameter in self.space.items():
            if self.sampler == "grid" and parameter.choices is None and parameter.step is None:
                raise ValueError(f"space.{key}: a range in a grid needs a step, or write choices")
            for other in parameter.when:
                if other not in self.space or other == key:
                    raise ValueError(
                        f"space.{key}.when: {other} is not another searched key; searched are "
                        f"{', '.join(self.space)}"
                    )
        return self

"""What is searched: config keys with the values each may take, some only where others allow it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from ml_core.errors import ConfigError, did_you_mean

MOST_POINTS = 10_000  # of a grid: more is a slip, and would not fit in memory

Params = dict[str, Any]
When = Mapping[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Choices:
    """One of these values, which may be lists."""

    values: tuple[Any, ...]
    when: When = field(default_factory=dict)

    def at(self, share: float) -> Any:
        """Return the value at `share` (0 to 1, 1 excluded) of the way through all of them."""
        return self.values[int(share * len(self.values))]

    def grid(self) -> tuple[Any, ...]:
        """Return every value."""
        return self.values

    def ends(self) -> tuple[Any, ...]:
        """Return the values to check: all of them."""
        return self.values

    def to_dict(self) -> dict[str, Any]:
        """Return it as the config has it."""
        return {"choices": list(self.values), **_when_to_dict(self.when)}


@dataclass(frozen=True)
class Range:
    """A number from `low` to `high`, both included; whole where both are."""

    low: float
    high: float
    log: bool = False
    step: float | None = None
    when: When = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        numbers = (self.low, self.high, 1 if self.step is None else self.step)
        return all(isinstance(number, int) for number in numbers)

    def at(self, share: float) -> float:
        """Return the value at `share` (0 to 1, 1 excluded) of the way, on its own scale."""
        if self.step is not None:
            return self._of_step(int(share * self._num_steps()))
        # A whole number takes the interval of half a unit on either side of it.
        margin = 0.5 if self.is_whole else 0.0
        low, high = self.low - margin, self.high + margin
        if self.log:
            value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        else:
            value = low + share * (high - low)
        value = min(max(value, self.low), self.high)  # exp(log(x)) may miss x by a last bit
        return round(value) if self.is_whole else value

    def grid(self) -> tuple[float, ...]:
        """Return every value; raises ConfigError for a range without steps."""
        if self.step is None:
            raise ConfigError("a range in a grid needs a step, or write choices.")
        return tuple(self._of_step(position) for position in range(self._num_steps()))

    def ends(self) -> tuple[float, ...]:
        """Return the smallest and the largest value."""
        if self.step is None:
            return (self.low, self.high)
        return (self.low, self._of_step(self._num_steps() - 1))

    def to_dict(self) -> dict[str, Any]:
        """Return it as the config has it."""
        plain = {"low": self.low, "high": self.high, "log": self.log, "step": self.step}
        return {**plain, **_when_to_dict(self.when)}

    def _num_steps(self) -> int:
        assert self.step is not None
        return math.floor((self.high - self.low) / self.step + 1e-9) + 1

    def _of_step(self, position: int) -> float:
        assert self.step is not None
        value = self.low + position * self.step
        return value if self.is_whole else tidy(value)


Parameter = Choices | Range


@dataclass(frozen=True)
class Space:
    """The searched parameters by config key, each after those that its `when` names."""

    parameters: Mapping[str, Parameter]

    @classmethod
    def from_dict(cls, raw: Mapping[str, Mapping[str, Any]]) -> Space:
        """Read what `to_dict` gives, or the config has; raises ConfigError naming the key."""
        parameters = {key: _parameter(key, each) for key, each in raw.items()}
        for key, parameter in parameters.items():
            _check_when(key, parameter.when, parameters)
        return cls(_in_order(parameters))

    @classmethod
    def of_trials(cls, trials: Sequence[Mapping[str, Any]]) -> Space:
        """Return the smallest space that holds given trials: where all are numbers, a range."""
        parameters: dict[str, Parameter] = {}
        for key in dict.fromkeys(key for params in trials for key in params):
            values = _unique([params[key] for params in trials if key in params])
            if len(values) > 1 and all(_is_number(value) for value in values):
                parameters[key] = Range(min(values), max(values))
            else:
                parameters[key] = Choices(tuple(values))
        return cls(parameters)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return what `from_dict` reads, of plain values."""
        return {key: parameter.to_dict() for key, parameter in self.parameters.items()}

    @property
    def is_conditional(self) -> bool:
        return any(parameter.when for parameter in self.parameters.values())

    def is_active(self, key: str, params: Mapping[str, Any]) -> bool:
        """Whether `key` is searched beside `params`, which hold what its `when` names."""
        when = self.parameters[key].when
        return all(other in params and params[other] in values for other, values in when.items())

    def draw(self, seed: int, number: int) -> Params:
        """Return the random parameters of trial `number`: a function of (seed, number) alone.

        What a key gets depends on its own name, so that another key in the space changes nothing.
        """
        params: Params = {}
        for key, parameter in self.parameters.items():
            if self.is_active(key, params):
                params[key] = parameter.at(random_share(seed, number, key))
        return params

    def grid(self) -> list[Params]:
        """Return every combination, the last key changing fastest; raises ConfigError."""
        points: list[Params] = [{}]
        for key, parameter in self.parameters.items():
            if len(points) * len(parameter.grid()) > MOST_POINTS:
                raise ConfigError(
                    f"search: a grid over {', '.join(self.parameters)} has more than "
                    f"{MOST_POINTS:,} combinations. Give fewer values, or take sampler tpe."
                )
            points = [
                {**point, key: value} if self.is_active(key, point) else point
                for point in points
                for value in (parameter.grid() if self.is_active(key, point) else (None,))
            ]
        return points

    def ends(self) -> Iterator[tuple[str, Any, Params]]:
        """Yield each choice and each end of a range, with a whole trial that has it."""
        for key, parameter in self.parameters.items():
            needed = self._needed(key)
            for value in parameter.ends():
                yield key, value, self.complete({**needed, key: value})

    def complete(self, fixed: Mapping[str, Any]) -> Params:
        """Return the parameters of a trial: those of `fixed`, the others at their first value."""
        params: Params = {}
        for key, parameter in self.parameters.items():
            if self.is_active(key, params):
                params[key] = fixed.get(key, parameter.ends()[0])
        return params

    def _needed(self, key: str) -> Params:
        """Return what must be set for `key` to be active."""
        needed: Params = {}
        for other, values in self.parameters[key].when.items():
            needed |= {**self._needed(other), other: values[0]}
        return needed


def overrides(params: Mapping[str, Any]) -> list[str]:
    """Return "key=value" of each as `Config.load` takes it.

    The names of variants come first, since they decide which other keys there are.
    """
    ordered = sorted(params.items(), key=lambda item: not item[0].endswith(".name"))
    return [f"{key}={_as_yaml(value)}" for key, value in ordered]


def random_share(seed: int, *position: int | str) -> float:
    """Return a number from 0 to 1, 1 excluded, that is a function of the arguments alone."""
    text = json.dumps([seed, *position]).encode()
    return (int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 11) / 2**53


def tidy(value: float) -> float:
    """Return a multiple of a step as a person writes it: 0.3, not 0.30000000000000004."""
    return float(f"{value:.12g}")


def _as_yaml(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=math.inf)
    return text.removesuffix("...\n").strip()


def _parameter(key: str, raw: Mapping[str, Any]) -> Parameter:
    when = {other: tuple(values) for other, values in (raw.get("when") or {}).items()}
    if raw.get("choices") is not None:
        values = tuple(_plain(value) for value in raw["choices"])
        if len(_unique(values)) < len(values):
            raise ConfigError(f"search.space.{key}: choices {list(values)} repeat a value.")
        return Choices(values, when)
    return Range(raw["low"], raw["high"], bool(raw.get("log")), raw.get("step"), when)


def _check_when(key: str, when: When, parameters: Mapping[str, Parameter]) -> None:
    for other, values in when.items():
        where = f"search.space.{key}.when: {other}"
        decider = parameters.get(other)
        if decider is None:
            near = did_you_mean(other, parameters)
            raise ConfigError(
                f"{where} is not searched; searched are {', '.join(parameters)}.{near}"
            )
        if isinstance(decider, Range):
            raise ConfigError(f"{where} is a range; only a key with choices can decide.")
        strange = [value for value in values if value not in decider.values]
        if strange or not values:
            raise ConfigError(
                f"{where} never has {strange or 'one of no values'}; its choices are "
                f"{list(decider.values)}."
            )


def _in_order(parameters: Mapping[str, Parameter]) -> dict[str, Parameter]:
    """Return the parameters so that each comes after those its `when` names."""
    ordered: dict[str, Parameter] = {}
    while len(ordered) < len(parameters):
        ready = {
            key: parameter
            for key, parameter in parameters.items()
            if key not in ordered and set(parameter.when) <= set(ordered)
        }
        if not ready:
            left = ", ".join(key for key in parameters if key not in ordered)
            raise ConfigError(f"search.space: the conditions of {left} wait for one another.")
        ordered |= ready
    return ordered


def _plain(value: Any) -> Any:
    """Return `value` with lists where the config has tuples."""
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _unique(values: Sequence[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if value not in found:  # lists cannot be keys of a set
            found.append(value)
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _when_to_dict(when: When) -> dict[str, Any]:
    return {"when": {key: list(values) for key, values in when.items()}} if when else {}

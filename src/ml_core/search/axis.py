"""One searched parameter as an axis: where a value lies on it, and what is written beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from matplotlib.ticker import MaxNLocator

from ml_core.search.space import Choices, Parameter, Params, Range, Space
from ml_core.search.words import said

MOST_CHOICES = 5  # more numbers than this in a list of trials are drawn as a range
SPAN_OF_A_LOG = 30.0  # and over this factor on a logarithmic scale
NEAREST_TICKS = 0.16  # of the axis: closer labels would touch


class Tick(NamedTuple):
    """A place of 0..1 on the axis and its label."""

    place: float
    label: str


@dataclass(frozen=True)
class Axis:
    """`choices` in equal distances, or the range from `low` to `high`, logarithmic or not."""

    key: str
    choices: tuple[Any, ...] = ()
    low: float = math.nan
    high: float = math.nan
    log: bool = False
    digits: int = 6  # of the labels

    def place(self, value: Any) -> float:
        """Return where `value` lies, 0 at the low end and 1 at the high; NaN if it is no such."""
        if self.choices:
            if value not in self.choices:
                return math.nan
            return (self.choices.index(value) + 0.5) / len(self.choices)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return math.nan
        if self.low == self.high:
            return 0.5
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[Tick]:
        """Return both ends of the range, and round values between them; or the choices."""
        if self.choices:
            return [Tick(self.place(value), said(value)) for value in self.choices]
        ends = [Tick(0.0, said(self.low, self.digits)), Tick(1.0, said(self.high, self.digits))]
        if self.low == self.high:
            return [Tick(0.5, said(self.low, self.digits))]
        kept = list(ends)
        for value in _decades(self.low, self.high) if self.log else self._round_values():
            place = self.place(value)
            if all(abs(place - tick.place) > NEAREST_TICKS for tick in kept):
                kept.append(Tick(place, said(value, self.digits)))
        return sorted(kept)

    def _round_values(self) -> list[float]:
        values = MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(self.low, self.high)
        return [float(value) for value in values if self.low < value < self.high]


def axes_of(space: Space) -> list[Axis]:
    """Return the axis of each parameter of `space`."""
    return [_axis(key, parameter) for key, parameter in space.parameters.items()]


def axes_of_list(all_params: Sequence[Params]) -> list[Axis]:
    """Return an axis for each key of given trials: a range where there are many numbers.

    It is logarithmic where they span decades, since nobody said.
    """
    axes = []
    for key, parameter in Space.of_trials(all_params).parameters.items():
        values = [params[key] for params in all_params if key in params]
        tried = tuple(dict.fromkeys(values)) if isinstance(parameter, Range) else ()
        if isinstance(parameter, Range) and len(tried) > MOST_CHOICES:
            log = 0 < SPAN_OF_A_LOG * parameter.low < parameter.high
            axes.append(Axis(key, (), parameter.low, parameter.high, log))
        elif isinstance(parameter, Range):
            axes.append(Axis(key, tuple(sorted(tried))))
        else:
            axes.append(_axis(key, parameter))
    return axes


def _axis(key: str, parameter: Parameter) -> Axis:
    if isinstance(parameter, Choices):
        return Axis(key, parameter.values)
    return Axis(key, (), parameter.low, parameter.high, parameter.log)


def _decades(low: float, high: float) -> list[float]:
    first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))
    return [10.0**power for power in range(first, last + 1) if low < 10.0**power < high]

"""At which points of a search space to look whether each parameter does anything."""

from __future__ import annotations

from typing import Any

from ml_core.search.space import Params, Space


def probe_points(space: Space) -> list[Params]:
    """Return parameters of trials that differ from a base point in one parameter at a time.

    A range is tried at its middle and both ends, choices all of them. A conditional parameter is
    tried where it is active. The base comes first and once more at the end: what differs between
    the two is noise.
    """
    middle = {key: parameter.at(0.5) for key, parameter in space.parameters.items()}
    base = space.complete(middle)
    points = [base]
    for key, parameter in space.parameters.items():
        around = {**middle, **_deciders(space, key)}
        for value in (middle[key], *parameter.ends()):
            point = space.complete({**around, key: value})
            if point not in points:
                points.append(point)
    return [*points, base]


def conditions(space: Space) -> dict[str, tuple[str, ...]]:
    """Return for each key the keys that decide whether it is active."""
    return {key: tuple(parameter.when) for key, parameter in space.parameters.items()}


def _deciders(space: Space, key: str) -> dict[str, Any]:
    """Return what must be set for `key` to be active."""
    needed: dict[str, Any] = {}
    for other, values in space.parameters[key].when.items():
        needed |= {**_deciders(space, other), other: values[0]}
    return needed

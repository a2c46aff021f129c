"""Whether a searched parameter ever changed what a trial did; pure, from what trials did.

A search over a batch size that never reached the loader gives a table of seeds that looks like a
result. So trials that differ in one parameter alone are compared by their deeds: facts from running
them, never the text of their configs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_core.findings import Finding
from ml_core.page.text import enumerated
from ml_core.search.deed import FACTS, Deed, describe
from ml_core.search.words import number_of, said

Params = Mapping[str, Any]
# For each key those that decide whether it is active: {"optimizer.momentum": ("optimizer.name",)}.
Conditions = Mapping[str, Collection[str]]

_NOISE_FACTOR = 10  # times the difference between two trials alike in everything


@dataclass(frozen=True)
class _Pair:
    values: tuple[Any, Any]
    deeds: tuple[Deed, Deed]
    differ: bool


def check_effects(parameters: Conditions, deeds: Sequence[tuple[Params, Deed]]) -> list[Finding]:
    """Return what is to be said about `parameters`, given what trials of known parameters did.

    Of each parameter, all pairs of trials that differ in it alone. All of them did the same:
    `no-effect`, an error. Some values did: `values-alike`, a warning. There is no such pair:
    `effect-not-tested`, one info for all of them. A trial with an error: `did-not-run`, a warning.
    Where two trials of equal parameters differ in a number (a GPU adds in any order), only what is
    ten times as far apart counts as different.
    """
    ran = [(params, deed) for params, deed in deeds if not deed.error]
    noise = _noise(ran)
    pairs = _pairs(parameters, ran, noise)
    findings = [_did_not_run(params, deed) for params, deed in deeds if deed.error]
    for key, of_key in pairs.items():
        if of_key and not any(pair.differ for pair in of_key):
            findings.append(_no_effect(key, of_key))
        else:
            findings += [_values_alike(key, values) for values in _alike(of_key)]
    untested = [key for key, of_key in pairs.items() if not of_key]
    if untested:
        findings.append(_not_tested(untested))
    return findings


def comparable(parameters: Conditions, all_params: Sequence[Params]) -> set[int]:
    """Return the places of those trials that some other differs from in one parameter alone."""
    pairs = _places(parameters, all_params)
    return {place for _, first, second in pairs for place in (first, second)}


def _pairs(
    parameters: Conditions, deeds: Sequence[tuple[Params, Deed]], noise: Mapping[str, float]
) -> dict[str, list[_Pair]]:
    """Return the pairs that tell something about each parameter.

    Two that agree, one of them cut short, tell nothing: the rest of it is not known.
    """
    pairs: dict[str, list[_Pair]] = {key: [] for key in parameters}
    for key, first, second in _places(parameters, [params for params, _ in deeds]):
        (one, deed), (other, other_deed) = deeds[first], deeds[second]
        differ = not _same(deed, other_deed, noise)
        if differ or (deed.is_whole and other_deed.is_whole):
            pairs[key].append(_Pair((one[key], other[key]), (deed, other_deed), differ))
    return pairs


def _places(parameters: Conditions, all_params: Sequence[Params]) -> Iterator[tuple[str, int, int]]:
    """Yield (parameter, place, place) of all that differ in one parameter alone.

    What is active in one of them only does not count where that is decided by the parameter.
    """
    for (first, one), (second, other) in itertools.combinations(enumerate(all_params), 2):
        changed = [key for key in one.keys() & other.keys() if one[key] != other[key]]
        if len(changed) != 1 or changed[0] not in parameters:
            continue
        key = changed[0]
        if all(_hangs_on(each, key, parameters) for each in one.keys() ^ other.keys()):
            yield key, first, second


def _hangs_on(key: str, decider: str, parameters: Conditions) -> bool:
    return any(
        each == decider or _hangs_on(each, decider, parameters) for each in parameters.get(key, ())
    )


def _noise(deeds: Sequence[tuple[Params, Deed]]) -> dict[str, float]:
    """Return how far apart each number of two trials of equal parameters was at most."""
    noise: dict[str, float] = {}
    for (one, deed), (other, other_deed) in itertools.combinations(deeds, 2):
        if one != other:
            continue
        for name in FACTS:
            apart = _apart(getattr(deed, name), getattr(other_deed, name))
            if math.isfinite(apart):
                noise[name] = max(noise.get(name, 0.0), apart)
    return noise


def _same(one: Deed, other: Deed, noise: Mapping[str, float]) -> bool:
    return all(
        _apart(getattr(one, name), getattr(other, name)) <= _NOISE_FACTOR * noise.get(name, 0.0)
        for name in FACTS
    )


def _apart(one: Any, other: Any) -> float:
    """Return 0 for equal facts, the difference of numbers (the largest of a row), else infinity."""
    if isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other):
        return max((_apart(a, b) for a, b in zip(one, other, strict=True)), default=0.0)
    if isinstance(one, float) and isinstance(other, float):
        if math.isnan(one) or math.isnan(other):
            return 0.0 if math.isnan(one) and math.isnan(other) else math.inf
        return abs(one - other)
    return 0.0 if one == other else math.inf


def _alike(pairs: Sequence[_Pair]) -> list[list[Any]]:
    """Return the groups of values that did the same wherever they meet."""
    groups: list[list[Any]] = []
    meetings = {repr(pair.values): pair.values for pair in pairs if not pair.differ}
    for pair in pairs:
        if pair.differ:  # once is enough to tell the two apart
            meetings.pop(repr(pair.values), None)
            meetings.pop(repr(pair.values[::-1]), None)
    for one, other in meetings.values():
        joined = [group for group in groups if one in group or other in group]
        rest = [group for group in groups if group not in joined]
        members = [value for group in joined for value in group]
        members += [value for value in (one, other) if value not in members]
        groups = [*rest, members]
    return groups


def _no_effect(key: str, pairs: Sequence[_Pair]) -> Finding:
    values: list[Any] = []
    for value in (value for pair in pairs for value in pair.values):
        if value not in values:
            values.append(value)
    values = _in_order(values)
    deed = pairs[0].deeds[0]
    return Finding(
        "no-effect",
        "error",
        f"searching {key} had no effect: with {_listed(values)} a trial did the same "
        f"({describe(deed)}; all of it identical in {number_of(len(pairs), 'pair')} of trials).",
        f"Find out why {key} does not reach what it should set, or take it out of search.space.",
        facts={"parameter": key, "values": values, "pairs": len(pairs), "same": deed.to_dict()},
    )


def _values_alike(key: str, values: Sequence[Any]) -> Finding:
    values = _in_order(values)
    return Finding(
        "values-alike",
        "warning",
        f"the values {_listed(values)} of {key} did the same.",
        "Keep one of them: trials with the others repeat it.",
        facts={"parameter": key, "values": values},
    )


def _not_tested(keys: Sequence[str]) -> Finding:
    return Finding(
        "effect-not-tested",
        "info",
        f"whether {enumerated(keys)} had an effect cannot be told from these trials: no two of "
        "them that ran to their end differ in one of these alone.",
        facts={"parameters": list(keys)},
    )


def _did_not_run(params: Params, deed: Deed) -> Finding:
    return Finding(
        "did-not-run",
        "warning",
        f"with {', '.join(f'{key} {said(value)}' for key, value in params.items())} the first "
        f"steps could not be taken: {deed.error.rstrip('.')}.",
        "A trial near there will fail as well: narrow search.space, or leave it to fail.",
        facts={"params": dict(params), "error": deed.error},
    )


def _in_order(values: Sequence[Any]) -> list[Any]:
    try:
        return sorted(values)
    except TypeError:  # null among numbers, or words: as they came
        return list(values)


def _listed(values: Sequence[Any]) -> str:
    return enumerated([said(value) for value in values])

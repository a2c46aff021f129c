"""Which settings were trained with, and whether config.yaml still says so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ml_core.config.recipe import REACH_NO_WEIGHT
from ml_core.reproducibility.numerics_record import flatten
from ml_core.verification.differences import Difference
from ml_core.verification.run_evidence import RunEvidence

_NOT_SET = "not set"


def compare_config(a: RunEvidence, b: RunEvidence) -> Iterator[Difference]:
    """Yield the edits of a config.yaml since its run, then the settings of `a` that `b` lacks."""
    edits = [*_edits_of(a), *_edits_of(b)]
    yield from edits
    here, there = (e.config or e.config_file or {} for e in (a, b))
    if not here or not there:
        return
    edited = {(each.what.rpartition(" ")[2], each.here, each.there) for each in edits}
    for key, ours, theirs in _what_differs(here, there):
        if (key, ours, theirs) not in edited:  # the present that is read from the edited file
            yield Difference(
                "config", key, ours, theirs, f"Train both with the same value, --set {key}={ours}."
            )


def _edits_of(evidence: RunEvidence) -> Iterator[Difference]:
    """Yield each setting that config.yaml no longer gives as it was trained with."""
    if not evidence.config or evidence.config_file is None:
        return
    for key, then, now in _what_differs(evidence.config, evidence.config_file):
        yield Difference(
            "config", f"config.yaml of {evidence.name}, {key}", then, now,
            f"config.yaml was edited after the run, which trained with {then}: put that back.",
        )  # fmt: skip


def _what_differs(
    here: Mapping[str, Any], there: Mapping[str, Any]
) -> Iterator[tuple[str, str, str]]:
    """Yield (dotted key, value here, value there), in the order of the file."""
    ours, theirs = flatten(here), flatten(there)
    for key in dict.fromkeys([*ours, *theirs]):
        x, y = ours.get(key), theirs.get(key)
        if x != y and not _reaches_no_weight(key):
            yield key, _shown(x), _shown(y)


def _reaches_no_weight(key: str) -> bool:
    return any(key == each or key.startswith(f"{each}.") for each in REACH_NO_WEIGHT)


def _shown(value: Any) -> str:
    return _NOT_SET if value is None else str(value)

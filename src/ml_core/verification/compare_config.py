"""Which settings were trained with, and whether config.yaml still says so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ml_core.config.recipe import REACH_NO_WEIGHT
from ml_core.reproducibility.numerics_record import flatten
from ml_core.verification.differences import MISSING, NOT_RECORDED, Difference
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
    name, file = evidence.name, evidence.config_file
    if not evidence.config:
        if file is not None:
            yield Difference(
                "config", f"run.json of {name}, the config", NOT_RECORDED, "read from config.yaml",
                "Whether config.yaml was edited after the run cannot be told.", is_edit=True,
            )  # fmt: skip
    elif file is None and not evidence.is_present:
        yield Difference(
            "config", f"config.yaml of {name}", "as run.json has it", MISSING,
            "Copy it again from where the run came from.", is_edit=True,
        )  # fmt: skip
    for key, then, now in _what_differs(evidence.config, file) if evidence.config and file else ():
        yield Difference(
            "config", f"config.yaml of {name} against its run.json, {key}", then, now,
            "One of the two was edited after the run. Steps are taken again by run.json: where "
            "these give the same bits, put config.yaml back.", is_edit=True,
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

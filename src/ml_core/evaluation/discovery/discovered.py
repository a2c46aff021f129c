"""What a search for failures found, and how it was confirmed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from ml_core.evaluation.predictions import null_if_nan
from ml_core.evaluation.slices.slice import Slice
from ml_core.findings import Finding

Target = Literal["errors", "missed tumours", "false alarms"]
FoundBy = Literal["rule", "cluster"]


@dataclass(frozen=True)
class Look:
    """How the patches of a slice differ from the rest in one fact.

    `z` is the difference of the means in standard deviations of all patches; `words` say it.
    """

    fact: str
    z: float
    words: str


@dataclass(frozen=True)
class Suggested:
    """A slice on the patches that suggested it: too bad, since it was picked for being bad.

    `n` patches of the slice that the target can go wrong on (tumours, for missed tumours); `error`
    is their error rate, `rest_error` that of the others, and `difference` compares like with like:
    patches of the same class, and in the same of the slices that were suggested before.
    """

    n: int
    error: float
    rest_error: float
    difference: float


@dataclass(frozen=True)
class Confirmed:
    """The same slice on patches that did not suggest it; figures as in `Suggested`.

    `errors` of `n` are wrong. The difference lies between `low` and `high`; `p` is two-sided, `q`
    corrected for the number of suggestions. NaN where the patches are too few to tell.
    """

    n: int
    errors: int
    error: float
    rest_error: float
    difference: float
    low: float
    high: float
    p: float
    q: float

    def to_dict(self) -> dict[str, Any]:
        """Return the figures, JSON-able, with the difference as a score."""
        shown = {name: _shown(value) for name, value in asdict(self).items()}
        ends = {"low": shown.pop("low"), "high": shown.pop("high")}
        return {**shown, "difference": {"value": shown["difference"], **ends}}


@dataclass(frozen=True, eq=False)
class DiscoveredSlice:
    """A slice that one half of the patches suggested, and what the other half says of it.

    `target` is what goes wrong there more often: "errors" of both classes, "missed tumours" among
    tumours, or "false alarms" among normal patches. `is_confirmed` where it does so with a q of at
    most the false discovery rate. `beside` names the slices that were suggested before and overlap
    with it: its differences are those that they do not explain. `examples` are up to 12 indices of
    the confirming half, the largest loss first.
    """

    slice: Slice
    found_by: FoundBy
    target: Target
    suggested: Suggested
    confirmed: Confirmed
    is_confirmed: bool
    looks: tuple[Look, ...]
    beside: tuple[str, ...]
    examples: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the slice, JSON-able, without its mask."""
        return {
            "name": self.slice.name,
            "group": self.slice.group,
            "kind": self.slice.kind,
            "where": self.slice.where,
            "said": self.slice.said,
            "n": len(self.slice),
            "found_by": self.found_by,
            "target": self.target,
            "suggested": {name: _shown(value) for name, value in asdict(self.suggested).items()},
            "confirmed": self.confirmed.to_dict(),
            "is_confirmed": self.is_confirmed,
            "looks": [asdict(look) for look in self.looks],
            "beside": list(self.beside),
            "examples": list(self.examples),
        }


@dataclass(frozen=True, eq=False)
class Discovery:
    """All suggested slices, the confirmed first, and how they were searched.

    Confirmed ones are in order of how large the excess is at least, the lower end of its interval;
    the others in order of p. `split_by` is what the halves keep together: "slide", or "patch" and
    its copies. `num_tried` slices were compared on the half that suggests. `detectable` is the
    excess that a slice of a tenth of the confirming half must have to be confirmed in 4 of 5 cases,
    NaN where nothing can be. `notes` are sentences for the reader: what was not done, and why.
    """

    slices: tuple[DiscoveredSlice, ...]
    split_by: Literal["slide", "patch"]
    num_suggesting: int
    num_confirming: int
    num_tried: int
    num_suggested: int
    num_confirmed: int
    detectable: float
    false_discovery_rate: float
    level: float
    max_terms: int
    seed: int
    notes: tuple[str, ...]
    findings: tuple[Finding, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the masks, JSON-able."""
        return {
            **vars(self),
            "detectable": null_if_nan(self.detectable),
            "slices": [each.to_dict() for each in self.slices],
            "notes": list(self.notes),
            "findings": [asdict(finding) for finding in self.findings],
        }


def _shown(value: float) -> float | None:
    return value if isinstance(value, int) else null_if_nan(value)

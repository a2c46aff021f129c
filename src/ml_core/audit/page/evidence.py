"""What the page shows of one finding: how bad it is, the patches themselves, rows and figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_core.audit.page.facts import FactTable, fact_tables
from ml_core.audit.page.thumbnails import Place

MAX_ROWS_LISTED = 200
MAX_GROUPS = 10  # a row of single patches, two of pairs
MAX_IN_GROUP = 4
# Of all findings together: at about 8 KB each they keep the page below 4 MB.
MAX_PATCHES_SHOWN = 400
MAX_PATCHES_OF_ONE = 20

# Not by colour alone: each severity has a shape of its own.
MARKS = {"error": "✕", "warning": "!", "info": "i"}


@dataclass(frozen=True)
class Group:
    """Patches to be looked at together, and how many more belong to them."""

    places: tuple[Place, ...]
    num_more: int = 0


@dataclass(frozen=True)
class Card:
    """One finding as the page lays it out; texts are not yet escaped."""

    anchor: str
    id: str
    severity: str
    message: str
    action: str
    split: str
    count: int
    share: float
    exclude: bool
    groups: tuple[Group, ...]
    rows: tuple[int, ...]  # the first of them
    num_rows: int
    facts: tuple[FactTable, ...]

    @property
    def title(self) -> str:
        return self.id.replace("-", " ").replace("_", " ").replace("jpeg", "JPEG")

    @property
    def mark(self) -> str:
        return MARKS[self.severity]

    @property
    def is_brief(self) -> bool:
        """Whether its figures are so few that they need not be folded away."""
        return len(self.facts) == 1 and self.facts[0].is_list and len(self.facts[0].rows) <= 6

    @property
    def shows_pairs(self) -> bool:
        """Whether some patches are to be seen side by side."""
        return any(len(group.places) > 1 for group in self.groups)

    @property
    def marks_centre(self) -> bool:
        """Whether the centre, which decides the label, matters to this finding."""
        return "label" in self.id or "conflict" in self.id


def build_cards(findings: Sequence[Mapping[str, Any]]) -> list[Card]:
    """Return a card for each finding, in their order."""
    num_with = sum(bool(each.get("examples") or each.get("indices")) for each in findings)
    per_finding = min(MAX_PATCHES_OF_ONE, max(2, MAX_PATCHES_SHOWN // max(num_with, 1)))
    cards, left = [], MAX_PATCHES_SHOWN
    for number, finding in enumerate(findings, start=1):
        groups = tuple(_groups(finding, min(per_finding, left)))
        left -= sum(len(group.places) for group in groups)
        cards.append(_card(finding, f"finding{number}", groups))
    return cards


def places_of(cards: Iterable[Card]) -> Iterator[Place]:
    """Yield every patch that the cards show."""
    for card in cards:
        for group in card.groups:
            yield from group.places


def _card(finding: Mapping[str, Any], anchor: str, groups: tuple[Group, ...]) -> Card:
    indices = finding.get("indices") or ()
    severity = str(finding.get("severity", "info"))
    return Card(
        anchor=anchor,
        id=str(finding.get("id", "")),
        severity=severity if severity in MARKS else "info",
        message=str(finding.get("message", "")),
        action=str(finding.get("action") or ""),
        split=str(finding.get("split") or ""),
        count=int(finding.get("count") or 0),
        share=float(finding.get("share") or 0.0),
        exclude=bool(finding.get("exclude")),
        groups=groups,
        rows=tuple(int(row) for row in indices[:MAX_ROWS_LISTED]),
        num_rows=len(indices),
        facts=tuple(fact_tables(finding.get("facts") or {})),
    )


def _groups(finding: Mapping[str, Any], num_patches: int) -> Iterator[Group]:
    """Yield the examples; of a finding with rows but no examples, some rows evenly spaced."""
    examples = list(finding.get("examples") or ())
    if not examples:
        indices, split = finding.get("indices") or (), str(finding.get("split") or "")
        if split:
            examples = [[[split, index]] for index in _spread(indices, 8)]
    for example in examples[:MAX_GROUPS]:
        places = tuple((str(split), int(index)) for split, index in example)
        shown = places[:MAX_IN_GROUP]
        num_patches -= len(shown)
        if not shown or num_patches < 0:
            return
        yield Group(shown, len(places) - len(shown))


def _spread(items: Sequence[Any], num: int) -> list[Any]:
    num = min(num, len(items))
    return [items[place * len(items) // num] for place in range(num)]

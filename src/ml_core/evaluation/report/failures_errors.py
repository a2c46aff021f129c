"""The errors of errors.json in three galleries, labels in doubt apart from errors of the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PER_GALLERY = 24  # patches, most confident first
SHOWN = 8  # of them before "more"; their neighbours are shown as pictures
MAX_NEIGHBOURS = 5
TITLES = {
    "false_negative": "Tumour, called normal",
    "false_positive": "Normal, called tumour",
    "label": "Labels in doubt",
}


@dataclass(frozen=True)
class Neighbour:
    """A train patch that looks alike to the model."""

    split: str
    index: int
    label: int


@dataclass(frozen=True)
class ErrorCard:
    """One wrong patch; None and empty where nothing is known."""

    index: int
    y_true: int
    y_prob: float
    flags: tuple[str, ...]
    neighbours: tuple[Neighbour, ...]
    neighbours_agree: float | None  # the share labelled as the model says
    seeds_agree: float | None
    why: tuple[str, ...]

    @property
    def num_agreeing(self) -> int:
        """How many neighbours are labelled as the model says."""
        return sum(each.label != self.y_true for each in self.neighbours)


@dataclass(frozen=True)
class ErrorGallery:
    """The most confident errors of one kind; `total` is of all of this kind.

    `elsewhere` are more of the same kind that another gallery has: their label is in doubt.
    """

    name: str
    title: str
    total: int
    elsewhere: int
    cards: Sequence[ErrorCard]

    @property
    def first(self) -> Sequence[ErrorCard]:
        return self.cards[:SHOWN]

    @property
    def more(self) -> Sequence[ErrorCard]:
        return self.cards[SHOWN:]


@dataclass(frozen=True)
class ErrorsPart:
    """What the page shows of errors.json."""

    num_errors: int
    n: int
    false_positives: int
    false_negatives: int
    num_doubtful: int
    rule: str
    galleries: Sequence[ErrorGallery]


def build_errors_part(content: Mapping[str, Any]) -> ErrorsPart:
    """Return the galleries; those of errors leave out the patches whose label is in doubt.

    Raises KeyError, TypeError or ValueError where it is not as `ErrorTable.to_dict` writes it.
    """
    doubtful = content["doubtful_labels"]
    doubted = Counter(error["kind"] for error in content["errors"] if error["doubt"] == "label")
    by_kind: dict[str, list[Mapping[str, Any]]] = {name: [] for name in TITLES}
    for error in content["errors"]:
        by_kind["label" if error["doubt"] == "label" else error["kind"]].append(error)
    return ErrorsPart(
        num_errors=int(content["num_errors"]),
        n=int(content["n"]),
        false_positives=int(content["false_positives"]),
        false_negatives=int(content["false_negatives"]),
        num_doubtful=int(doubtful["n"]),
        rule=str(doubtful["rule"]),
        galleries=[
            ErrorGallery(
                name, TITLES[name], len(each), doubted[name], [_card(e) for e in each[:PER_GALLERY]]
            )
            for name, each in by_kind.items()
        ],
    )


def _card(error: Mapping[str, Any]) -> ErrorCard:
    return ErrorCard(
        index=int(error["index"]),
        y_true=int(error["y_true"]),
        y_prob=float(error["y_prob"]),
        flags=tuple(map(str, error["flags"])),
        neighbours=tuple(
            Neighbour(str(each["split"]), int(each["index"]), int(each["label"]))
            for each in error["neighbours"][:MAX_NEIGHBOURS]
        ),
        neighbours_agree=error["neighbours_agree"],
        seeds_agree=error["seeds_agree"],
        why=tuple(map(str, error["why"])),
    )

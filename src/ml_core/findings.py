"""What a check or a run says about itself: one sentence on what it means, one on what to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")  # the worst first


@dataclass(frozen=True)
class Finding:
    """Something a reader must know, for example that a fifth of train is broken.

    `error`: numbers made from this would be wrong. `warning`: read it before believing a number.
    `info`: a fact worth knowing. The fields after `action` are of findings about patches.
    """

    id: str  # kebab-case, the same for the same defect everywhere
    severity: Severity
    message: str  # what it means, with the figures, in one sentence
    action: str = ""  # what to do, in one sentence
    split: str = ""  # whose rows `indices` are; "" where it is about the whole data set
    count: int = 0  # patches concerned
    share: float = 0.0  # of the patches of `split` that were examined
    indices: tuple[int, ...] = ()  # rows in the source file of `split`, rising
    exclude: bool = False  # whether `indices` are better left out of training and scoring
    # Groups of (split, index) to be looked at together: a pair of duplicates, or one patch alone.
    examples: tuple[tuple[tuple[str, int], ...], ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)  # further figures, JSON-able

"""The slice table: every slice with its scores, the worst first."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ml_core.errors import RunError, cannot_write
from ml_core.evaluation.slices.differences import KINDS
from ml_core.evaluation.slices.findings import slice_findings
from ml_core.evaluation.slices.known_slides import KnownSlides
from ml_core.evaluation.slices.slice_score import Score, SliceScore
from ml_core.findings import Finding
from ml_core.metrics import HIGHER_IS_BETTER
from ml_core.runs import write_text

_FACTS = (
    "name", "group", "kind", "where", "n", "positives", "prevalence", "num_slides", "clustered_by",
    "standing",
)  # fmt: skip
_WORDS = ("said", "too_small", "note")
_ENDS = {"value": "", "low": "_low", "high": "_high"}
_TESTED = {**_ENDS, "p": "_p", "q": "_q"}
COLUMNS = (
    *_FACTS,
    *(f"{kind}_difference{end}" for kind in KINDS for end in _TESTED.values()),
    *(f"{metric}{end}" for metric in HIGHER_IS_BETTER for end in _ENDS.values()),
    *_WORDS,
)


@dataclass(frozen=True)
class SliceTable:
    """What `score_slices` found; `overall` is the whole split, `rows` the slices, worst first."""

    overall: Mapping[str, Score]
    rows: tuple[SliceScore, ...]
    slides: KnownSlides
    level: float
    num_resamples: int
    false_discovery_rate: float
    min_patches: int
    min_per_class: int

    @property
    def num_tested(self) -> int:
        """Return how many slices were compared with the rest in error."""
        return sum(row.standing != "not scored" for row in self.rows)

    @property
    def num_worse(self) -> int:
        """Return how many of them are worse."""
        return sum(row.standing == "worse" for row in self.rows)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Return what a reader must know of it."""
        return slice_findings(self.rows, self.slides, self.false_discovery_rate)

    def to_dict(self) -> dict[str, Any]:
        """Return what slices.json holds of it; undefined numbers are None."""
        return {
            "level": self.level,
            "num_resamples": self.num_resamples,
            "false_discovery_rate": self.false_discovery_rate,
            "min_patches": self.min_patches,
            "min_per_class": self.min_per_class,
            "clustered_by": "slide" if self.slides.are_enough else None,
            "overall": {name: score.to_dict() for name, score in self.overall.items()},
            "slices": [row.to_dict() for row in self.rows],
            "num_tested": self.num_tested,
            "num_worse": self.num_worse,
            "findings": [asdict(finding) for finding in self.findings],
        }

    def to_csv_rows(self) -> list[dict[str, Any]]:
        """Return each slice as one flat row, in order; what is undefined is None."""
        return [_flat(row.to_dict()) for row in self.rows]

    def save_csv(self, path: Path) -> None:
        """Write `to_csv_rows` for spreadsheets, undefined numbers as empty cells.

        Raises RunError when the file cannot be written.
        """
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.to_csv_rows())
        try:
            write_text(path, text.getvalue())
        except OSError as error:
            raise RunError(cannot_write(path, error)) from error


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    flat = {name: row[name] for name in (*_FACTS, *_WORDS)}
    for metric in HIGHER_IS_BETTER:
        found = row["metrics"].get(metric, {})
        flat |= {f"{metric}{end}": found.get(key) for key, end in _ENDS.items()}
    for kind in KINDS:
        found = row["differences"].get(kind, {})
        flat |= {f"{kind}_difference{end}": found.get(key) for key, end in _TESTED.items()}
    return {name: flat[name] for name in COLUMNS}

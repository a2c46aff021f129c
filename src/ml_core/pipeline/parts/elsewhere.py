"""A run that goes on where its bits are others: written down, and said for ever."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ml_core.findings import Finding
from ml_core.reproducibility.same_numerics import what_differs
from ml_core.runs import RunRecord

logger = logging.getLogger("ml_core.train")


def note_elsewhere(record: RunRecord, numerics: Mapping[str, Any], step: int) -> None:
    """Note from which `step` on, and in what, this process differs from the one that began the run.

    `numerics` is the record of this process; nothing is noted where the bits will be the same.
    """
    level = record.numerics.get("level", "fast")
    changes = [
        f"{name} was {then} and is {now}"
        for name, then, now in what_differs(record.numerics, numerics, level)
    ]
    if changes:
        kept = record.numerics.setdefault("elsewhere", [])
        kept.append({"step": step, "changes": changes})
        logger.warning("going on elsewhere: %s", "; ".join(changes))


def elsewhere_findings(record: RunRecord) -> list[Finding]:
    """Return a warning for each time that the run went on elsewhere."""
    return [
        Finding(
            f"elsewhere-{each['step']}",
            "warning",
            f"From step {each['step']} on the run was trained elsewhere: "
            f"{'; '.join(each['changes'])}. Its bits are those of no single machine.",
        )
        for each in record.numerics.get("elsewhere", [])
    ]

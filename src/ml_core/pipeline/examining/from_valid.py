"""What valid gave, to be looked at again on test: nothing is chosen there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ml_core.errors import RunError
from ml_core.evaluation.slices.own import own_slices
from ml_core.evaluation.slices.slice import Slice
from ml_core.evaluation.uncertainty.abstention import Chosen
from ml_core.pipeline.parts.operating_run import OperatingRun
from ml_core.runs import read_json


def slices_of_valid(operating: OperatingRun, facts: pd.DataFrame) -> list[Slice]:
    """Return the rules that a search on valid found and confirmed, over the rows of `facts`.

    Clusters are left out: they are groups of valid patches.
    """
    content = _of_this_champion(operating, operating.run.slices_path("valid"))
    found = (content.get("discovery") or {}).get("slices", [])
    queries = {
        f"found on valid: {each['name']}": each["where"]
        for each in found
        if each["is_confirmed"] and each["where"]
    }
    return own_slices(queries, facts)


def abstention_of_valid(operating: OperatingRun) -> Chosen | None:
    """Return the range to abstain in that valid gave; None where it gave none."""
    content = _of_this_champion(operating, operating.run.uncertainty_path("valid"))
    found = content.get("abstention")
    return found and Chosen(found["below"], found["above"], found["target_risk"])


def _of_this_champion(operating: OperatingRun, path: Path) -> Mapping[str, Any]:
    """Return a result of valid, empty where it is not there or of another operating point."""
    try:
        content = read_json(path)
    except RunError:
        return {}
    now = operating.describe()
    return content if all(content.get(key) == value for key, value in now.items()) else {}

"""What valid gave, to be looked at again on test: nothing is chosen there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ml_core.errors import RunError
from ml_core.evaluation.slices.own import own_slices
from ml_core.evaluation.slices.slice import Slice
from ml_core.evaluation.uncertainty.abstention import Chosen
from ml_core.findings import Finding
from ml_core.pipeline.parts.operating_run import OperatingRun
from ml_core.runs import read_json


@dataclass(frozen=True)
class FromValid:
    """What `slice` found on valid for this champion; empty, with a finding, where it did not."""

    slices: Mapping[str, Any]
    uncertainty: Mapping[str, Any]
    findings: tuple[Finding, ...] = ()

    def rules(self, facts: pd.DataFrame) -> list[Slice]:
        """Return the rules that the search confirmed, over the rows of `facts`.

        Clusters are left out: they are groups of valid patches.
        """
        found = (self.slices.get("discovery") or {}).get("slices", [])
        queries = {
            f"found on valid: {each['name']}": each["where"]
            for each in found
            if each["is_confirmed"] and each["where"]
        }
        return own_slices(queries, facts)

    @property
    def abstention(self) -> Chosen | None:
        """The range to abstain in that valid gave; None where it gave none."""
        found = self.uncertainty.get("abstention")
        return found and Chosen(found["below"], found["above"], found["target_risk"])


def read_from_valid(operating: OperatingRun) -> FromValid:
    """Return what valid gave at this operating point."""
    run, now = operating.run, operating.describe()
    paths = (run.slices_path("valid"), run.uncertainty_path("valid"))
    try:
        slices, uncertainty = map(read_json, paths)
        for path, content in zip(paths, (slices, uncertainty), strict=True):
            if any(content.get(key) != value for key, value in now.items()):
                raise RunError(f"{path.name} is of another operating point than this champion's.")
    except RunError as error:
        message = (
            f"What valid suggests is not looked at again on test: {error} First: ml-core slice "
            "champion.json"
        )
        return FromValid({}, {}, (Finding("nothing-from-valid", "warning", message),))
    return FromValid(slices, uncertainty)

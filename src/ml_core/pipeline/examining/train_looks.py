"""What the training patches look like: the ground a changed patch is judged against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_core.audit.patch_rows import measure_levels
from ml_core.evaluation.slices.facts import FACTS
from ml_core.evaluation.slices.patch_facts import patch_facts
from ml_core.pipeline.examining.patch_table import patches_of
from ml_core.pipeline.examining.sample import sample_of
from ml_core.pipeline.parts.operating_run import OperatingRun
from ml_core.pipeline.parts.splits import open_split, run_exclusions

CENTRAL = 0.95  # share of train patches inside a range
SAMPLE = 3000  # patches that are measured where no audit holds them


@dataclass(frozen=True)
class TrainLooks:
    """The central 95 % of each fact, the mean levels (3,), and the file that these are from."""

    ranges: Mapping[str, tuple[float, float]]
    colour: Sequence[float]
    source: str


def look_at_train(operating: OperatingRun) -> TrainLooks:
    """Return the looks of the train patches that the run used: by its audit, else of a sample."""
    exclude = run_exclusions(operating.run, operating.record)
    used = open_split(operating.config, "train", exclude).indices
    table = patches_of(operating, "train", sample_of(used, SAMPLE, operating.config.seed))
    rows = table.rows[table.rows["index"].isin(used)]
    facts = patch_facts(rows)
    tail = (1 - CENTRAL) / 2
    ranges = {}
    for name in facts.columns:
        if FACTS[name].kind == "number":
            low, high = facts[name].astype(np.float64).quantile([tail, 1 - tail])
            if np.isfinite([low, high]).all():
                ranges[name] = (float(low), float(high))
    colour = rows[["mean_r", "mean_g", "mean_b"]].mean().tolist()
    return TrainLooks(ranges, colour, table.source)


def facts_of_levels(levels: npt.NDArray[np.uint8]) -> pd.DataFrame:
    """Return the facts of patches (N, H, W, 3) that are in no file."""
    return patch_facts(measure_levels(levels))

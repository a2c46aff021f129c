"""The table of baselines: what each says about every patch of one split."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ml_core.errors import RunError
from ml_core.evaluation.split_table import check_unique, facts_of, read_table, write_table

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# In the order of every table; the first two are decisions without a probability.
BASELINES = (
    "always_positive",
    "always_negative",
    "prior",
    "mean_colour",
    "colour_histogram",
    "random_features",
)
SCHEMA = pa.schema(
    [
        pa.field("split", pa.string(), nullable=False),
        pa.field("index", pa.int64(), nullable=False),
        pa.field("y_true", pa.int8(), nullable=False),
        *(pa.field(name, pa.float64(), nullable=False) for name in BASELINES),
    ]
)


@dataclass(frozen=True)
class BaselineTable:
    """What the baselines say about the patches of one split.

    `index` is the row in the source file, int64 (N,), each once; `y_true` is int64 (N,); `y_prob`
    holds the probability of tumour, float64 (N,), for each name of BASELINES. `facts` say what the
    baselines were fitted on; JSON-able.
    """

    split: str
    index: Ints
    y_true: Ints
    y_prob: Mapping[str, Floats]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.index)

    def probs_of(self, split: str, index: Ints, y_true: Ints) -> dict[str, Floats]:
        """Return each baseline's probabilities in the order of `index`, joined by it.

        Raises RunError when the table is of another split, of other patches, or has other labels:
        a baseline on other patches than the model's proves nothing.
        """
        if split != self.split:
            raise RunError(
                f"the baselines are of split {self.split!r} and the predictions of {split!r}; "
                "make the baselines for the split that is scored."
            )
        order = np.argsort(self.index)
        rows = np.argsort(index)
        if not np.array_equal(self.index[order], index[rows]):
            here, there = np.setdiff1d(index, self.index), np.setdiff1d(self.index, index)
            raise RunError(
                f"the baselines of {split} hold {len(self):,} patches and the predictions "
                f"{len(index):,}: {len(here):,} are in the predictions only{_named(here)}, "
                f"{len(there):,} in the baselines only{_named(there)}. Both must be made of the "
                "same files, with the same exclusions, max_patches and filter_data."
            )
        other = self.y_true[order] != y_true[rows]
        if other.any():
            raise RunError(
                f"{int(other.sum()):,} patches of {split} have another label in the baselines than "
                f"in the predictions{_named(index[rows][other])}: the label file has changed "
                "between the two. Evaluate again."
            )
        at = np.empty(len(order), np.int64)
        at[rows] = order
        return {name: probs[at] for name, probs in self.y_prob.items()}

    def save(self, path: Path) -> None:
        """Write the table as parquet, so that a reader sees the old or the new file, never a part.

        Raises RunError for a patch that is there twice, and when the file cannot be written.
        """
        check_unique(self.split, self.index, path)
        columns = {
            "split": pa.array([self.split] * len(self), pa.string()),
            "index": pa.array(self.index, pa.int64()),
            "y_true": pa.array(self.y_true.astype(np.int8), pa.int8()),
            **{name: pa.array(self.y_prob[name], pa.float64()) for name in BASELINES},
        }
        facts = {"facts": json.dumps(self.facts, sort_keys=True)}
        write_table(pa.table(columns, schema=SCHEMA.with_metadata(facts)), path)

    @classmethod
    def load(cls, path: Path) -> BaselineTable:
        """Read a table that `save` wrote.

        Raises RunError when the file is missing or damaged, lacks a column or has one of another
        type, is empty, holds several splits or a patch twice, labels that are not 0 or 1, or values
        that are not probabilities.
        """
        again = "Delete it: it is made anew where it is missing."
        split, table = read_table(path, SCHEMA, what="table of baselines", again=again)
        y_true = table["y_true"].to_numpy().astype(np.int64)
        y_prob = {name: table[name].to_numpy() for name in BASELINES}
        wrong = [name for name, probs in y_prob.items() if not ((probs >= 0) & (probs <= 1)).all()]
        if wrong:  # NaN is one
            raise RunError(
                f"{path}: {', '.join(wrong)} hold values that are no probabilities. {again}"
            )
        if not np.isin(y_true, (0, 1)).all():
            raise RunError(f"{path}: y_true holds labels other than 0 and 1. {again}")
        try:
            facts = json.loads(facts_of(table).get("facts", "null"))
        except ValueError as error:
            raise RunError(f"{path}: its facts are no JSON: {error}. {again}") from error
        if not isinstance(facts, dict):
            raise RunError(f"{path} does not say what its baselines were fitted on. {again}")
        return cls(split, table["index"].to_numpy(), y_true, y_prob, facts)


def _named(rows: Ints) -> str:
    if len(rows) == 0:
        return ""
    return f" (index {', '.join(map(str, rows[:5]))}{', ...' if len(rows) > 5 else ''})"

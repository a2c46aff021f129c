"""The kept features of the patches of one split, as features/SPLIT.parquet has them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ml_core.errors import RunError
from ml_core.evaluation.split_table import check_unique, facts_of, read_table, write_table

Floats32 = npt.NDArray[np.float32]

SCHEMA = pa.schema(
    [
        pa.field("split", pa.string(), nullable=False),
        pa.field("index", pa.int64(), nullable=False),
        pa.field("y_true", pa.int8()),  # null throughout where the patches have no labels
        pa.field("features", pa.list_(pa.float32()), nullable=False),
    ]
)


@dataclass(frozen=True)
class FeatureTable:
    """The kept features of patches of one split, beside which run and weights they are of.

    `features` is float32 (N, K) and finite; `index` is the row in the source file, int64 (N,), each
    once; `y_true` is int64 (N,), or None without labels. Tables are comparable when they are of the
    same weights: the basis is fitted on the train sample and kept for both.
    """

    split: str
    index: npt.NDArray[np.int64]
    features: Floats32
    y_true: npt.NDArray[np.int64] | None
    run_id: str | None = None
    weights_sha256: str | None = None
    epoch: int | None = None
    share_kept: float | None = None  # see FeatureBasis

    def __len__(self) -> int:
        return len(self.index)

    def of(self, index: npt.NDArray[np.int64]) -> Floats32:
        """Return the rows of the patches `index` (M,), in that order; raises RunError for more."""
        order = np.argsort(self.index)
        place = np.searchsorted(self.index[order], index).clip(max=len(self) - 1)
        rows = order[place]
        missing = index[self.index[rows] != index]
        if len(missing):
            named = ", ".join(str(each) for each in missing[:5])
            raise RunError(
                f"the features of split {self.split!r} lack {len(missing)} of {len(index)} "
                f"patches: index {named}{', ...' if len(missing) > 5 else ''}. They are of other "
                "predictions; make them again with the explain stage."
            )
        found: Floats32 = self.features[rows]
        return found

    def save(self, path: Path) -> None:
        """Write the table as parquet, whole or not at all; raises RunError as Predictions.save."""
        check_unique(self.split, self.index, path)
        num, width = self.features.shape
        offsets = pa.array(np.arange(0, num * width + 1, width, dtype=np.int32))
        values = pa.array(np.ascontiguousarray(self.features, np.float32).ravel(), pa.float32())
        facts = {
            "run_id": self.run_id,
            "weights_sha256": self.weights_sha256,
            "epoch": self.epoch,
            "share_kept": self.share_kept,
        }
        table = pa.table(
            {
                "split": pa.array([self.split] * num, pa.string()),
                "index": pa.array(self.index, pa.int64()),
                "y_true": pa.nulls(num, pa.int8())
                if self.y_true is None
                else pa.array(self.y_true.astype(np.int8), pa.int8()),
                "features": pa.ListArray.from_arrays(offsets, values),
            },
            schema=SCHEMA.with_metadata(
                {key: str(value) for key, value in facts.items() if value is not None}
            ),
        )
        write_table(table, path)

    @classmethod
    def load(cls, path: Path) -> FeatureTable:
        """Read a table that `save` wrote.

        Raises RunError when the file is missing or damaged, lacks a column or has one of another
        type, holds several splits, a patch twice, rows of several widths, or values not finite.
        """
        if not path.is_file():
            raise RunError(f"{path} does not exist. Write it with the explain stage.")
        again = "Make it again with the explain stage."
        split, table = read_table(path, SCHEMA, what="features table", again=again)
        column = table["features"].combine_chunks()
        widths = pc.unique(pc.list_value_length(column)).to_pylist()
        values = column.values.to_numpy(zero_copy_only=False)
        if len(widths) != 1 or not widths[0] or not np.isfinite(values).all():
            num_bad = int((~np.isfinite(values)).sum())
            raise RunError(
                f"{path} holds rows of {sorted(widths)} features, {num_bad} values of them not "
                f"finite; needed is one width and finite values. {again}"
            )
        y_true, facts = table["y_true"], facts_of(table)
        if 0 < y_true.null_count < len(y_true):
            raise RunError(
                f"{path} has no label for {y_true.null_count} of {len(y_true)} patches; "
                "allowed are labels for all of them or for none."
            )
        return cls(
            split=split,
            index=table["index"].to_numpy(),
            features=values.reshape(len(table), widths[0]),
            y_true=None if y_true.null_count else y_true.to_numpy().astype(np.int64),
            run_id=facts.get("run_id"),
            weights_sha256=facts.get("weights_sha256"),
            epoch=int(facts["epoch"]) if "epoch" in facts else None,
            share_kept=float(facts["share_kept"]) if "share_kept" in facts else None,
        )

"""patches.parquet: one row per patch that was examined, with all that was measured of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ml_core.audit.measure import Columns
from ml_core.audit.sources import Source
from ml_core.data.layout import SPLITS
from ml_core.data.patch_file import Rows
from ml_core.findings import Finding

_FROM_META = {"slide": object, "patient": object, "coord_x": np.float64, "coord_y": np.float64}
_META_FLAGS = ("tumor_patch", "center_tumor_patch")


def label_table(source: Source, rows: Rows) -> pd.DataFrame:
    """Return what is known of `rows` without looking at a pixel: split, index, label, slide, ..."""
    table = pd.DataFrame(
        {
            "split": pd.Categorical([source.split] * len(rows), categories=SPLITS),
            "index": rows,
            "label": source.labels[rows].astype(np.int8),
        }
    )
    for name, dtype in _FROM_META.items():
        known = source.meta is not None and name in source.meta
        values = source.meta[name].to_numpy()[rows] if known and source.meta is not None else None
        empty = np.nan if dtype is np.float64 else None
        table[name] = pd.Series(empty if values is None else values, table.index, dtype=dtype)
    for name in _META_FLAGS:
        if source.meta is not None and name in source.meta:
            table[name] = source.meta[name].to_numpy()[rows]
    return table


def build_table(parts: Sequence[tuple[pd.DataFrame, Columns]]) -> pd.DataFrame:
    """Return the splits' label tables and 1-d measurements as one table, split after split."""
    frames = [
        table.assign(**{name: values for name, values in columns.items() if values.ndim == 1})
        for table, columns in parts
    ]
    return pd.concat(frames, ignore_index=True)


def add_flags(patches: pd.DataFrame, findings: Sequence[Finding]) -> pd.DataFrame:
    """Return the table with `flags`: the ids of the findings that name a patch, spaced."""
    flags = np.full(len(patches), "", object)
    for split in patches["split"].unique():
        here = patches["split"] == split
        position = pd.Series(patches.index[here], patches["index"][here])
        for finding in findings:
            if finding.split == split and finding.indices:
                named = position.reindex(finding.indices).dropna().to_numpy(np.int64)
                flags[named] += np.where(flags[named] == "", "", " ") + finding.id
    return patches.assign(flags=flags)

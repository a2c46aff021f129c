"""A parquet file with one row per patch of one split: written whole, read strictly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ml_core.durable import written_aside
from ml_core.errors import RunError, cannot_write


def write_table(table: pa.Table, path: Path) -> None:
    """Write `table` so that a reader sees the old or the new file, never a part.

    Raises RunError when the file cannot be written.
    """
    try:
        # opened here: pyarrow would read a name like a URI
        with written_aside(path) as aside, open(aside, "wb") as file:
            pq.write_table(table, file)
    except OSError as error:
        raise RunError(cannot_write(path, error)) from error


def read_table(path: Path, schema: pa.Schema, *, what: str, again: str) -> tuple[str, pa.Table]:
    """Return the split, and the columns of `schema`, of its types, without nulls unless allowed.

    Raises RunError when the file is missing or damaged, lacks a column or has one of another type,
    is empty, holds several splits, or names a patch twice. `what` names the kind of table and
    `again` says in a sentence how to make it anew.
    """
    try:
        # Bytes, since pyarrow reads a name like a URI, and its threads may outlive an open file: a
        # process that ends soon after is aborted (apache/arrow#34314).
        table = pq.read_table(pa.BufferReader(path.read_bytes()))
    except FileNotFoundError as error:
        raise RunError(f"{path} does not exist. Write it with the evaluate stage.") from error
    except (OSError, pa.ArrowException) as error:
        why = str(error).rstrip(".")
        raise RunError(f"{path} is not a readable parquet file: {why}. {again}") from error
    missing = [field.name for field in schema if field.name not in table.column_names]
    if missing:
        raise RunError(
            f"{path} lacks the columns {', '.join(missing)}; it has "
            f"{', '.join(table.column_names)}. Needed are {', '.join(schema.names)}."
        )
    try:
        table = table.select(schema.names).cast(schema.with_metadata(table.schema.metadata))
    except (pa.ArrowException, ValueError) as error:
        raise RunError(
            f"{path} has a column that is not what a {what} holds: {error}. {again}"
        ) from error
    if table.num_rows == 0:
        raise RunError(f"{path} holds no patches. {again}")
    splits = table["split"].unique().to_pylist()
    if len(splits) != 1:
        raise RunError(
            f"{path} holds the splits {splits}; a {what} holds the patches of one. "
            "Write one file per split."
        )
    check_unique(splits[0], table["index"].to_numpy(), path)
    return str(splits[0]), table


def check_unique(split: str, index: npt.NDArray[np.int64], path: Path) -> None:
    """Raise RunError where a patch is there twice."""
    values, counts = np.unique(index, return_counts=True)
    twice = values[counts > 1]
    if len(twice):
        named = ", ".join(str(value) for value in twice[:5])
        raise RunError(
            f"{path}: {len(twice)} patches of split {split!r} are there more than once, "
            f"index {named}{', ...' if len(twice) > 5 else ''}. A table has one row per patch: "
            "predict each patch once, without a sampler that draws with replacement."
        )


def facts_of(table: pa.Table) -> dict[str, str]:
    """Return what is written beside the columns, by name."""
    metadata = table.schema.metadata or {}
    return {key.decode(): value.decode() for key, value in metadata.items()}

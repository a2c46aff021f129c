"""Divide one set of patches into train, valid and test, no slide or patient in two of them.

Reads x.h5, y.h5 and meta.csv of one split in a folder. Writes splits.csv (row, group, label,
split), which says where each row of the source went, and the PCam files of each split.

    ml-core data pack data/images data/packed
    ml-core data split data/packed data/divided --valid 0.15 --test 0.15
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_core.data.layout import SPLITS, split_paths
from ml_core.data.packing.pack import write_parts
from ml_core.data.packing.parts import part_of_hdf5, splits_in
from ml_core.data.packing.patch_groups import find_groups
from ml_core.data.packing.source import Hdf5Source, Part
from ml_core.data.packing.split import SplitShare, assign_groups, assign_rows, describe_splits
from ml_core.errors import DataError

logger = logging.getLogger("ml_core.data")

SPLITS_NAME = "splits.csv"
# Said aloud from here on: 100 slides, 30 of them with tumour, come out within 0.002 of what was
# wanted; with 8 slides of tumour it is 0.03, and one slide with most of it gives 0.24.
_NOTABLE = 0.05


def data_split(
    source: Path,
    out_dir: Path,
    *,
    by: str | None = None,
    valid: float = 0.15,
    test: float = 0.15,
    seed: int = 0,
    source_split: str | None = None,
    meta: Path | None = None,
    ungrouped: bool = False,
    force: bool = False,
) -> dict[str, Any]:
    """Return {"data_path", "splits_csv", "by", "seed", "splits": {split: what it holds}}.

    `valid` and `test` are shares of the patches; train gets the rest. `source_split` says which of
    the splits in `source` is divided, where there are several. Raises DataError for a source that
    is not packed or has no groups (unless `ungrouped`), and for too few groups.
    """
    wanted = _wanted_shares(valid, test)
    if ungrouped and by is not None:
        raise DataError(f"--ungrouped and --by {by} contradict each other; leave one out.")
    if seed < 0:
        raise DataError(f"--seed {seed}: seeds are 0 or more.")
    part = _load(source, source_split, meta)
    _check_out_dir(source, out_dir, wanted)
    grouped_by, groups = None, None
    if ungrouped:
        splits = assign_rows(part.labels, wanted, seed)
    else:
        grouped_by, groups = find_groups(part.meta, by, part.source.name)
        splits = assign_groups(groups, part.labels, wanted, seed)
    reached = describe_splits(splits, groups, part.labels, wanted)
    _tell(reached, grouped_by, groups, part)
    write_parts(
        [_select(part, splits, split) for split in wanted],
        out_dir,
        tables={SPLITS_NAME: _list_rows(part, groups, splits)},
        force=force,
    )
    return {
        "data_path": str(out_dir),
        "splits_csv": str(out_dir / SPLITS_NAME),
        "by": grouped_by,
        "seed": seed,
        "splits": {share.split: dataclasses.asdict(share) for share in reached},
    }


def _wanted_shares(valid: float, test: float) -> dict[str, float]:
    """Return the share of each split that is wanted at all."""
    train = 1 - valid - test
    if not (valid >= 0 and test >= 0 and 0 < train < 1):
        raise DataError(
            f"--valid {valid:g} and --test {test:g} leave {train:g} for train. Allowed: shares "
            "from 0 whose sum is above 0 and below 1."
        )
    shares = dict(zip(SPLITS, (train, valid, test), strict=True))
    return {split: share for split, share in shares.items() if share > 0}


def _load(source: Path, split: str | None, meta: Path | None) -> Part:
    there = splits_in(source)
    if not there:
        raise DataError(f"{source} holds none of PCam's files. Make them: ml-core data pack")
    if split is None and len(there) > 1:
        raise DataError(
            f"{source} holds {', '.join(there)} already. Say which of them to divide: "
            "--source-split train"
        )
    paths = split_paths(source, split or there[0])
    part = part_of_hdf5(paths.x, split or there[0], labels_path=paths.y, meta_path=meta)
    assert isinstance(part.source, Hdf5Source)
    if not part.source.file.is_bytes:
        raise DataError(
            f"{paths.x} holds {part.source.file.dtype}, which may be damaged. Pack it first: "
            f"ml-core data pack {source} NEW_DIR"
        )
    return part


def _check_out_dir(source: Path, out_dir: Path, wanted: Mapping[str, float]) -> None:
    if out_dir.exists() and out_dir.samefile(source):
        raise DataError(f"{out_dir} is where the source lies. Choose another folder.")
    others = [split for split in splits_in(out_dir) if split not in wanted]
    if others:
        raise DataError(
            f"{out_dir} holds files of {', '.join(others)} that this division does not make: "
            "they may hold the same slides. Remove them, or choose another folder."
        )


def _select(part: Part, splits: npt.NDArray[np.str_], split: str) -> Part:
    rows = np.flatnonzero(splits == split)
    meta = None if part.meta is None else part.meta.iloc[rows]
    return Part(split, part.source, rows, part.labels[rows], meta)


def _tell(
    reached: list[SplitShare],
    grouped_by: str | None,
    groups: npt.NDArray[np.str_] | None,
    part: Part,
) -> None:
    """Say what each split holds, and aloud where that is far from what was wanted."""
    for each in reached:
        logger.info(
            "%-5s  %d patches (%.1f %%, wanted %.1f %%), %.1f %% tumour%s",
            each.split, each.num_patches, 100 * each.share, 100 * each.wanted,
            100 * each.num_positive / max(each.num_patches, 1),
            f", {each.num_groups} {grouped_by}" if grouped_by else "",
        )  # fmt: skip
    if groups is None or grouped_by is None:
        logger.warning("patches were divided one by one: scores will be too good for a new slide.")
        return
    for each in reached:
        for name, label, share in (
            ("normal", 0, each.share_negative),
            ("tumour", 1, each.share_positive),
        ):
            if abs(share - each.wanted) > _NOTABLE:
                largest, its_share = _largest(groups[part.labels == label])
                logger.warning(
                    "%s has %.1f %% of the %s patches where %.1f %% were wanted: there are too "
                    "few %s with such patches, or too unequal ones. The largest, %s, holds %.1f %% "
                    "of them alone.",
                    each.split, 100 * share, name, 100 * each.wanted, grouped_by, largest,
                    100 * its_share,
                )  # fmt: skip


def _largest(groups: npt.NDArray[np.str_]) -> tuple[str, float]:
    names, counts = np.unique(groups, return_counts=True)
    return str(names[np.argmax(counts)]), counts.max() / counts.sum()


def _list_rows(
    part: Part, groups: npt.NDArray[np.str_] | None, splits: npt.NDArray[np.str_]
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "row": part.rows,
            "group": "" if groups is None else groups,
            "label": part.labels,
            "split": splits,
        }
    )

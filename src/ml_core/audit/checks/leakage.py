"""Whether splits share slides, patients or tissue, as far as the meta csv tells."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_core.audit.checks.slide_overlap import find_overlaps
from ml_core.findings import Finding
from ml_core.page.text import enumerated, percent

Rows = npt.NDArray[np.int64]

# Level-0 pixels along a patch: PCam's patches are 96 pixels of level 2, four times coarser than the
# 40x scan. Tools for slides give places at level 0 (OpenSlide's read_region); that PCam's meta csv
# does so too is assumed here, not shown: its files state no unit.
FOOTPRINT = 384.0

_MAX_EXAMPLES = 12
_MAX_NAMES = 5
# Where more than this share of a split would have to go, it needs a new split and no exclusions: a
# policy, not a measurement.
_MOST_EXCLUDED = 0.5
_OVERLAP_BINS = np.linspace(0, 1, 11)


def check_slides(patches: pd.DataFrame) -> list[Finding]:
    """Return an error per pair of splits that share slides or patients, and what is not known.

    Sees names only: a slide under two names, two slides of a patient where the table names no
    patients, and anything at all in a split without a meta csv stay hidden; the findings
    "slides-unknown" and "patients-unknown" say so.
    """
    splits = _splits(patches)
    if len(splits) < 2:
        return []
    findings = [
        finding
        for kind in ("slide", "patient")
        for finding in _check_shared_names(patches, splits, kind)
    ]
    return findings + _check_unknown(patches, splits)


def check_overlaps(patches: pd.DataFrame, footprint: float = FOOTPRINT) -> list[Finding]:
    """Return what patches of one slide overlap: an error across splits, a fact within one.

    `footprint` is the side of a patch in the unit of coord_x and coord_y. Two patches overlap
    where both distances are below it, whether coordinates mean corners or centres. Each patch is
    compared with its nearest neighbour by the larger of the two distances, so the share of area is
    that of the nearest, which need not be the largest. Rows without slide or coordinates are
    skipped. It cannot see a wrong unit, nor that two slides are cuts of one piece of tissue.
    """
    splits = _splits(patches)
    findings = []
    for first, second in combinations(splits, 2):
        findings += _check_overlap_across(patches, first, second, footprint)
    for split in splits:
        findings += _check_overlap_within(patches, split, footprint)
    return findings


def _check_shared_names(
    patches: pd.DataFrame, splits: list[str], kind: Literal["slide", "patient"]
) -> Iterator[Finding]:
    if kind not in patches or patches[kind].isna().all():
        return
    names = {split: patches.loc[patches["split"] == split, kind] for split in splits}
    for first, second in combinations(splits, 2):  # `first` is nearer to training
        shared = sorted(set(names[first].dropna()) & set(names[second].dropna()))
        if not shared:
            continue
        column = names[first]
        rows = column.index.to_numpy()[column.isin(shared).to_numpy()]
        num_second = int(names[second].isin(shared).sum())
        share = len(rows) / len(column)
        few_enough = share <= _MOST_EXCLUDED
        yield Finding(
            id=f"{kind}-in-two-splits",
            severity="error",
            message=f"{_num(len(shared), kind)} of {first} {_is(shared)} also in {second} "
            f"({_listing(shared)}): {len(rows):,} patches of {first} ({percent(share)}) and "
            f"{num_second:,} of {second}.",
            action=f"Leave these {len(rows):,} patches of {first} out."
            if few_enough
            else f"Split anew by {kind}: leaving them out would cost {first} most of its patches.",
            split=first,
            count=len(rows),
            share=share,
            indices=_indices(patches, rows),
            exclude=few_enough,
            facts={"other_split": second, f"{kind}s": shared, "num_in_other_split": num_second},
        )


def _check_unknown(patches: pd.DataFrame, splits: list[str]) -> list[Finding]:
    """Say in one finding for slides, and one for patients, what cannot be told."""
    without = {
        split: num
        for split in splits
        if (num := int(patches.loc[patches["split"] == split, "slide"].isna().sum()))
    }
    if without:
        num_unknown = sum(without.values())
        return [
            Finding(
                id="slides-unknown",
                severity="info",
                message=f"For {_patches(num_unknown)} of {enumerated(list(without))} no slide is "
                "known: it cannot be told whether splits share slides or patients.",
                action="Put the meta csv of each split beside its patches.",
                count=num_unknown,
                facts={"num_without_slide": without},
            )
        ]
    if "patient" in patches and patches["patient"].notna().all():
        return []
    return [
        Finding(
            id="patients-unknown",
            severity="info",
            message="Patients are not named: two slides of one patient may be in two splits.",
            action="Add a column patient to the meta csv if you know them.",
        )
    ]


def _check_overlap_across(
    patches: pd.DataFrame, first: str, second: str, footprint: float
) -> list[Finding]:
    rows, others, area = find_overlaps(patches, first, second, footprint)
    if len(rows) == 0:
        return []
    num_patches = int((patches["split"] == first).sum())
    num_slides = patches["slide"].iloc[rows].nunique()
    share = len(rows) / num_patches
    return [
        Finding(
            id="overlap-across-splits",
            severity="error",
            message=f"{_patches(len(rows))} of {first} ({percent(share)}) overlap one of {second} "
            f"on {_num(num_slides, 'slide')}, by {percent(np.median(area), 0)} of the area in the "
            "middle case: the same tissue is in both.",
            action=f"Leave these patches of {first} out."
            if share <= _MOST_EXCLUDED
            else "Split anew by slide: leaving them out would cost most of the patches.",
            split=first,
            count=len(rows),
            share=share,
            indices=_indices(patches, rows),
            exclude=share <= _MOST_EXCLUDED,
            examples=_pairs(patches, rows, others, area),
            facts={"other_split": second, **_distribution(area), "footprint": footprint},
        )
    ]


def _check_overlap_within(patches: pd.DataFrame, split: str, footprint: float) -> list[Finding]:
    rows, others, area = find_overlaps(patches, split, split, footprint)
    if len(rows) == 0:
        return []
    num_patches = int((patches["split"] == split).sum())
    share = len(rows) / num_patches
    return [
        Finding(
            id="overlap-within-split",
            severity="info",
            message=f"{split}: {len(rows):,} of {num_patches:,} patches ({percent(share)}) overlap "
            f"another of the split, by {percent(np.median(area), 0)} of the area in the middle "
            "case.",
            action="Count them as fewer independent patches than there are rows: resample slides, "
            "not patches, for intervals.",
            split=split,
            count=len(rows),
            share=share,
            indices=_indices(patches, rows),
            examples=_pairs(patches, rows, others, area),
            facts={**_distribution(area), "footprint": footprint},
        )
    ]


def _distribution(area: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Return how many patches share which part of their area, and the quartiles."""
    counts, _ = np.histogram(area, _OVERLAP_BINS)
    return {
        "overlap_bins": _OVERLAP_BINS.round(1).tolist(),
        "overlap_counts": counts.tolist(),
        "overlap_quartiles": np.quantile(area, [0.25, 0.5, 0.75]).round(4).tolist(),
    }


def _pairs(
    patches: pd.DataFrame, rows: Rows, others: Rows, area: npt.NDArray[np.float64]
) -> tuple[tuple[tuple[str, int], ...], ...]:
    """Return the pairs that share most, each once."""
    names, index = patches["split"].astype(str).to_numpy(), patches["index"].to_numpy()
    pairs: dict[tuple[int, int], None] = {}
    for i in np.argsort(-area, kind="stable")[: 2 * _MAX_EXAMPLES]:
        first, second = sorted((int(rows[i]), int(others[i])))
        pairs[first, second] = None
    return tuple(
        tuple((str(names[row]), int(index[row])) for row in pair)
        for pair in list(pairs)[:_MAX_EXAMPLES]
    )


def _splits(patches: pd.DataFrame) -> list[str]:
    """Return the splits that have patches, in the order of the table: train, valid, test."""
    return [str(split) for split in patches["split"].unique()]


def _indices(patches: pd.DataFrame, rows: Rows) -> tuple[int, ...]:
    return tuple(sorted(patches["index"].to_numpy()[rows].tolist()))


def _num(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _patches(count: int) -> str:
    return f"{count:,} patch{'' if count == 1 else 'es'}"


def _is(things: list[str]) -> str:
    return "is" if len(things) == 1 else "are"


def _listing(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES:,} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more

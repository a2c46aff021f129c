"""Patches that occur more than once: within a split, across splits, with different labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_core.audit.checks.near_duplicates import NearDuplicates, find_near_duplicates
from ml_core.audit.measures.pixel_stats import is_constant
from ml_core.findings import Finding
from ml_core.page.text import percent

Positions = npt.NDArray[np.int64]
Read = Callable[[Positions], npt.NDArray[np.uint8]]

# From when on patches known from elsewhere, or labels that contradict each other, make a number
# wrong. One patch in 1,000 moves an accuracy by 0.1 points at most, where the sampling error of
# 90 % is 0.17 at 32,768 patches; and up to five are an accident, however small the split.
_MIN_SERIOUS_SHARE = 0.001
_MIN_SERIOUS = 6

# Near duplicates within a split from which on they were made on purpose: augmented, then saved.
# The real sample has none among 23,000 patches.
_MIN_AUGMENTED_SHARE = 0.01

# Luma that varies less, in grey levels, leaves little to tell patches apart by. It is glass: 135 of
# 23,000 real patches.
_MIN_STD_LUMA = 10.0

# Patches with too many others alike that make a finding on near duplicates worth a warning; of
# 21,943 real patches none is one, of 327,680 small pieces of them 0.8 %.
_MIN_CROWDED_SHARE = 0.01

_MAX_EXAMPLES = 12
_MAX_IN_EXAMPLE = 4


@dataclass(frozen=True)
class _Kind:
    """What two kinds of duplicates have in common: how their findings are named and worded."""

    within_id: str
    across_id: str
    conflict_id: str
    how: str
    exact: bool


_EXACT = _Kind(
    "exact-duplicates",
    "duplicates-across-splits",
    "conflicting-duplicates",
    "pixel for pixel",
    exact=True,
)
_NEAR = _Kind(
    "near-duplicates",
    "near-duplicates-across-splits",
    "conflicting-near-duplicates",
    "mirrored, turned, moved by a pixel, re-encoded or made brighter",
    exact=False,
)


def check_exact_duplicates(patches: pd.DataFrame) -> list[Finding]:
    """Return findings on patches of which every grey level is the same as another's.

    "exact-duplicates", one per split: all copies but the first are better left out.
    "duplicates-across-splits", one per pair of splits: the copies in the earlier split are better
    left out, so that what is scored stays as it was. "conflicting-duplicates", one per split: equal
    patches, some normal and some tumour; all of them are better left out.

    Left to other checks are patches of one colour, which are equal by nature, and those with NaN.
    It cannot see copies that differ in one grey level (`check_near_duplicates` does), and in a
    table that holds a sample of the rows it sees only copies that are all in the sample.
    """
    totals = _count_by_split(patches)
    rows = patches[~is_constant(patches) & (patches["share_nan"] == 0)]
    copies = rows[["split", "index", "label"]].assign(same=rows["content_hash"])
    copies = copies[copies.duplicated("same", keep=False)]
    return [
        *_within_splits(copies, totals, _EXACT),
        *_across_splits(copies, totals, _EXACT),
        *_conflicts(copies, totals, _EXACT),
    ]


def check_near_duplicates(
    patches: pd.DataFrame, descriptors: npt.NDArray[np.float32], read: Read
) -> list[Finding]:
    """Return findings on patches that show the same spot as another, in other pixels.

    "near-duplicates", "near-duplicates-across-splits" and "conflicting-near-duplicates" are as
    those of `check_exact_duplicates`, whose copies are not counted again, with two differences:
    within a split nothing is excluded, and neither are contradicting labels, since a label is about
    the centre of a patch and a shift can change it. "near-duplicates-not-compared" counts the
    patches that were left out: flat, broken, or too many alike.

    What is found, of 1,000 real patches altered in each way: all that were mirrored, turned or
    encoded again at quality 50 to 90, 97 % or more of those moved by a pixel each way, 99 % of
    those made 10 % brighter, but 89 % of the flattest, where glass turns white. 21,943 patches hold
    no false pair (benchmarks/near_duplicates.py). It cannot see what `find_near_duplicates` does
    not find, nor any copy of the patches that it leaves out.
    """
    totals = _count_by_split(patches)
    broken = (patches["share_nan"] > 0) | (patches["share_out_of_range"] > 0)
    flat = ~broken & ~(patches["std_luma"] >= _MIN_STD_LUMA)
    rows = patches[~broken & ~flat]
    unique = rows.drop_duplicates("content_hash")  # 20,000 equal patches are one to compare
    found = find_near_duplicates(descriptors, unique.index.to_numpy(np.int64), read)
    groups = _group(found, len(patches))
    group_of_hash = pd.Series(groups[unique.index], index=unique["content_hash"])
    copies = rows[["split", "index", "label", "content_hash"]].assign(
        same=rows["content_hash"].map(group_of_hash)
    )
    copies = copies[copies["same"].isin(groups[found.pairs[:, 0]])]
    relations = pd.Series(found.relations, groups[found.pairs[:, 0]], dtype=object)
    return [
        *_within_splits(copies, totals, _NEAR, relations),
        *_across_splits(copies, totals, _NEAR, relations),
        *_conflicts(copies, totals, _NEAR),
        *_not_compared(int(flat.sum()), int(broken.sum()), found, len(patches)),
    ]


def _within_splits(
    copies: pd.DataFrame, totals: dict[str, int], kind: _Kind, relations: pd.Series | None = None
) -> Iterator[Finding]:
    """Yield what repeats within each split; `copies` has the columns split, index, label, same."""
    if not kind.exact:
        copies = copies.drop_duplicates(["split", "content_hash"])
    for split, total in totals.items():
        here = copies[copies["split"] == split]
        here = here[here.duplicated("same", keep=False)]
        repeats = here[here.duplicated("same")]
        if repeats.empty:
            continue
        share = len(repeats) / total
        serious = kind.exact or share >= _MIN_AUGMENTED_SHARE
        yield Finding(
            kind.within_id,
            "warning" if serious else "info",
            f"{_count(split, len(repeats), total)} repeat another patch of {split}, {kind.how}.",
            "Leave the copies out: each counts again in training and in every score."
            if kind.exact
            else "Look at the pairs; unless they are meant, keep one patch of each group.",
            exclude=kind.exact,
            examples=_examples(here),
            facts={
                "num_groups": int(here["same"].nunique()),
                "largest_group": int(here["same"].value_counts().max()),
                "by_label": _count_labels(repeats),
                **_count_relations(here, relations),
            },
            **_rows(split, repeats, total),
        )


def _across_splits(
    copies: pd.DataFrame, totals: dict[str, int], kind: _Kind, relations: pd.Series | None = None
) -> Iterator[Finding]:
    """Yield for each pair of splits what the earlier one holds of the later one."""
    for earlier, later in combinations(totals, 2):
        known, scored = (copies[copies["split"] == split] for split in (earlier, later))
        if not kind.exact:  # those also there pixel for pixel are told of as such
            known = known[~known["content_hash"].isin(scored["content_hash"])]
        known = known[known["same"].isin(scored["same"])]
        scored = scored[scored["same"].isin(known["same"])]
        if known.empty:
            continue
        in_later = _count(later, len(scored), totals[later])
        serious = earlier == "train" and _is_serious(len(scored), totals[later])
        pairs = [rows.drop_duplicates("same") for rows in (known, scored)]
        yield Finding(
            kind.across_id,
            "error" if serious else "warning",
            f"{_count(earlier, len(known), totals[earlier])} are in {later} too, {kind.how} "
            f"({in_later}).",
            f"Leave them out of {earlier}, or the score on {later} is partly one of patches "
            "seen before.",
            exclude=True,
            examples=_examples(pd.concat(pairs)),
            facts={
                "other_split": later,
                "num_in_other_split": len(scored),
                "share_of_other_split": len(scored) / totals[later],
                "by_label": _count_labels(known),
                **_count_relations(known, relations),
            },
            **_rows(earlier, known, totals[earlier]),
        )


def _conflicts(copies: pd.DataFrame, totals: dict[str, int], kind: _Kind) -> Iterator[Finding]:
    """Yield for each split its patches that occur, anywhere, with the other label too."""
    disputed = _disputed(copies, "same")
    if not kind.exact:
        disputed &= ~_disputed(copies, "content_hash")
    copies = copies[disputed]
    for split, total in totals.items():
        here = copies[copies["split"] == split]
        if here.empty:
            continue
        serious = kind.exact and _is_serious(len(here), total)
        yield Finding(
            kind.conflict_id,
            "error" if serious else "warning",
            f"{_count(split, len(here), total)} occur with the other label too, {kind.how}.",
            "Leave all copies out or mend their labels: at most one of two is right."
            if kind.exact
            else "Look at the pairs; where the centre shows the same, one of the labels is wrong.",
            exclude=kind.exact,
            examples=_examples(
                copies[copies["same"].isin(here["same"])].drop_duplicates(["same", "label"])
            ),
            facts={
                "num_groups": int(here["same"].nunique()),
                "by_label": _count_labels(here),
            },
            **_rows(split, here, total),
        )


def _not_compared(
    num_flat: int, num_broken: int, found: NearDuplicates, total: int
) -> Iterator[Finding]:
    """Yield one finding that says what the search for near duplicates did not look at."""
    reasons = {
        f"{num_flat:,} show next to nothing": num_flat,
        f"{num_broken:,} hold broken values": num_broken,
        f"{found.num_crowded:,} have too many others alike": found.num_crowded,
    }
    count = sum(reasons.values())
    if not count and not found.num_unverified:
        return
    said = [text for text, number in reasons.items() if number]
    if found.num_unverified:
        said.append(f"{found.num_unverified:,} likely pairs came on top of those looked at")
    cut = found.num_crowded >= _MIN_CROWDED_SHARE * total or found.num_unverified > 0
    yield Finding(
        "near-duplicates-not-compared",
        "warning" if cut else "info",
        f"Not all of the {total:,} patches were compared for near duplicates: {'; '.join(said)}.",
        "Look at the near duplicates that were found first: there are more." if cut else "",
        count=count,
        share=count / total,
        facts={
            "num_flat": num_flat,
            "num_broken": num_broken,
            "num_crowded": found.num_crowded,
            "num_unverified_pairs": found.num_unverified,
        },
    )


def _group(found: NearDuplicates, num_patches: int) -> npt.NDArray[np.int32]:
    """Return for each position the number of its group: pairs that share a patch are one group."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = (np.ones(len(found.pairs), np.int8), (found.pairs[:, 0], found.pairs[:, 1]))
    graph = coo_array(edges, shape=(num_patches, num_patches))
    groups: npt.NDArray[np.int32] = connected_components(graph, directed=False)[1]
    return groups


def _disputed(copies: pd.DataFrame, by: str) -> pd.Series:
    """Tell which rows are in a group, by column `by`, that has both labels; -1 is no label."""
    known = copies["label"].where(copies["label"] >= 0).groupby(copies[by])
    return known.transform("min") < known.transform("max")


def _is_serious(count: int, total: int) -> bool:
    return count >= _MIN_SERIOUS and count >= _MIN_SERIOUS_SHARE * total


def _count_by_split(patches: pd.DataFrame) -> dict[str, int]:
    """Return the number of patches of each split, in the order of the table."""
    return {str(s): int((patches["split"] == s).sum()) for s in patches["split"].unique()}


def _count_labels(rows: pd.DataFrame) -> dict[str, int]:
    return {str(label): int(n) for label, n in rows["label"].value_counts().sort_index().items()}


def _count_relations(rows: pd.DataFrame, relations: pd.Series | None) -> dict[str, Any]:
    """Return how many pairs of the groups in `rows` relate in which way, the most common first."""
    if relations is None:
        return {}
    counts = relations[relations.index.isin(rows["same"])].value_counts()
    return {"relations": {str(relation): int(n) for relation, n in counts.items()}}


def _examples(rows: pd.DataFrame) -> tuple[tuple[tuple[str, int], ...], ...]:
    """Return the first patches of some groups, spread evenly over all groups."""
    groups = rows["same"].unique()
    step = max(1, len(groups) // _MAX_EXAMPLES)
    chosen = rows[rows["same"].isin(groups[::step][:_MAX_EXAMPLES])]
    few = [some.head(_MAX_IN_EXAMPLE) for _, some in chosen.groupby("same", sort=False)]
    return tuple(
        tuple((str(s), int(i)) for s, i in zip(some["split"], some["index"], strict=True))
        for some in few
    )


def _rows(split: str, rows: pd.DataFrame, total: int) -> dict[str, Any]:
    indices = tuple(sorted(int(index) for index in rows["index"]))
    return {
        "split": split,
        "count": len(indices),
        "share": len(indices) / total,
        "indices": indices,
    }


def _count(split: str, count: int, total: int) -> str:
    return f"{split}: {count:,} of {total:,} patches ({percent(count / max(total, 1))})"

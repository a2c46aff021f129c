"""Dividing patches among train, valid and test so that no slide or patient is in two of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml_core.data.layout import Labels
from ml_core.errors import DataError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_NUM_STARTS = 8
_MAX_SWEEPS = 30
_MAX_PARTNERS = 512  # of a group that are tried in one sweep: bounds the time for many groups
# Counted beside patches: groups and groups with tumour, so that a split is not one huge slide.
# For 50 to 100 slides, 0.01 makes the shares of patches 0.005 worse than 0 at most, and the share
# of groups is off by 0.08 at most (at 0: by 0.2). At 0.1 the shares of patches lose up to 0.04.
_GROUP_WEIGHT = 0.01
_PENALTY = 1e3  # for a class that a split lacks: above any sum of squared shares
_GAIN = 1e-12  # differences below are rounding
_GOOD_ENOUGH = 1e-6  # no class is off by more than 0.001: the search ends


@dataclass(frozen=True)
class SplitShare:
    """What a split came to hold, beside the share of each class that it was wanted to."""

    split: str
    wanted: float
    num_patches: int
    num_positive: int
    num_groups: int  # 0 where patches were divided one by one
    share: float  # of all patches
    share_negative: float  # of all normal patches
    share_positive: float  # of all tumour patches


def assign_groups(
    groups: npt.NDArray[np.str_], labels: Labels, wanted: Mapping[str, float], seed: int = 0
) -> npt.NDArray[np.str_]:
    """Return the split of each row, (N,); all rows of a group are in one split.

    `groups` and `labels` are (N,), `wanted` the share of each split, summing to 1. The squared
    differences between reached and wanted share of normal patches, tumour patches, groups and
    groups with tumour are made small: groups in random order go where they help most, then change
    places two at a time while that helps; the best of several orders is returned. The same seed
    gives the same splits, whatever the order of rows. Raises DataError where a class has fewer
    groups than there are splits, so that some split would lack it.
    """
    names, group_of = np.unique(groups, return_inverse=True)
    counts = _count(group_of, labels, len(names))
    _check_enough_groups(counts, wanted)
    shares = np.array(list(wanted.values()))
    best, lowest = None, np.inf
    for start in range(_NUM_STARTS):
        words = np.random.Philox(key=seed, counter=[0, 0, 0, start])
        assigned, cost = _improve(counts, shares, _draw_start(counts, shares, words), words)
        if cost < lowest - _GAIN:
            best, lowest = assigned, cost
        if cost < _GOOD_ENOUGH:
            break
    if best is None or lowest >= _PENALTY:
        raise DataError(
            f"no division of {len(names)} groups was found in which each of {', '.join(wanted)} "
            "has patches of both classes. Try another --seed, or ask for fewer splits."
        )
    return np.array(list(wanted))[best][group_of]


def assign_rows(labels: Labels, wanted: Mapping[str, float], seed: int = 0) -> npt.NDArray[np.str_]:
    """Return the split of each row, (N,): each class divided at random in the wanted shares.

    Raises DataError where a class has so few patches that a split would lack it.
    """
    assigned = np.empty(len(labels), np.int64)
    ends = np.cumsum(list(wanted.values()))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        words = np.random.Philox(key=seed, counter=[0, 0, 0, int(label)]).random_raw(len(rows))
        place = (np.argsort(np.argsort(words)) + 0.5) / len(rows)
        assigned[rows] = np.searchsorted(ends[:-1], place)
    for number, split in enumerate(wanted):
        num_positive = int(labels[assigned == number].sum())
        if num_positive in (0, int((assigned == number).sum())):
            raise DataError(
                f"{split} would hold {(assigned == number).sum():,} patches, {num_positive:,} of "
                f"them tumour: too few of one class. There are {len(labels):,} patches, "
                f"{labels.sum():,} of them tumour; ask for fewer or larger splits."
            )
    return np.array(list(wanted))[assigned]


def describe_splits(
    splits: npt.NDArray[np.str_],
    groups: npt.NDArray[np.str_] | None,
    labels: Labels,
    wanted: Mapping[str, float],
) -> list[SplitShare]:
    """Return what each wanted split came to hold."""
    found = []
    num_negative, num_positive = np.bincount(labels, minlength=2)
    for split, share in wanted.items():
        here = splits == split
        positive = int(labels[here].sum())
        negative = int(here.sum()) - positive
        found.append(
            SplitShare(
                split=split,
                wanted=share,
                num_patches=positive + negative,
                num_positive=positive,
                num_groups=0 if groups is None else len(np.unique(groups[here])),
                share=(positive + negative) / len(labels),
                share_negative=negative / max(int(num_negative), 1),
                share_positive=positive / max(int(num_positive), 1),
            )
        )
    return found


def _count(group_of: Ints, labels: Labels, num_groups: int) -> Ints:
    """Return (num_groups, 4): normal patches, tumour patches, 1, and 1 if there is tumour."""
    positive = np.bincount(group_of, labels, num_groups).astype(np.int64)
    negative = np.bincount(group_of, minlength=num_groups) - positive
    return np.stack([negative, positive, np.ones_like(positive), positive > 0], axis=1)


def _check_enough_groups(counts: Ints, wanted: Mapping[str, float]) -> None:
    for column, name in ((0, "normal"), (1, "tumour")):
        num_groups = int((counts[:, column] > 0).sum())
        if num_groups < len(wanted):
            raise DataError(
                f"patches labelled {column} ({name}) come from {num_groups} of {len(counts)} "
                f"groups, and each of {', '.join(wanted)} needs one of its own. Ask for fewer "
                "splits (--valid 0 or --test 0), or get more slides."
            )


def _draw_start(counts: Ints, shares: Floats, words: np.random.Philox) -> Ints:
    """Return the split of each group: in random order, each goes where the cost is least."""
    totals = np.zeros((len(shares), counts.shape[1]), np.int64)
    assigned = np.empty(len(counts), np.int64)
    for group in np.argsort(words.random_raw(len(counts)), kind="stable"):
        now = _cost(totals, counts, shares)
        then = _cost(totals + counts[group], counts, shares)
        assigned[group] = split = int(np.argmin(then - now))
        totals[split] += counts[group]
    return assigned


def _improve(
    counts: Ints, shares: Floats, assigned: Ints, words: np.random.Philox
) -> tuple[Ints, float]:
    """Let groups change places, or move, while that lowers the cost; return (splits, cost)."""
    num_splits = len(shares)
    # One empty group a split: changing places with it is moving.
    sizes = np.concatenate([counts, np.zeros((num_splits, counts.shape[1]), np.int64)])
    assigned = np.concatenate([assigned, np.arange(num_splits)])
    totals = np.stack([sizes[assigned == split].sum(axis=0) for split in range(num_splits)])
    for _ in range(_MAX_SWEEPS):
        improved = False
        for group in np.argsort(words.random_raw(len(counts)), kind="stable"):
            if _cost(totals, counts, shares).sum() < _GOOD_ENOUGH:
                break
            partner, gain = _best_partner(group, sizes, assigned, totals, shares, words)
            if gain <= _GAIN:
                continue
            improved = True
            here, there = assigned[group], assigned[partner]
            difference = sizes[partner] - sizes[group]
            totals[here] += difference
            totals[there] -= difference
            assigned[group] = there
            if partner < len(counts):  # the empty group of a split stays
                assigned[partner] = here
        if not improved:
            break
    return assigned[: len(counts)], float(_cost(totals, counts, shares).sum())


def _best_partner(
    group: int,
    sizes: Ints,
    assigned: Ints,
    totals: Ints,
    shares: Floats,
    words: np.random.Philox,
) -> tuple[int, float]:
    """Return with whom `group` had best change places, and by how much that lowers the cost."""
    here = assigned[group]
    partners = np.flatnonzero(assigned != here)
    if len(partners) > _MAX_PARTNERS:
        chosen = words.random_raw(_MAX_PARTNERS) % np.uint64(len(partners))
        empty = partners[-(len(shares) - 1) :]
        partners = np.concatenate([partners[chosen.astype(np.int64)], empty])
    there = assigned[partners]
    difference = sizes[partners] - sizes[group]  # (P, 4)
    now = _cost(totals, sizes, shares)
    here_then = _cost(totals[here] + difference, sizes, shares[[here]])
    there_then = _cost(totals[there] - difference, sizes, shares[there])
    gains = now[here] + now[there] - here_then - there_then
    best = int(np.argmax(gains))
    return int(partners[best]), float(gains[best])


def _cost(totals: Ints, counts: Ints, shares: Floats) -> Floats:
    """Return how far each of `totals` (..., 4) is from the wanted share, (...)."""
    weights = np.array([1, 1, _GROUP_WEIGHT, _GROUP_WEIGHT])
    error = totals / np.maximum(counts.sum(axis=0), 1) - shares[..., None]
    lacking = (totals[..., :2] == 0).sum(axis=-1)
    cost: Floats = (weights * error**2).sum(axis=-1) + _PENALTY * lacking
    return cost

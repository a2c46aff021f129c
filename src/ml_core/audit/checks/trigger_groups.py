"""Groups of patches that carry the same strange spot: of one colour, or at one place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_core.audit.measures.trigger_stats import FLAT_SPREAD

Positions = npt.NDArray[np.int64]
Levels = npt.NDArray[np.uint8]
Read = Callable[[Positions], Levels]

# Strengths that are paint by themselves, the surest kind first. The strongest of 23,000 real
# patches, decoded from JPEG: flat 13, pair 49, weave 123, blend 79; line 30, but for two patches
# with 1 and 11 rows of the scan's black border, 226 and 57. Of 87 stored without loss: 11, 9, 76,
# 40 and 11.
PAINT = {"flat": 20, "pair": 55, "weave": 130, "line": 32, "blend": 85}
# Strengths that count where many patches have them at one place. Of real patches, 0.2 % reach that
# of "flat" and "line", 1 to 2 % the others.
HINT = {"flat": 10, "pair": 12, "weave": 98, "line": 12, "blend": 3}
# Strengths that are enough for a spot of the very colour of a group of paint: no real patch has a
# "flat" spot as strong of full white, where glass comes nearest.
MATCH = {"flat": 6, "pair": 30, "weave": 125, "line": 25, "blend": 60}
# What the middle of a group of paint reaches, in strengths of PAINT: the tail of natural spots in
# a larger set than could be looked at here crowds just above the bar.
_CLEARLY = 1.5

COLOUR_TOLERANCE = 3  # levels, around the commonest colour
MIN_GROUP = 8  # different patches: fewer prove nothing about the label (2 ** -8 = 0.4 %)
_SAME_CONTEXT = 2.0  # levels: copies of a patch, turned or compressed again, differ by less
_CONTEXT = 10  # pixels around a spot that tell one patch from another
_MAX_LOOKED_AT = 160  # patches read per split, kind and way of grouping: 3 x 5 x 2 x 160 = 4,800
_MAX_PLACES = 4
# A place is a pile-up when it has so many times the patches of its busiest peers: those natural
# spots that keep to a grid (JPEG's) fill all places of the grid alike.
_PILE_UP = 3.0


@dataclass(frozen=True)
class Group:
    """Patches of one split with the same spot; `members` are positions in the table, rising."""

    kind: str
    members: Positions
    num_distinct: int  # of the members looked at, counting copies of one patch once
    num_seen: int  # members whose pixels were looked at
    height: int
    width: int
    colour: tuple[int, int, int]  # median over the members
    colour_spread: int  # levels, between the 10th and 90th percentile of the members
    place: tuple[int, int] | None  # row and column of the first pixel; None where it moves


@dataclass(frozen=True)
class _Seen:
    """Spots whose pixels were looked at, one row each."""

    positions: Positions
    rects: npt.NDArray[np.int64]  # (n, 4): top, left, height, width
    colours: npt.NDArray[np.int64]  # (n, 3)
    contexts: npt.NDArray[np.float64]  # (n, d), alike for copies of a patch, turned or not


def find_groups(table: pd.DataFrame, positions: Positions, read: Read) -> list[Group]:
    """Return the groups among `positions` (one split) of `table`, a patch in one group at most.

    Kinds are tried from the surest to the vaguest. At most 1,600 patches are read.
    """
    groups: list[Group] = []
    free = positions
    for kind in PAINT:
        for find in (_groups_of_one_colour, _groups_at_one_place):
            for group in find(kind, table, free, read):
                left = np.intersect1d(group.members, free)
                if len(left) >= max(MIN_GROUP, len(group.members) / 2):
                    groups.append(replace(group, members=left))
                    free = np.setdiff1d(free, left)
    return groups


def _groups_of_one_colour(
    kind: str, table: pd.DataFrame, positions: Positions, read: Read
) -> Iterator[Group]:
    """Yield groups among spots that are paint by themselves, the largest first."""
    rows = _Columns(kind, table, positions)
    painted = rows.strength >= PAINT[kind]
    seen = _look(rows, _evenly(np.flatnonzero(painted), _MAX_LOOKED_AT), read)
    strength = rows.strength[np.searchsorted(positions, seen.positions)]
    left = np.ones(len(seen.positions), bool)
    while left.sum() >= MIN_GROUP:
        commonest = Counter(map(tuple, seen.colours[left].tolist())).most_common(1)[0][0]
        alike = left & (np.abs(seen.colours - commonest).max(axis=1) <= COLOUR_TOLERANCE)
        left &= ~alike
        group = _describe(kind, seen, np.flatnonzero(alike))
        if group is None or np.median(strength[alike]) < _CLEARLY * PAINT[kind]:
            continue
        strong = rows.strength >= MATCH[kind]
        if group.place is not None:  # there, a faint one is as sure as a strong one elsewhere
            strong |= (rows.strength >= HINT[kind] / 2) & rows.within(group)
        members = strong & rows.has_colour(seen.positions[alike])
        yield _with_members(group, positions[members], seen.positions[alike])


def _groups_at_one_place(
    kind: str, table: pd.DataFrame, positions: Positions, read: Read
) -> Iterator[Group]:
    """Yield groups of patches whose strangest spot is at a place where few others have theirs."""
    rows = _Columns(kind, table, positions)
    hints = np.flatnonzero(rows.strength >= HINT[kind])
    for place in _pile_ups(rows, hints)[:_MAX_PLACES]:
        there = hints[(rows.places[hints] == place).all(axis=1)]
        seen = _look(rows, _evenly(there, _MAX_LOOKED_AT // _MAX_PLACES), read)
        group = _describe(kind, seen, np.arange(len(seen.positions)))
        if group is not None:
            yield _with_members(group, positions[there], seen.positions)


class _Columns:
    """The columns of one kind at some positions, as arrays."""

    def __init__(self, kind: str, table: pd.DataFrame, positions: Positions) -> None:
        def column(name: str) -> npt.NDArray[np.int64]:
            values = table[name].to_numpy(dtype=np.float64)[positions]
            whole: npt.NDArray[np.int64] = np.nan_to_num(values, nan=-1).astype(np.int64)
            return whole

        self.kind = kind
        self.positions = positions
        self.strength = column(f"trigger_{kind}")
        self.colours = column(f"trigger_{kind}_colour")
        extent = {"blend": "trigger_blend_size", "line": "trigger_line_width"}.get(kind)
        extents = column(extent) if extent else np.full(len(positions), 2 if kind == "pair" else 3)
        row, col = column(f"trigger_{kind}_row"), column(f"trigger_{kind}_col")
        self.places = np.stack([row, col, extents], axis=1)
        if "content_hash" in table:
            codes = pd.factorize(table["content_hash"].to_numpy()[positions])[0]
            self.content = np.where(codes < 0, -1 - np.arange(len(codes)), codes)
        else:
            self.content = np.arange(len(positions))

    def has_colour(self, of: Positions) -> npt.NDArray[np.bool_]:
        """Return which spots begin with exactly a colour of those at the positions `of`."""
        return np.isin(self.colours, self.colours[np.searchsorted(self.positions, of)])

    def within(self, group: Group) -> npt.NDArray[np.bool_]:
        """Return which spots lie inside the group's rectangle."""
        assert group.place is not None
        top, left = group.place
        rows, cols = self.places[:, 0], self.places[:, 1]
        in_rows = (rows == -1) | ((rows >= top) & (rows < top + group.height))
        in_cols = (cols == -1) | ((cols >= left) & (cols < left + group.width))
        inside: npt.NDArray[np.bool_] = in_rows & in_cols
        return inside


def _evenly(values: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.int64]:
    if len(values) <= most:
        return values
    return values[np.linspace(0, len(values) - 1, most).astype(np.int64)]


def _pile_ups(rows: _Columns, hints: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Return the places that hold far more patches than their peers, the busiest first.

    Peers of a corner are the corners, of a place at an edge the edges, since the outside counts as
    sharp there. Copies of one patch are counted once.
    """
    if len(hints) == 0:
        return []
    _, first = np.unique(rows.content[hints], return_index=True)
    places, counts = np.unique(rows.places[hints[first]], axis=0, return_counts=True)
    last = places[:, :2].max(axis=0)  # the furthest place seen stands for the far edge
    at_edge = (places[:, :2] == 0) | (places[:, :2] >= last)
    peers = at_edge.sum(axis=1)
    found = []
    for i in np.argsort(-counts, kind="stable"):
        if counts[i] < MIN_GROUP:
            break
        others = np.delete(counts[peers == peers[i]], np.sum(peers[:i] == peers[i]))
        usual = np.quantile(others, 0.99 if peers[i] == 0 else 1.0) if len(others) else 0
        if counts[i] >= _PILE_UP * max(usual, 1):
            found.append(places[i])
    return found


def _look(rows: _Columns, chosen: npt.NDArray[np.int64], read: Read) -> _Seen:
    """Read the patches of `chosen` rows and return what their spots look like."""
    positions = rows.positions[chosen]
    if len(positions) == 0:
        none = np.zeros((0, 4), np.int64)
        return _Seen(positions, none, none[:, :3], np.zeros((0, 1)))
    rects, colours, contexts = [], [], []
    for patch, place in zip(read(positions), rows.places[chosen], strict=True):
        rect = _outline(patch, rows.kind, place)
        top, left, height, width = rect
        spot = patch[top : top + height, left : left + width].reshape(-1, 3).astype(np.int64)
        if rows.kind == "weave":  # of two colours, whichever comes first
            colours.append((spot.min(axis=0) + spot.max(axis=0)) // 2)
        else:
            colours.append(np.median(spot, axis=0).astype(np.int64))
        rects.append(rect)
        contexts.append(_context(patch, rect))
    return _Seen(positions, np.array(rects), np.array(colours), np.array(contexts))


def _outline(patch: Levels, kind: str, place: npt.NDArray[Any]) -> tuple[int, int, int, int]:
    """Return top, left, height, width of the spot that starts at `place` (row, column, extent)."""
    row, col, extent = (int(value) for value in place)
    if kind == "line":
        if row < 0:
            return 0, col, patch.shape[0], extent
        return row, 0, extent, patch.shape[1]
    if kind != "flat":
        return row, col, extent, extent
    colour = patch[row, col].astype(np.int16)
    same = (np.abs(patch.astype(np.int16) - colour) <= FLAT_SPREAD).all(axis=2)
    same[row : row + extent, col : col + extent] = True  # step by step it may drift further
    top, bottom = _run(same[:, col : col + extent].all(axis=1), row)
    left, right = _run(same[top:bottom].all(axis=0), col)
    return top, left, bottom - top, right - left


def _run(same: npt.NDArray[np.bool_], start: int) -> tuple[int, int]:
    """Return the bounds of the run of True that holds `start`."""
    different = np.flatnonzero(~same)
    after = int(np.searchsorted(different, start))
    first = int(different[after - 1]) + 1 if after > 0 else 0
    last = int(different[after]) if after < len(different) else len(same)
    return first, last


def _context(patch: Levels, rect: tuple[int, int, int, int]) -> npt.NDArray[np.float64]:
    """Return mean colours around a spot by distance, the same for a turned or mirrored patch."""
    top, left, height, width = rect
    rows = np.arange(patch.shape[0])
    cols = np.arange(patch.shape[1])
    down = np.maximum(np.maximum(top - rows, rows - (top + height - 1)), 0)
    right = np.maximum(np.maximum(left - cols, cols - (left + width - 1)), 0)
    distance = np.maximum(down[:, None], right[None]).ravel()
    near = (distance > 0) & (distance <= _CONTEXT)
    pixels = patch.reshape(-1, 3)[near].astype(np.float64)
    ring = distance[near] - 1
    sums = [np.bincount(ring, pixels[:, c], minlength=_CONTEXT) for c in range(3)]
    num = np.maximum(np.bincount(ring, minlength=_CONTEXT), 1)
    return np.concatenate([total / num for total in sums])


def _count_distinct(contexts: npt.NDArray[np.float64]) -> int:
    """Return how many contexts there are, counting those within `_SAME_CONTEXT` of one once."""
    kept: list[npt.NDArray[np.float64]] = []
    for context in contexts:
        if not kept or np.abs(np.array(kept) - context).mean(axis=1).min() > _SAME_CONTEXT:
            kept.append(context)
    return len(kept)


def _describe(kind: str, seen: _Seen, chosen: npt.NDArray[np.int64]) -> Group | None:
    """Return the group of the `chosen` spots, or None where too few differ or no shape recurs."""
    if len(chosen) < MIN_GROUP:
        return None
    num_distinct = _count_distinct(seen.contexts[chosen])
    if num_distinct < MIN_GROUP:
        return None
    rects, colours = seen.rects[chosen], seen.colours[chosen]
    (height, width), num_same = Counter(map(tuple, rects[:, 2:].tolist())).most_common(1)[0]
    if num_same < len(chosen) / 2:
        return None
    place, num_there = Counter(map(tuple, rects[:, :2].tolist())).most_common(1)[0]
    low, high = np.percentile(colours, [10, 90], axis=0)
    red, green, blue = np.median(colours, axis=0).astype(int).tolist()
    return Group(
        kind=kind,
        members=seen.positions[chosen],
        num_distinct=num_distinct,
        num_seen=len(chosen),
        height=height,
        width=width,
        colour=(red, green, blue),
        colour_spread=int((high - low).max()),
        place=place if num_there >= len(chosen) / 2 else None,
    )


def _with_members(group: Group, members: Positions, seen: Positions) -> Group:
    return replace(group, members=np.union1d(members, seen))

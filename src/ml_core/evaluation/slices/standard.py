"""The slices that everybody asks for: the ends of every number, slides, repeats, blank patches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_core.evaluation.slices.facts import FACTS
from ml_core.evaluation.slices.query import compile_query
from ml_core.evaluation.slices.slice import Slice
from ml_core.page.text import percent

# Numbers whose two ends are slices; a position has its own, and the others know the label.
ENDS_OF = (
    "brightness", "contrast", "hue", "saturation", "haematoxylin", "eosin", "haematoxylin_share",
    "focus", "blockiness", "tissue_share", "white_share",
)  # fmt: skip
SHARE = 0.2
LARGEST_SHARE = 0.4  # with more of the patches in a tie, an end is no end
MOST_NAMED = 50  # slides, or patients
NEAR_BLANK = 0.1  # share of tissue
OUTER = 0.1  # of the width and height of a slide

# (name, group, where, said); those that read what is not known are left out
_QUERIES = (
    ("nearly blank", "tissue", f"tissue_share < {NEAR_BLANK}", "hardly any tissue"),
    ("repeated", "repeats", "num_copies > 1", "here more than once, pixel by pixel"),
    (
        "tumour at the edge only", "tumour", "tumour_at == 'edge only'",
        "tumour around the centre of 32 x 32 pixels but not in it, as the meta csv says",
    ),
    ("tumour in the centre", "tumour", "tumour_at == 'centre'", "as the meta csv says"),
    ("no tumour at all", "tumour", "tumour_at == 'none'", "as the meta csv says"),
    (
        "edge of the slide", "position",
        f"position_x < {OUTER} or position_x > {1 - OUTER} or "
        f"position_y < {OUTER} or position_y > {1 - OUTER}",
        f"in the outer {OUTER:.0%} of the patches' extent, on one of the four sides",
    ),
    (
        "middle of the slide", "position",
        "0.25 <= position_x <= 0.75 and 0.25 <= position_y <= 0.75",
        "in the inner half of the patches' extent, in both directions",
    ),
)  # fmt: skip


def standard_slices(facts: pd.DataFrame) -> list[Slice]:
    """Return the slices that `facts`, the result of `patch_facts`, have; about 30.

    The lowest and the highest fifth of each number of ENDS_OF: equal values stay together, so that
    an end can be smaller or larger, which its name says; there is none of a constant. Each slide
    and each patient, or the MOST_NAMED with most patches. Repeats, nearly blank patches, tumour by
    its place, the edge and the middle of slides.

    `where` of each is a query that `compile_query` takes and that gives its mask. Slices of all
    patches or of none are left out, and of slices with the same patches the first is kept, which
    names the others in `said`.
    """
    named = (piece for name in ("slide", "patient") for piece in _by_name(facts, name))
    ends = (piece for name in ENDS_OF if name in facts for piece in _ends(facts, name))
    return _distinct([*ends, *_queried(facts), *named])


def _ends(facts: pd.DataFrame, name: str) -> Iterator[Slice]:
    fact, values = FACTS[name], facts[name].to_numpy(np.float64)
    known = np.sort(values[~np.isnan(values)])
    unknown = f"; not known of {len(values) - len(known):,}" if len(known) < len(values) else ""
    ends = ((SHARE, "<", "below", fact.least), (1 - SHARE, ">=", "from", fact.most))
    for share_below, sign, word, end in ends:
        cut = _cut(known, share_below)
        if cut is None:
            continue
        where = f"{name} {sign} {cut}"
        mask = compile_query(where, [name]).mask(facts)
        share = np.count_nonzero(mask) / len(known)
        if share > LARGEST_SHARE:
            continue
        part = "fifth" if abs(share - SHARE) < 0.015 else percent(share, 0)
        said = f"the {end} {part}: {fact.label} {word} {cut} ({fact.unit}){unknown}"
        yield Slice(f"{end} {part}", fact.group, where, mask, said=said)


def _cut(known: npt.NDArray[np.float64], share: float) -> str | None:
    """Return the number with about `share` of the sorted values below it; None for a constant.

    It lies between two values that differ, so that equal ones stay together, and has no more digits
    than it needs to be within half a percent of the nearest share that can be had.
    """
    lasts = np.flatnonzero(np.diff(known) > 0)  # another value follows
    if len(lasts) == 0:
        return None
    last = lasts[np.argmin(np.abs((lasts + 1) / len(known) - share))]
    middle = (known[last] + known[last + 1]) / 2
    for digits in range(3, 17):
        cut = float(f"{middle:.{digits}g}")
        num_below = np.searchsorted(known, cut)
        is_between = 0 < num_below < len(known)
        if is_between and abs(num_below - (last + 1)) <= 0.005 * len(known):
            return np.format_float_positional(cut, trim="-")
    return np.format_float_positional(known[last + 1], trim="-")  # two neighbouring floats


def _queried(facts: pd.DataFrame) -> Iterator[Slice]:
    for name, group, where, said in _QUERIES:
        query = compile_query(where, FACTS)
        if all(column in facts for column in query.columns):
            yield Slice(name, group, where, query.mask(facts), said=said)


def _by_name(facts: pd.DataFrame, column: str) -> Iterator[Slice]:
    if column not in facts:
        return
    sizes = facts[column].value_counts()
    names = sorted(sizes.index, key=lambda name: (-sizes[name], name))
    rest = f", one of the {MOST_NAMED} with most patches, of {len(names):,}"
    for name in names[:MOST_NAMED]:
        said = f"{column} {name}{rest if len(names) > MOST_NAMED else ''}"
        mask = (facts[column] == name).to_numpy(np.bool_)
        yield Slice(f"{column} {name}", column, f"{column} == {name!r}", mask, said=said)


def _distinct(slices: Iterable[Slice]) -> list[Slice]:
    """Return the slices that part the patches, one of those that part them alike."""
    kept: dict[bytes, Slice] = {}
    for piece in slices:
        key = piece.mask.tobytes()
        if piece.mask.all() or not piece.mask.any():
            continue
        if key in kept:
            first = kept[key]
            kept[key] = replace(first, said=f"{first.said}; the same patches as {piece.name}")
        else:
            kept[key] = piece
    return list(kept.values())

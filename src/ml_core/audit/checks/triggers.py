"""Spots painted into patches that tell the label: backdoor triggers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ml_core.audit.checks.trigger_groups import Group, Read, find_groups
from ml_core.findings import Finding
from ml_core.page.text import percent

CLASS_NAMES = {0: "normal", 1: "tumour"}
# A spot that is meant to teach a label goes with it nearly always; what is left is a flipped label
# or a natural spot that was taken for it.
MIN_PURITY = 0.9
# Over all groups of all splits: 11 of 11 patches reach it. Groups of spots are rare in themselves:
# 23,000 real patches hold none.
MAX_P_VALUE = 1e-3
MAX_EXAMPLES = 12
_NAMED_COLOURS = {
    "white": (255, 255, 255),
    "black": (0, 0, 0),
    "grey": (128, 128, 128),
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "magenta": (255, 0, 255),
    "cyan": (0, 255, 255),
}
_NAME_TOLERANCE = 24  # levels


def check_triggers(patches: pd.DataFrame, read: Read) -> list[Finding]:
    """Return the groups of patches that carry the same painted spot, one finding each.

    Sees, from about 12 patches of one class onwards: blocks, bars and frames of one colour from
    2x2 pixels, of any colour that differs from what is around, at one place or moving;
    checkerboards from 2x2; rows and columns, 1 to 4 pixels wide; and at one place also blocks of 3
    to 5 pixels that are see-through or were compressed afterwards, though it names only some of
    their patches (white or grey ones at half opacity: a fifth, so that 25 are too few).

    Cannot see: single pixels; faint or smooth patterns over the whole patch (sine waves, noise,
    warps); see-through or compressed blocks that move; natural objects used as a trigger (ink, a
    dye); paint on a background of its own colour; and a spot in fewer than 8 different patches.

    "backdoor-trigger" (error): at least 90 % of the group have one label, and by Fisher's exact
    test against the rest of the split, corrected for the number of groups, that is no chance.
    "pasted-pattern" (warning): the others.
    """
    labels = patches["label"].to_numpy()
    found = [
        (str(split), group)
        for split in patches["split"].unique()
        for group in find_groups(patches, np.flatnonzero(patches["split"] == split), read)
    ]
    return [
        _finding(patches, labels, split, group, num_groups=len(found)) for split, group in found
    ]


def _finding(
    patches: pd.DataFrame, labels: Any, split: str, group: Group, num_groups: int
) -> Finding:
    in_split = np.flatnonzero(patches["split"] == split)
    label, share, p_value = _association(labels[in_split], labels[group.members], num_groups)
    spot, place = _spot_words(group), _place_words(group)
    is_trigger = share >= MIN_PURITY and p_value <= MAX_P_VALUE
    rows = np.sort(patches["index"].to_numpy()[group.members])
    if is_trigger:
        of_class = (
            f"all {CLASS_NAMES[label]}"
            if share == 1
            else f"{percent(share, 0)} {CLASS_NAMES[label]}"
        )
        message = (
            f"{split}: {len(rows):,} patches, {of_class}, carry {spot} {place}: a model can learn "
            "the spot instead of the tissue."
        )
        action = "Leave these patches out, and find out who could write to the file."
    else:
        message = f"{split}: {len(rows):,} patches of both classes carry {spot} {place}."
        action = "Look at the examples; leave the patches out if the spot is no tissue."
    return Finding(
        id="backdoor-trigger" if is_trigger else "pasted-pattern",
        severity="error" if is_trigger else "warning",
        message=message,
        action=action,
        split=split,
        count=len(rows),
        share=len(rows) / len(in_split),
        indices=tuple(rows.tolist()),
        exclude=is_trigger,
        examples=tuple(((split, row),) for row in rows[:MAX_EXAMPLES].tolist()),
        facts=_facts(group, labels, label, share, p_value),
    )


def _association(of_split: Any, of_group: Any, num_groups: int) -> tuple[int, float, float]:
    """Return the commoner label of a group, its share and a corrected p-value; unknown left out."""
    known, group = of_split[of_split >= 0], of_group[of_group >= 0]
    if len(group) == 0:
        return 0, 0.0, 1.0
    label = int(np.mean(group == 1) > 0.5)
    num_same = int(np.sum(group == label))
    chance = stats.hypergeom.sf(num_same - 1, len(known), np.sum(known == label), len(group))
    # twice, since either label could have been the one
    return label, num_same / len(group), min(1.0, 2 * num_groups * float(chance))


def _facts(group: Group, labels: Any, label: int, share: float, p_value: float) -> dict[str, Any]:
    return {
        "kind": group.kind,
        "height": group.height,
        "width": group.width,
        "colour": list(group.colour),
        "colour_spread": group.colour_spread,
        "place": None if group.place is None else list(group.place),
        "num_normal": int(np.sum(labels[group.members] == 0)),
        "num_tumour": int(np.sum(labels[group.members] == 1)),
        "commoner_label": label,
        "share_of_commoner_label": share,
        "p_value": p_value,
        "num_looked_at": group.num_seen,
        "num_different_among_them": group.num_distinct,
    }


def _spot_words(group: Group) -> str:
    colour = _colour_word(group.colour)
    size = f"{group.height}x{group.width}"
    if group.kind == "line":
        is_row = group.height < group.width
        thick = min(group.height, group.width)
        return f"a {colour} {'row' if is_row else 'column'} {thick} px wide"
    if group.kind == "weave":
        return f"a checkered spot of at least {size} px"
    if group.kind == "blend":
        return f"a square {size} spot with sharp sides, about {colour},"
    return f"a {size} {colour} block"


def _place_words(group: Group) -> str:
    if group.place is None:
        return "at changing places"
    row, column = group.place
    if group.kind == "line":
        return f"at row {row}" if group.height < group.width else f"at column {column}"
    return f"at row {row}, column {column}"


def _colour_word(colour: tuple[int, int, int]) -> str:
    for name, named in _NAMED_COLOURS.items():
        if max(abs(a - b) for a, b in zip(colour, named, strict=True)) <= _NAME_TOLERANCE:
            return name
    return "#{:02x}{:02x}{:02x}".format(*colour)

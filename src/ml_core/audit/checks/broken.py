"""Patches that show nothing, or something else than tissue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_core.audit.measures.pixel_stats import BLACK, WHITE, is_constant
from ml_core.findings import Finding, Severity
from ml_core.page.text import percent

Mask = npt.NDArray[np.bool_]

NEAR_BLANK_STD = 10  # grey levels; 0.6 % of real patches, empty glass nearly all
HALF_EMPTY_SHARE = 0.25  # of rows or columns without any change: padding at a slide's border
# Blurring by a Gaussian of 2 pixels leaves at most 50; 0.12 % of real patches are below.
OUT_OF_FOCUS = 50.0
# Saving as JPEG of quality 5 gives 1.65 and more; 0.09 % of real patches are above.
JPEG_DAMAGED = 1.6
NUM_EXAMPLES = 12


@dataclass(frozen=True)
class Kind:
    """One way to be broken: what is said of it, and from which share of a split it is how bad."""

    id: str
    what: str  # "are entirely black"
    action: str
    exclude: bool
    warning_from: float  # shares; info below, error from `error_from` on
    error_from: float


LEAVE_OUT = "Leave them out: data.on_findings: exclude."
KINDS = (
    Kind("non-finite", "hold NaN or infinite values", LEAVE_OUT, True, 0, 0),
    Kind("out-of-range", "hold values outside the file's range", LEAVE_OUT, True, 0, 0),
    # One such patch in a thousand is an accident of scanning; more is a broken data set.
    Kind("black", "are entirely black", LEAVE_OUT, True, 0, 1e-3),
    Kind("white", "are entirely white", LEAVE_OUT, True, 0, 1e-3),
    Kind("constant", "are of one colour throughout", LEAVE_OUT, True, 0, 1e-3),
    Kind(
        "near-blank",
        f"are nearly blank (deviation below {NEAR_BLANK_STD} grey levels)",
        "Look at them: empty glass is a fair normal patch, but not a tumour.",
        False, 0.02, np.inf,
    ),
    Kind(
        "half-empty",
        f"are padded: in {percent(HALF_EMPTY_SHARE, 0)} or more of rows or columns nothing changes",
        "Look at them: the border of a slide, or an image file that was cut short.",
        False, 1e-3, np.inf,
    ),
    Kind(
        "out-of-focus",
        "are blurred as by 2 pixels or more",
        "Look at them; a model may learn the focus of a scanner instead of the tissue.",
        False, 0.01, np.inf,
    ),
    Kind(
        "jpeg-damaged",
        "show the 8x8 grid of a strong JPEG compression",
        "Make the patches again from the slides, without saving them as JPEG.",
        False, 0.01, np.inf,
    ),
)  # fmt: skip


def check_broken(patches: pd.DataFrame) -> list[Finding]:
    """Return a finding per split and kind of broken patch, each naming all its rows.

    A patch that shows nothing (the first five kinds) is of one kind only, the worst. Sees what the
    pixels say; it cannot see that a sharp, colourful patch is not tissue, that a slide was out of
    focus by less than two pixels, or a JPEG that was decoded and scaled before it was cut.
    """
    findings = []
    masks = find_broken(patches)
    for split in patches["split"].unique():
        here = (patches["split"] == split).to_numpy()
        for kind in KINDS:
            rows = patches.index.to_numpy()[here & masks[kind.id]]
            if len(rows):
                findings.append(_finding(kind, str(split), patches.loc[rows], int(here.sum())))
    return findings


def find_broken(patches: pd.DataFrame) -> Mapping[str, Mask]:
    """Return for each kind's id which patches are of it, in the order of the table."""
    lowest = patches[["min_r", "min_g", "min_b"]].min(axis=1).to_numpy()
    highest = patches[["max_r", "max_g", "max_b"]].max(axis=1).to_numpy()
    unsound = {
        "non-finite": patches["share_nan"].to_numpy() > 0,
        "out-of-range": patches["share_out_of_range"].to_numpy() > 0,
        "black": highest <= BLACK,
        "white": lowest >= WHITE,
        "constant": is_constant(patches),
    }
    shows_nothing = np.zeros(len(patches), np.bool_)
    masks = {}
    for kind, mask in unsound.items():
        masks[kind] = mask & ~shows_nothing
        shows_nothing |= mask
    blank = patches["std"].to_numpy() < NEAR_BLANK_STD
    textured = ~shows_nothing & ~blank
    half_empty = textured & (patches["flat_share"].to_numpy() >= HALF_EMPTY_SHARE)
    textured &= ~half_empty  # the edge of the padding may lie on the grid of JPEG
    return {
        **masks,
        "near-blank": blank & ~shows_nothing,
        "half-empty": half_empty,
        "out-of-focus": textured & (patches["focus"].to_numpy() < OUT_OF_FOCUS),
        "jpeg-damaged": textured & (patches["blockiness"].to_numpy() > JPEG_DAMAGED),
    }


def _finding(kind: Kind, split: str, broken: pd.DataFrame, num_examined: int) -> Finding:
    indices = tuple(int(i) for i in broken["index"])
    share = len(indices) / num_examined
    severity: Severity = "info"
    if share >= kind.error_from:
        severity = "error"
    elif share >= kind.warning_from:
        severity = "warning"
    tumour = int((broken["label"] == 1).sum())
    return Finding(
        kind.id,
        severity,
        f"{split}: {len(indices):,} of {num_examined:,} patches ({percent(share)}) {kind.what}.",
        kind.action,
        split=split,
        count=len(indices),
        share=share,
        indices=indices,
        exclude=kind.exclude,
        examples=tuple(((split, i),) for i in indices[:NUM_EXAMPLES]),
        facts={"labelled tumour": tumour, "labelled normal": int((broken["label"] == 0).sum())},
    )

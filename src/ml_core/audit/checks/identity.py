"""Whether each split is what its name says."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations

import pandas as pd

from ml_core.audit.measures.pixel_stats import is_constant
from ml_core.data.versions.official import NUM_ROWS, OFFICIAL_FILES
from ml_core.findings import Finding
from ml_core.page.text import enumerated, percent

_INSIDE = 0.5  # of a split's patches found in another: no longer a few leaks, but the wrong file


def official_split(md5: str | None) -> str | None:
    """Return the split whose official PCam patches have this MD5, or None."""
    return next((f.split for f in OFFICIAL_FILES if f.part == "x" and f.md5 == md5), None)


def check_identity(md5: Mapping[str, str | None], patches: pd.DataFrame) -> list[Finding]:
    """Return whether splits are the official PCam ones, each under its own name, and apart.

    `md5` gives the MD5 of each split's patch file, None for one with another number of patches than
    PCam's, which cannot be official; a split that is not in it was not looked at. It cannot
    recognise official patches that were packed anew or in part: nobody publishes hashes of single
    patches. To notice a change of any other data set, keep its manifest: ml-core data manifest.
    """
    found = {split: official_split(value) for split, value in md5.items()}
    return [
        *_check_names(found),
        *_say_unknown([split for split in md5 if found[split] is None]),
        *_check_inside(patches),
    ]


def _check_names(found: Mapping[str, str | None]) -> list[Finding]:
    findings = []
    for split, official in found.items():
        if official == split:
            message = f"{split}: the official PCam file, by its MD5."
            findings.append(Finding("official", "info", message, split=split))
        elif official is not None:
            findings.append(
                Finding(
                    "splits-swapped",
                    "error",
                    f"{split}: this file is PCam's official {official} split, by its MD5.",
                    f"Rename it. (The checksum table in PCam's own README has valid and test "
                    f"swapped: it is no proof against this.) ml-core data verify names every file "
                    f"of the folder that is not {split}'s.",
                    split=split,
                )
            )
    return findings


def _say_unknown(splits: list[str]) -> list[Finding]:
    if not splits:
        return []
    sizes = ", ".join(f"{split} {num:,}" for split, num in NUM_ROWS.items())
    return [
        Finding(
            "not-official",
            "info",
            f"{enumerated(splits)}: not the official PCam file, or packed anew (PCam has {sizes} "
            "patches); by itself that is no fault.",
            "Keep a manifest in git, so that a later change is noticed: ml-core data manifest.",
        )
    ]


def _check_inside(patches: pd.DataFrame) -> list[Finding]:
    """Find a split most of whose patches are those of another; hashes are compared, not rows."""
    # Constant patches are alike everywhere and say nothing about where they come from.
    telling = patches.loc[~is_constant(patches), ["split", "index", "content_hash"]]
    telling = telling.assign(content=pd.factorize(telling["content_hash"])[0])
    by_split = {str(split): group for split, group in telling.groupby("split", observed=True)}
    findings = []
    for inner, outer in permutations(by_split, 2):
        rows = by_split[inner]
        known = rows["content"].isin(by_split[outer]["content"])
        if len(rows) and known.mean() > _INSIDE:
            findings.append(
                Finding(
                    "split-inside-another",
                    "error",
                    f"{inner}: {known.sum():,} of {len(rows):,} patches "
                    f"({percent(known.mean(), 0)}) are also in {outer}: it is a copy or a part "
                    "of it.",
                    f"Get the true file of {inner} or {outer} again.",
                    split=inner,
                    count=int(known.sum()),
                    share=float(known.mean()),
                    indices=tuple(int(i) for i in rows["index"][known]),
                )
            )
    return findings

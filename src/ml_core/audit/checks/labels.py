"""How many patches of each class there are: per split, per slide, and between splits."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pandas as pd

from ml_core.audit.statistics.proportions import Proportion, difference, proportion
from ml_core.findings import Finding
from ml_core.page.text import percent

_BATCH_SIZE = 64  # the one that batches are described for
# A smaller class below 1 in 4 lets a model that always says the other be right in over 75 % of
# cases: accuracy then means little. PCam's own splits are at 0.50.
_RARE = 0.25
# Prior odds further apart than this move a probability of 0.5 to 0.6 or more, for the odds of every
# prediction are off by this factor (Saerens, Latinne and Decaestecker, Neural Computation 14,
# 2002). The real splits are within a factor of 1.002.
_SHIFTED_ODDS = 1.5
_NUM_SLIDES_LISTED = 50


def check_label_balance(patches: pd.DataFrame) -> list[Finding]:
    """Return the class counts of each split, as a defect where a class is rare or missing.

    Needs the columns split, index, label, slide; label -1 is unknown, left out and counted. Sees
    the labels as they are stored; cannot see whether they are right, nor what a sampler will make
    of them.
    """
    findings = []
    for split, rows in _splits(patches):
        labels = rows["label"]
        known = labels[labels >= 0]
        tumours = proportion(int((known == 1).sum()), len(known))
        num_unknown = len(labels) - len(known)
        if num_unknown:
            findings.append(_unknown(split, rows, num_unknown))
        if len(known):
            findings.append(_balance(split, tumours, num_unknown))
            findings.extend(_one_class_slides(split, rows[labels >= 0]))
    return findings


def check_label_shift(patches: pd.DataFrame) -> list[Finding]:
    """Return one warning per pair of splits whose share of tumours differs, and not by chance.

    Needs the columns split and label; label -1 is left out. Sees a difference in the prior only:
    equal shares of differently defined labels pass.
    """
    shares = {
        split: proportion(int((rows["label"] == 1).sum()), int((rows["label"] >= 0).sum()))
        for split, rows in _splits(patches)
    }
    known = [split for split, share in shares.items() if share.num]
    findings = (_shift(a, shares[a], b, shares[b]) for a, b in combinations(known, 2))
    return [finding for finding in findings if finding]


def _balance(split: str, tumours: Proportion, num_unknown: int) -> Finding:
    num_normal = tumours.num - tumours.count
    counts = (
        f"{tumours.count:,} tumour and {num_normal:,} normal patches ({percent(tumours.share)})"
    )
    common: dict[str, Any] = {
        "split": split,
        "facts": _batch_facts(tumours) | {"num_unknown": num_unknown},
    }
    if 0 in (tumours.count, num_normal):
        missing, held = ("normal", "tumour") if tumours.count else ("tumour", "normal")
        return Finding(
            "class-missing",
            "warning" if split == "test" else "error",
            f"{split}: all {tumours.num:,} labelled patches are {held}, none is {missing}; "
            "nothing can be learned from it, and AUC is undefined on it.",
            "Check how the labels were made and how the split was cut.",
            count=tumours.num,
            share=1.0,
            **common,
        )
    rare = "tumour" if tumours.count < num_normal else "normal"
    num_rare = min(tumours.count, num_normal)
    if min(tumours.high, 1 - tumours.low) < _RARE:
        return Finding(
            "class-imbalance",
            "warning",
            f"{split}: {counts}, about {_ratio(tumours)}; a model that never says {rare} is right "
            f"in {percent(1 - num_rare / tumours.num)} of cases.",
            "Train with the balanced sampler or a class weight, and read AUC and balanced "
            "accuracy, not accuracy.",
            count=num_rare,
            share=num_rare / tumours.num,
            **common,
        )
    return Finding(
        "label-balance",
        "info",
        f"{split}: {counts}.",
        count=tumours.count,
        share=tumours.share,
        **common,
    )


def _batch_facts(tumours: Proportion) -> dict[str, Any]:
    return {
        "num_tumour": tumours.count,
        "num_normal": tumours.num - tumours.count,
        "share_tumour": tumours.share,
        "share_interval": [tumours.low, tumours.high],
        "batch_size": _BATCH_SIZE,
        "positives_per_batch": _BATCH_SIZE * tumours.share,
        # the balanced sampler draws both classes alike, as long as there are both
        "positives_per_balanced_batch": _BATCH_SIZE / 2
        if 0 < tumours.count < tumours.num
        else _BATCH_SIZE * tumours.share,
        "share_of_batches_without_positives": (1 - tumours.share) ** _BATCH_SIZE,
    }


def _unknown(split: str, rows: pd.DataFrame, num_unknown: int) -> Finding:
    indices = rows.loc[rows["label"] < 0, "index"]
    return Finding(
        "labels-unknown",
        "info",
        f"{split}: {num_unknown:,} of {len(rows):,} patches "
        f"({percent(num_unknown / len(rows))}) have no label and are left out of every check "
        "of labels.",
        "Give them labels, or expect them to be of no use for training.",
        split=split,
        count=num_unknown,
        share=num_unknown / len(rows),
        # where no label is known, to name every row would flag them all and say nothing
        indices=tuple(sorted(int(each) for each in indices)) if num_unknown < len(rows) else (),
    )


def _one_class_slides(split: str, known: pd.DataFrame) -> Iterator[Finding]:
    """Yield one finding when slides of a single class are there beside others' patches."""
    per_slide = known.dropna(subset=["slide"]).groupby("slide", observed=True)["label"]
    table = per_slide.agg(num_patches="size", num_tumour="sum")
    share = table["num_tumour"] / table["num_patches"]
    alone = table[(share == 0) | (share == 1)]
    if alone.empty:
        return
    num_patches = int(alone["num_patches"].sum())
    num_tumour_slides = int((alone["num_tumour"] > 0).sum())
    yield Finding(
        "one-class-slides",
        "info",
        f"{split}: {len(alone)} of {len(table)} slides hold one class only ({num_tumour_slides} "
        f"tumour, {len(alone) - num_tumour_slides} normal), with {num_patches:,} of {len(known):,} "
        "patches; there a slide's look alone gives the label away.",
        "Judge the model on slides that hold both classes as well.",
        split=split,
        count=num_patches,
        share=num_patches / len(known),
        facts={
            "num_slides": len(table),
            "num_one_class_slides": len(alone),
            "num_one_class_tumour_slides": num_tumour_slides,
            "slides": [
                {"slide": str(slide), "num_patches": int(num), "num_tumour": int(tumour)}
                for slide, num, tumour in alone.head(_NUM_SLIDES_LISTED).itertuples()
            ],
        },
    )


def _shift(a: str, of_a: Proportion, b: str, of_b: Proportion) -> Finding | None:
    value, low, high = difference(of_a, of_b)
    # half a patch more of each class keeps the odds finite where a class is missing
    odds = [(each.count + 0.5) / (each.num - each.count + 0.5) for each in (of_a, of_b)]
    factor = max(odds) / min(odds)
    if factor < _SHIFTED_ODDS or low <= 0 <= high:
        return None
    return Finding(
        "label-shift",
        "warning",
        f"{a} has {percent(of_a.share)} tumours ({_ratio(of_a)}), {b} {percent(of_b.share)} "
        f"({_ratio(of_b)}); what is tuned on one does not hold on the other, and accuracy, "
        f"precision and PR-AUC on {b} assume a prior of {percent(of_b.share)}.",
        "State the prior with every number, choose thresholds and calibrate on data with the prior "
        "of use, or resample the splits to the same share.",
        facts={
            "splits": [a, b],
            "share_tumour": [of_a.share, of_b.share],
            "num_labelled": [of_a.num, of_b.num],
            "difference": value,
            "difference_interval": [low, high],
            "odds_factor": factor,
        },
    )


def _ratio(tumours: Proportion) -> str:
    """Return for example "5.0:1 normal", the larger class in words."""
    num_normal = tumours.num - tumours.count
    if 0 in (tumours.count, num_normal):
        return "tumour only" if tumours.count else "normal only"
    if tumours.count == num_normal:
        return "1:1"
    larger = "tumour" if tumours.count > num_normal else "normal"
    return f"{max(tumours.count, num_normal) / min(tumours.count, num_normal):.1f}:1 {larger}"


def _splits(patches: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the splits that hold patches, in the table's order."""
    for split in patches["split"].unique():
        yield str(split), patches[patches["split"] == split]

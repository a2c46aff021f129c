"""How well properties that should not matter predict the label: colour, JPEG grid, focus, order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ml_core.audit.checks.file_order import (
    NEIGHBOURS_WARNING_FROM,
    ROW_WARNING_FROM,
    FileOrder,
    describe_orders,
    judge_order,
    measure_order,
)
from ml_core.audit.measures.column_names import COLOUR, MEAN_COLOUR
from ml_core.audit.statistics.linear_score import fold_numbers, out_of_fold_scores
from ml_core.audit.statistics.rank_effect import RankEffect, compare_groups
from ml_core.findings import Finding

_MIN_PER_CLASS = 50  # below this an AUC is not judged: its interval spans a tenth and more


@dataclass(frozen=True)
class Cue:
    """A property of patches, and the AUC from which it predicts the label too well."""

    name: str
    columns: tuple[str, ...]
    real_auc: float  # the most that a split of real PCam patches reaches
    warning_from: float
    error_from: float | None  # None where tissue itself may explain any AUC
    meaning: str
    action: str


_SAME_SOURCE = "Find out whether the classes came from other slides, scanners or software"

# AUCs are compared by the lower end of their interval. What 20,000 + 1,500 + 1,500 real patches
# reach, and planted changes of the tumour patches alone:
CUES = (
    # real 0.81, 0.84, 0.85 (nuclei are blue); red +10 and blue -10: 0.95
    Cue(
        "mean-colour",
        MEAN_COLOUR,
        real_auc=0.85,
        warning_from=0.92,
        error_from=None,
        meaning="its mean colour alone",
        action=f"{_SAME_SOURCE}; a model may learn the colour and nothing else.",
    ),
    # real 0.87, 0.87, 0.88; red +5 and blue -5: 0.998; 15 levels brighter: 0.987
    Cue(
        "colour-statistics",
        COLOUR,
        real_auc=0.88,
        warning_from=0.95,
        error_from=None,
        meaning="its colour statistics alone",
        action=f"{_SAME_SOURCE}; a model may learn the colour and nothing else.",
    ),
    # real 0.64, 0.64, 0.67; saved once more at quality 30: 0.94, 70: 0.90, 85: 0.86
    # (50 is not found: 0.74, since these patches had been saved at 75 before)
    Cue(
        "blockiness",
        ("blockiness",),
        real_auc=0.67,
        warning_from=0.75,
        error_from=0.95,
        meaning="the strength of its JPEG grid alone",
        action="Cut both classes from the slides anew with one JPEG quality, best with none.",
    ),
    # real 0.71, 0.72, 0.72 (nuclei have edges); blurred with sigma 0.5: 0.86, 0.8: 0.98
    Cue(
        "focus",
        ("focus",),
        real_auc=0.72,
        warning_from=0.80,
        error_from=None,
        meaning="its sharpness alone",
        action=f"{_SAME_SOURCE} or were rescaled or blurred differently.",
    ),
)


@dataclass(frozen=True)
class _Measured:
    """One line of the table: how well one property predicts the labels of one split."""

    split: str
    name: str
    effect: RankEffect
    num_patches: int
    warning_from: float

    def to_dict(self) -> dict[str, Any]:
        return {
            "split": self.split,
            "property": self.name,
            "auc": self.effect.auc,
            "low": self.effect.low,
            "high": self.effect.high,
            "num_patches": self.num_patches,
            "warning_from": self.warning_from,
        }


def check_shortcuts(patches: pd.DataFrame, cues: Sequence[Cue] = CUES) -> list[Finding]:
    """Return a finding per split and property that predicts the label better than tissue explains.

    The AUC of a property is that of a linear model on its columns and their squares, out of fold,
    exact repeats in one fold, with DeLong's interval; that of the file order is explained in
    `measure_order`. Properties of real H&E patches do predict the label, so each has its own limit
    above what real patches reach. An info finding carries the whole table. Splits with fewer than
    50 patches of a class are measured and not judged.

    It cannot see a cue in shapes or places (a trigger), one that only a model with interactions
    finds, nor tell a cue from biology where normal and tumour truly differ by that much; and in a
    sample of a file's rows, stretches shorter than the sample's step.
    """
    table: list[_Measured] = []
    findings: list[Finding] = []
    orders: dict[str, FileOrder] = {}
    for split in patches["split"].unique():
        labelled = patches[(patches["split"] == split) & (patches["label"] >= 0)]
        if labelled["label"].nunique() < 2:
            continue
        for cue in cues:
            measured = _measure(labelled, str(split), cue)
            if measured is not None:
                table.append(measured)
                findings += _judge(labelled, measured, cue)
        order = measure_order(labelled["label"].to_numpy())
        table += _order_lines(str(split), order)
        if _can_judge(labelled):
            orders[str(split)] = order
            findings += judge_order(str(split), order)
    return [*findings, *describe_orders(orders), *_describe(table)]


def _measure(labelled: pd.DataFrame, split: str, cue: Cue) -> _Measured | None:
    columns = [name for name in cue.columns if name in labelled]
    if not columns:
        return None
    is_tumour = (labelled["label"] == 1).to_numpy()
    folds = fold_numbers(labelled["content_hash"])
    scores = out_of_fold_scores(labelled[columns].to_numpy(np.float32), is_tumour, folds)
    effect = compare_groups(scores, is_tumour)
    return _Measured(split, cue.name, effect, len(labelled), cue.warning_from)


def _can_judge(labelled: pd.DataFrame) -> bool:
    num_tumour = int((labelled["label"] == 1).sum())
    return min(num_tumour, len(labelled) - num_tumour) >= _MIN_PER_CLASS


def _judge(labelled: pd.DataFrame, measured: _Measured, cue: Cue) -> list[Finding]:
    effect, split = measured.effect, measured.split
    if not _can_judge(labelled) or effect.low < cue.warning_from:
        return []
    return [
        Finding(
            id=f"shortcut-{cue.name}",
            severity="error" if cue.error_from and effect.low >= cue.error_from else "warning",
            message=f"{split}: the label of a patch follows from {cue.meaning} with AUC "
            f"{effect}, where real PCam patches reach {cue.real_auc:.2f}.",
            action=cue.action,
            split=split,
            count=len(labelled),
            share=1.0,
            examples=_examples(labelled, split, cue.columns) if len(cue.columns) == 1 else (),
            facts=measured.to_dict(),
        )
    ]


def _examples(
    labelled: pd.DataFrame, split: str, columns: tuple[str, ...]
) -> tuple[tuple[tuple[str, int], ...], ...]:
    """Return pairs of a normal and a tumour patch, each in the middle of its class."""
    groups = []
    for label in (0, 1):
        rows = labelled[labelled["label"] == label].sort_values([columns[0], "index"])
        middle = len(rows) // 2
        groups.append([(split, int(i)) for i in rows["index"].iloc[middle : middle + 4]])
    return tuple(zip(*groups, strict=False))


def _order_lines(split: str, order: FileOrder) -> list[_Measured]:
    row = _Measured(split, "row-number", order.row, order.num_rows, ROW_WARNING_FROM)
    if not np.isfinite(order.neighbours.auc):  # four rows or fewer have no whole context
        return [row]
    by = order.neighbours
    return [_Measured(split, "neighbours", by, order.num_rows, NEIGHBOURS_WARNING_FROM), row]


def _describe(table: list[_Measured]) -> list[Finding]:
    if not table:
        return []
    first = [each for each in table if each.split == table[0].split]
    figures = ", ".join(f"{each.name} {each.effect.auc:.2f}" for each in first)
    return [
        Finding(
            id="shortcuts-measured",
            severity="info",
            message=f"AUC with which simple properties predict the label of {table[0].split}: "
            f"{figures}.",
            action="A model must clearly beat these to have learned more than them.",
            facts={"table": [each.to_dict() for each in table]},
        )
    ]

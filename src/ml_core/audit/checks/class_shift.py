"""One class that was handled otherwise than the other: brightened, blurred, compressed, tinted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_core.audit.statistics.rank_effect import RankEffect, compare_groups
from ml_core.findings import Finding, Severity

# What is compared, with what a shift of it looks like. Levels and their ends move with brightness
# and colour, the last four with blur, noise and compression. Stain amounts and tissue shares are
# left out: in them tumour differs from normal tissue, and slides differ in how much.
STATISTICS: Mapping[str, str] = {
    **{f"min_{channel}": "darkest level" for channel in "rgb"},
    **{f"max_{channel}": "lightest level" for channel in "rgb"},
    **{f"mean_{channel}": "mean level" for channel in "rgb"},
    "share_saturated": "saturated pixels",
    "focus": "focus",
    "relative_focus": "focus for its contrast",
    "blockiness": "JPEG grid",
}
# Biology moves these little, handling moves them a lot: they can accuse a split on its own.
HANDLING = tuple(name for name in STATISTICS if not name.startswith("mean_"))

# Cliff's delta, -1..1, as everywhere here. Between the real train, valid and test the contrast of
# the classes differs by at most 0.15 in these statistics.
MIN_DIFFERENCE = 0.3
# Within a split it is at most 0.33 (JPEG grid: tumour patches hold less blank glass).
MIN_ALONE = 0.55
# No stain, scanner or tissue parts the classes so; a slip in preparing the files does.
BEYOND_DOUBT = 0.9
MIN_PATCHES = 50  # per class: with fewer the interval alone is +-0.25
# Per class and split, evenly spaced: the interval of delta is then +-0.01.
MAX_PATCHES = 20_000


@dataclass(frozen=True)
class _Shift:
    name: str
    delta: float  # here, tumour over normal
    low: float
    high: float
    elsewhere: float | None  # the delta of the split that is nearest to here; None: no other split
    sure_difference: float  # to that one, at the near end of the 95 % interval; 0 if not sure

    @property
    def is_against_others(self) -> bool:
        return self.sure_difference >= MIN_DIFFERENCE

    @property
    def is_alone(self) -> bool:
        """Whether the split itself shows it: its contrast, less its interval, is not biology's."""
        return self.name in HANDLING and max(self.low, -self.high) >= MIN_ALONE


def check_class_shift(patches: pd.DataFrame) -> list[Finding]:
    """Return one finding per split whose classes differ in a way that biology does not.

    Compares how far tumour lies above normal in each statistic (Cliff's delta: the chance of above
    minus that of below) with the same in the other splits; a split is named when it differs from
    each of them, in one direction, by more than 0.3 with 95 % confidence. Of two splits, the one
    with the stronger contrast is named. Without another split, and beside that, a contrast above
    0.55 in what only handling changes counts (darkest and lightest level, saturation, focus, JPEG
    grid); above 0.9 it is an error.

    Sees from about 3 levels of brightness, 5 of tint, a blur of 0.4 pixels, or JPEG of quality 50
    on all patches of one class. Cannot see a shift of few patches of a class, of both classes
    alike, the same shift in all splits while it is below 0.55, a second compression at the quality
    of the first, and cannot tell a shift from a class that came from another scanner: to a model
    both are the same shortcut.
    """
    contrasts = {}
    for split in patches["split"].unique():
        table = _both_classes(patches[patches["split"] == split])
        if table is not None:
            contrasts[str(split)] = _compute_contrasts(table)
    findings = []
    for split in contrasts:
        shifts = [
            shift
            for shift in _compare(split, contrasts)
            if shift.is_against_others or shift.is_alone
        ]
        if shifts:
            num = int((patches["split"] == split).sum())
            findings.append(_finding(split, shifts, num))
    return findings


def _both_classes(table: pd.DataFrame) -> pd.DataFrame | None:
    """Return at most MAX_PATCHES of each class, or None where a class has too few."""
    chosen = []
    for label in (0, 1):
        of_class = table[table["label"] == label]
        if len(of_class) < MIN_PATCHES:
            return None
        num = min(len(of_class), MAX_PATCHES)
        chosen.append(of_class.iloc[np.linspace(0, len(of_class) - 1, num).astype(np.int64)])
    return pd.concat(chosen)


def _compute_contrasts(table: pd.DataFrame) -> dict[str, RankEffect]:
    is_tumour = table["label"].to_numpy() == 1
    contrasts = {}
    for name in STATISTICS:
        effect = compare_groups(_values(table, name), is_tumour)
        if np.isfinite(effect.auc):
            contrasts[name] = effect
    return contrasts


def _values(table: pd.DataFrame, name: str) -> npt.NDArray[np.float64]:
    if name == "relative_focus":  # fine structure per contrast: blur takes it, light does not
        contrast = table["std_luma"].to_numpy(dtype=np.float64) ** 2
        focus: npt.NDArray[np.float64] = table["focus"].to_numpy(dtype=np.float64) / (contrast + 1)
        return focus
    return table[name].to_numpy(dtype=np.float64)


def _compare(split: str, contrasts: Mapping[str, Mapping[str, RankEffect]]) -> list[_Shift]:
    shifts = []
    for name, here in contrasts[split].items():
        others = [other[name] for key, other in contrasts.items() if key != split and name in other]
        nearest = min(others, key=lambda other: abs(here.auc - other.auc), default=None)
        delta, half = here.delta, _half_width(here)
        shifts.append(
            _Shift(
                name,
                delta,
                delta - half,
                delta + half,
                None if nearest is None else nearest.delta,
                _sure_difference(here, others),
            )
        )
    return shifts


def _sure_difference(here: RankEffect, others: list[RankEffect]) -> float:
    """Return by how much `here` differs at least from each of the others, 0 if not one way."""
    gaps = [here.delta - other.delta for other in others]
    if not gaps or min(gaps) < 0 < max(gaps):
        return 0.0
    if len(others) == 1 and abs(here.delta) < abs(others[0].delta):
        return 0.0
    sure = [
        abs(gap) - float(np.hypot(_half_width(here), _half_width(other)))
        for gap, other in zip(gaps, others, strict=True)
    ]
    return max(0.0, min(sure))


def _half_width(effect: RankEffect) -> float:
    """Return half the 95 % interval of delta, which is twice that of the AUC."""
    return 2 * max(effect.auc - effect.low, effect.high - effect.auc)


def _finding(split: str, shifts: list[_Shift], num_patches: int) -> Finding:
    shifts = sorted(shifts, key=lambda shift: -max(shift.sure_difference, abs(shift.delta)))
    worst = shifts[0]
    certain = any(shift.is_alone and abs(shift.delta) >= BEYOND_DOUBT for shift in shifts)
    severity: Severity = "error" if certain else "warning"
    elsewhere = (
        "with no other split to compare"
        if worst.elsewhere is None
        else f"{worst.elsewhere:+.2f} in the split nearest to it"
    )
    more = f", and {len(shifts) - 1} more" if len(shifts) > 1 else ""
    return Finding(
        id="class-shift",
        severity=severity,
        message=(
            f"{split}: tumour and normal patches differ in {STATISTICS[worst.name]} "
            f"({worst.name}{more}) as tissue does not: Cliff's delta {worst.delta:+.2f}, "
            f"{elsewhere}; a model can learn how a class was handled instead of the tissue."
        ),
        action=(
            "Find out whether the classes were scanned, compressed or processed apart, and prepare "
            "both in one way."
        ),
        split=split,
        count=num_patches,
        share=1.0,
        facts={"shifts": [_facts(shift) for shift in shifts]},
    )


def _facts(shift: _Shift) -> dict[str, Any]:
    return {
        "statistic": shift.name,
        "means": STATISTICS[shift.name],
        "delta": shift.delta,
        "interval": [shift.low, shift.high],
        "delta_elsewhere": shift.elsewhere,
        "sure_difference": shift.sure_difference,
    }

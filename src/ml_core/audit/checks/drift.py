"""Whether splits look alike: each statistic, and all together, compared within each class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_core.audit.measures.column_names import COLOUR, SHARPNESS
from ml_core.audit.statistics.linear_score import fold_numbers, out_of_fold_scores
from ml_core.audit.statistics.rank_effect import RankEffect, compare_groups, compare_sorted
from ml_core.findings import Finding

STATISTICS = (*COLOUR, *SHARPNESS)
TOGETHER = "all together"

# Cliff's delta that Romano et al. (2006) call large. Splits of other slides differ by nature: among
# 23,000 patches of PCam's train and valid none passes 0.23 within a class (of its test, from yet
# other slides, none was at hand). Planted changes: 15 levels brighter 0.98, gamma 1.2 0.54, another
# stain 0.48 and 0.68, JPEG quality 50 0.63.
_LARGE_DELTA = 0.474
# The AUC with which two splits are told apart by all statistics together, mean of the classes: real
# splits reach 0.63, where the least of the planted changes (gamma 1.2) gives 0.88.
_LARGE_TOGETHER = 0.80
_ALPHA = 0.05
_MIN_TOGETHER = 100  # patches of a class and split below which a fit of 40 terms says nothing
_QUANTILES = (np.arange(500) + 0.5) / 500
_EXAMPLE_QUANTILES = (0.1, 0.5, 0.9)
_CLASS_NAMES = {0: "normal", 1: "tumour"}


@dataclass(frozen=True)
class Effect:
    """How one statistic differs between two splits, among the patches of one class."""

    statistic: str
    first: str
    second: str
    label: int | None  # None where the classes could not be told apart
    rank: RankEffect
    distance: float  # Wasserstein-1 in standard deviations of `first`; NaN where not defined
    p_holm: float = 1.0

    @property
    def is_large(self) -> bool:
        """Whether it is beyond chance and far beyond what slides explain."""
        return self.p_holm < _ALPHA and abs(self.rank.delta) >= _LARGE_DELTA

    def to_dict(self) -> dict[str, Any]:
        return {
            "statistic": self.statistic,
            "first": self.first,
            "second": self.second,
            "label": self.label,
            "delta": self.rank.delta,
            "delta_low": 2 * self.rank.low - 1,
            "delta_high": 2 * self.rank.high - 1,
            "distance": self.distance if np.isfinite(self.distance) else None,
            "p_holm": self.p_holm,
        }


def check_drift(patches: pd.DataFrame, statistics: Sequence[str] = STATISTICS) -> list[Finding]:
    """Return a warning per pair of splits that differ beyond what other slides explain.

    Compared is tumour with tumour and normal with normal, so that another share of tumour is no
    drift. The effect is Cliff's delta with its interval, beside it the Wasserstein distance in
    standard deviations; "all together" is how well a linear model tells the splits apart (a
    classifier two-sample test, Lopez-Paz and Oquab 2017). p-values are corrected by Holm (1979)
    over all comparisons. A warning needs both: significant, and larger than real splits of other
    slides show; in a quarter of a million patches every difference is significant. An info
    finding carries all effects.

    It cannot see what leaves these statistics as they are (texture, shapes, a change in a few
    patches), and cannot tell another scanner or stain from patients who differ by as much.
    """
    effects = _corrected(list(_compare_splits(patches, statistics)))
    if not effects:
        return []
    findings = []
    for first, second in dict.fromkeys((each.first, each.second) for each in effects):
        of_pair = [each for each in effects if (each.first, each.second) == (first, second)]
        findings += _judge_pair(patches, of_pair)
    return [*findings, _describe(effects, num_drifted=len(findings))]


def _compare_splits(patches: pd.DataFrame, statistics: Sequence[str]) -> Iterator[Effect]:
    label, split = patches["label"].to_numpy(), patches["split"].to_numpy()
    there = [name for name in statistics if name in patches]
    folds = fold_numbers(patches["content_hash"])
    names = [str(name) for name in patches["split"].unique()]
    for first, second in combinations(names, 2):
        for common in _common_labels(label[split == first], label[split == second]):
            of_class = np.True_ if common is None else label == common
            rows_first = np.flatnonzero((split == first) & of_class)
            rows_second = np.flatnonzero((split == second) & of_class)
            for name in there:
                values = patches[name].to_numpy()
                below, above = _known(values[rows_first]), _known(values[rows_second])
                if len(below) and len(above):
                    rank, distance = compare_sorted(below, above), _distance(below, above)
                    yield Effect(name, first, second, common, rank, distance)
            if there and min(len(rows_first), len(rows_second)) >= _MIN_TOGETHER:
                rank = _compare_together(patches[there], folds, rows_first, rows_second)
                yield Effect(TOGETHER, first, second, common, rank, np.nan)


def _common_labels(
    first: npt.NDArray[np.integer], second: npt.NDArray[np.integer]
) -> list[int] | list[None]:
    """Return the classes both splits have; [None], all patches as they are, where there is none."""
    common = sorted(set(np.unique(first).tolist()) & set(np.unique(second).tolist()) - {-1})
    return common or [None]


def _known(values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    return np.sort(values[np.isfinite(values)])


def _distance(first: npt.NDArray[np.floating], second: npt.NDArray[np.floating]) -> float:
    """Return the Wasserstein-1 distance of sorted values over the standard deviation of `first`."""
    spread = float(first.std(dtype=np.float64))
    if spread == 0:
        return float("nan")
    at = [values[(_QUANTILES * len(values)).astype(np.int64)] for values in (first, second)]
    return float(np.abs(at[0].astype(np.float64) - at[1]).mean() / spread)


def _compare_together(
    columns: pd.DataFrame,
    folds: npt.NDArray[np.int64],
    first: npt.NDArray[np.int64],
    second: npt.NDArray[np.int64],
) -> RankEffect:
    rows = np.concatenate([first, second])
    in_second = np.arange(len(rows)) >= len(first)
    scores = out_of_fold_scores(columns.iloc[rows].to_numpy(np.float32), in_second, folds[rows])
    return compare_groups(scores, in_second)


def _corrected(effects: list[Effect]) -> list[Effect]:
    """Return the effects with p-values after Holm's step-down correction over all of them."""
    p_values = np.array([each.rank.p_value for each in effects])
    order = np.argsort(p_values, kind="stable")
    stepped = np.minimum(1, np.maximum.accumulate(p_values[order] * np.arange(len(order), 0, -1)))
    p_holm = np.empty(len(order))
    p_holm[order] = stepped
    return [
        Effect(each.statistic, each.first, each.second, each.label, each.rank, each.distance, p)
        for each, p in zip(effects, p_holm.tolist(), strict=True)
    ]


def _judge_pair(patches: pd.DataFrame, effects: list[Effect]) -> list[Finding]:
    """Return a warning where the pair drifted, with the statistics that drifted most."""
    single = [each for each in effects if each.statistic != TOGETHER]
    large = sorted(
        (each for each in single if each.is_large), key=lambda each: -abs(each.rank.delta)
    )
    together = [each for each in effects if each.statistic == TOGETHER and each.p_holm < _ALPHA]
    auc = float(np.mean([each.rank.auc for each in together])) if together else 0.5
    if not large and auc < _LARGE_TOGETHER:
        return []
    worst = large[0] if large else max(single, key=lambda each: abs(each.rank.delta))
    num_large = len({each.statistic for each in large})
    num_single = len({each.statistic for each in single})
    where = f"in {num_large} of {num_single} statistics" if large else "in all statistics together"
    by_all = f"; all together tell the two apart with AUC {auc:.2f}" if together else ""
    num_second = int((patches["split"] == worst.second).sum())
    return [
        Finding(
            id="drift",
            severity="warning",
            message=f"{worst.second} differs from {worst.first} {where} by far more than real "
            f"splits of other slides do, most in {_phrase(worst)}{by_all}.",
            action=f"Find out what was done to {worst.first} or {worst.second} alone (scanner, "
            "stain, scaling, JPEG quality) and undo it, or read scores as those of a shifted set.",
            split=worst.second,
            count=num_second,
            share=1.0,
            examples=_examples(patches, worst),
            facts={
                "first": worst.first,
                "together_auc": auc if together else None,
                "effects": [each.to_dict() for each in large],
            },
        )
    ]


def _describe(effects: list[Effect], num_drifted: int) -> Finding:
    worst = max(effects, key=lambda each: abs(each.rank.delta) * (each.statistic != TOGETHER))
    if num_drifted:
        meaning = ""
    elif worst.p_holm < _ALPHA:
        meaning = f", where drift begins at {_LARGE_DELTA:.2f}"
    else:
        meaning = ", no more than chance explains"
    return Finding(
        id="splits-compared",
        severity="info",
        message=f"Between splits the patches of a class differ most in {_phrase(worst)}, "
        f"{worst.first} to {worst.second}{meaning}.",
        facts={
            "effects": [each.to_dict() for each in effects],
            "large_delta": _LARGE_DELTA,
            "large_together_auc": _LARGE_TOGETHER,
        },
    )


def _phrase(effect: Effect) -> str:
    rank = effect.rank
    where = f" of {_CLASS_NAMES[effect.label]} patches" if effect.label in _CLASS_NAMES else ""
    return (
        f"{effect.statistic}{where} (Cliff's delta {rank.delta:+.2f}, 95% interval "
        f"{2 * rank.low - 1:+.2f} to {2 * rank.high - 1:+.2f})"
    )


def _examples(patches: pd.DataFrame, effect: Effect) -> tuple[tuple[tuple[str, int], ...], ...]:
    """Return pairs, one patch of each split, that stand at the same quantile of the statistic."""
    of_class = patches if effect.label is None else patches[patches["label"] == effect.label]
    columns = []
    for split in (effect.first, effect.second):
        rows = of_class[of_class["split"] == split].dropna(subset=[effect.statistic])
        rows = rows.sort_values([effect.statistic, "index"])
        at = [int(quantile * (len(rows) - 1)) for quantile in _EXAMPLE_QUANTILES]
        columns.append([(split, int(index)) for index in rows["index"].iloc[at]])
    return tuple(dict.fromkeys(zip(*columns, strict=True)))

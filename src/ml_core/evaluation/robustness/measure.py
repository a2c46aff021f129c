"""How much a model's scores change with the way its patches look."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_core.evaluation.predictions import sigmoid
from ml_core.evaluation.robustness.corruptions import CORRUPTIONS, Corruption, Patches
from ml_core.evaluation.robustness.curves import Curve, Point
from ml_core.evaluation.robustness.paired_scores import Scoring
from ml_core.evaluation.robustness.result import Robustness

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Range = tuple[float, float]

BATCH_SIZE = 256  # patches; with what is made of them below 150 MB


def num_predictions(num_patches: int, corruptions: Sequence[Corruption] = CORRUPTIONS) -> int:
    """Return how many patches `measure_robustness` has predicted, for a bar of progress.

    `corruptions` are those that it is given.
    """
    return num_patches * (1 + sum(len(each.strengths) - 1 for each in corruptions))


def measure_robustness(
    predict: Callable[[Patches], npt.NDArray[np.floating]],
    read: Callable[[Ints], Patches],
    index: Ints,
    y_true: Ints,
    threshold: float,
    *,
    facts_of: Callable[[Patches], pd.DataFrame],
    train_range: Mapping[str, Range],
    calibrate: Callable[[Floats], Floats] = sigmoid,
    num_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    corruptions: Sequence[Corruption] = CORRUPTIONS,
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int], object] | None = None,
) -> Robustness:
    """Return the scores of a model on patches that are turned, blurred, relit and so on.

    `predict` gives the raw log-odds of tumour (n,) of uint8 patches (n, H, W, 3), which make the
    ROC-AUC; `calibrate` turns log-odds (N,) into the probabilities that `threshold` is for. `read`
    gives the patches of rows of the source file. `index` int64 (N,) are the rows to take and
    `y_true` int64 (N,) their labels. `facts_of` gives the facts of patches, a row each, and
    `train_range` the central part of train's by fact; one that is missing in either leaves the
    range unknown. Patches that are not square need `corruptions_for` them.

    Patches are read once, `batch_size` at a time; `progress` is called with the number predicted.
    Raises ValueError for logits that are NaN.

    A fact within the range says that train holds patches as dark, or as blurred; not that it holds
    patches changed in this way: what the fact does not measure may still be new.
    """
    assert len(index) == len(y_true) > 0, "there is at least one patch, and a label for each"
    answers = {each.name: _Answers(each, len(index)) for each in corruptions}
    shape = (0, 0)
    for start in range(0, len(index), batch_size):
        batch = slice(start, start + batch_size)
        patches = read(index[batch])
        shape = (patches.shape[1], patches.shape[2])
        own = _logits(predict, patches, progress)
        own_facts = facts_of(patches)
        for each in answers.values():
            each.put(each.corruption.strengths[0], batch, own, own_facts)
            for strength in each.corruption.strengths[1:]:
                changed = each.corruption.apply(patches, strength)
                logits = _logits(predict, changed, progress)
                facts = facts_of(changed) if each.corruption.fact is not None else own_facts
                each.put(strength, batch, logits, facts)
    labels = np.asarray(y_true, np.int64)
    scoring = Scoring(labels, threshold, calibrate, num_resamples, seed, level)
    curves = tuple(_curve(each, scoring, train_range) for each in answers.values())
    return Robustness(len(index), shape, level, num_resamples, curves)


class _Answers:
    """What a model says of the patches under one corruption, and the fact that this moves."""

    def __init__(self, corruption: Corruption, num_patches: int) -> None:
        self.corruption = corruption
        self.logits = {s: np.full(num_patches, np.nan) for s in corruption.strengths}
        self.facts = {s: np.full(num_patches, np.nan) for s in corruption.strengths}

    def put(self, strength: float, batch: slice, logits: Floats, facts: pd.DataFrame) -> None:
        self.logits[strength][batch] = logits
        if self.corruption.fact in facts:
            self.facts[strength][batch] = facts[self.corruption.fact].to_numpy(np.float64)


def _logits(
    predict: Callable[[Patches], npt.NDArray[np.floating]],
    patches: Patches,
    progress: Callable[[int], object] | None,
) -> Floats:
    logits = np.asarray(predict(patches), np.float64)
    assert logits.shape == (len(patches),), "one logit for each patch"
    if progress is not None:
        progress(len(patches))
    return logits


def _curve(answers: _Answers, scoring: Scoring, train_range: Mapping[str, Range]) -> Curve:
    corruption = answers.corruption
    within = _range_of(corruption, train_range)
    identity = corruption.strengths[0]
    untouched = answers.logits[identity]
    points = []
    for strength, logits in answers.logits.items():
        unmoved = None if strength == identity else answers.facts[identity]
        place = _place(answers.facts[strength], corruption.fact, within, unmoved)
        points.append(
            Point(
                strength=strength,
                label=corruption.label(strength),
                metrics=scoring.metrics(logits),
                difference=scoring.differences(logits, untouched),
                calls_changed=scoring.calls_changed(logits, untouched),
                fact_median=place.median,
                share_in_train_range=place.share_within,
                in_train_range=place.is_within,
            )
        )
    return Curve(
        corruption.name, corruption.unit, corruption.expect, corruption.fact, within, tuple(points)
    )


def _range_of(corruption: Corruption, train_range: Mapping[str, Range]) -> Range | None:
    if corruption.fact is None or corruption.fact not in train_range:
        return None
    low, high = train_range[corruption.fact]
    return float(low), float(high)


@dataclass(frozen=True)
class _Place:
    """Where changed patches lie by one fact: NaN and None where that is unknown."""

    median: float
    share_within: float
    is_within: bool | None


def _place(
    facts: Floats, fact: str | None, within: Range | None, untouched: Floats | None
) -> _Place:
    """Return the place of patches with `facts` (N,); `untouched` (N,) are theirs before a change.

    A fact whose median stayed does not tell the change, say a stain that is cut off at 0, nor does
    a range of a single value: then whether train holds such patches is unknown.
    """
    if fact is None:
        return _Place(np.nan, np.nan, True)
    median = _median(facts)
    is_blind = untouched is not None and median == _median(untouched)
    if np.isnan(median) or is_blind or within is None or within[0] >= within[1]:
        return _Place(median, np.nan, None)
    low, high = within
    known = facts[np.isfinite(facts)]
    share = float(((known >= low) & (known <= high)).mean())
    return _Place(median, share, bool(low <= median <= high))


def _median(facts: Floats) -> float:
    """Return the median of the facts that are known, NaN without any."""
    known = facts[np.isfinite(facts)]
    return float(np.median(known)) if len(known) else float("nan")

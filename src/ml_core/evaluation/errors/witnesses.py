"""What speaks for or against the label of a patch beside the model that is judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_core.errors import RunError
from ml_core.evaluation.neighbours import Neighbours
from ml_core.evaluation.predictions import Predictions
from ml_core.evaluation.seed_calls import calls_of, seed_calls
from ml_core.metrics.arrays import Floats, Ints


@dataclass(frozen=True)
class Witnesses:
    """Arrays (N,), aligned with the predictions; NaN throughout where nobody testifies."""

    label_belief: Floats  # probability that the audit's out-of-fold model gives to the label
    neighbours_agree: Floats  # share of the nearest train patches that are labelled as called here
    seeds_agree: Floats  # share of the other seeds that call as this model does
    num_seeds: int


def gather_witnesses(
    predictions: Predictions,
    threshold: float,
    rows: pd.DataFrame,
    neighbours: Neighbours | None,
    seed_predictions: Mapping[str, Predictions],
) -> Witnesses:
    """Return what each witness says of each patch.

    `rows` are those of the patches table, one per prediction in the same order. Raises RunError for
    neighbours or seeds of other patches.
    """
    calls = calls_of(predictions, threshold)
    unknown = np.full(len(predictions), np.nan)
    seeds = seed_calls(predictions, threshold, seed_predictions)
    return Witnesses(
        label_belief=rows["label_belief"].to_numpy(np.float64)
        if "label_belief" in rows
        else unknown,
        neighbours_agree=unknown
        if neighbours is None
        else _neighbours_agree(calls, neighbours, places_of(neighbours, predictions)),
        seeds_agree=(seeds == calls).mean(axis=0) if len(seeds) else unknown,
        num_seeds=len(seeds),
    )


def places_of(neighbours: Neighbours, predictions: Predictions) -> Ints:
    """Return the row of `neighbours` that is of each prediction; raises RunError without one."""
    order = np.argsort(neighbours.query_index)
    found = np.searchsorted(neighbours.query_index, predictions.index, sorter=order)
    places = order[found.clip(max=len(order) - 1)]
    missing = predictions.index[neighbours.query_index[places] != predictions.index]
    if len(missing):
        raise RunError(
            f"{len(missing)} of {len(predictions)} patches of split {predictions.split!r} have no "
            f"features, such as index {missing[0]}: these are of other predictions. "
            "Make them again with the explain stage."
        )
    return np.asarray(places, dtype=np.int64)


def _neighbours_agree(calls: npt.NDArray[np.bool_], neighbours: Neighbours, places: Ints) -> Floats:
    labels = neighbours.label[places]  # (N, k), -1 where unknown
    known = labels >= 0
    same = known & (labels == calls[:, None])
    num_known = known.sum(axis=1)
    share: Floats = np.full(len(calls), np.nan)
    np.divide(same.sum(axis=1), num_known, out=share, where=num_known > 0)
    return share

"""Every error of a model, most confident first, with what else is known of the patch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_core.evaluation.errors.doubt import (
    is_label_doubtful,
    odds_against_label,
    reasons,
    whose_error,
)
from ml_core.evaluation.errors.label_check import check_rule
from ml_core.evaluation.errors.patch_error import PatchError
from ml_core.evaluation.errors.table import ErrorTable
from ml_core.evaluation.errors.witnesses import Witnesses, gather_witnesses, places_of
from ml_core.evaluation.neighbours import Neighbours
from ml_core.evaluation.predictions import Predictions
from ml_core.evaluation.seed_calls import calls_of
from ml_core.metrics.arrays import Floats, Ints, check_threshold

NUM_WITH_NEIGHBOURS = 200  # of the errors: a page shows fewer, and a file stays small


def rank_errors(
    predictions: Predictions,
    threshold: float,
    rows: pd.DataFrame,
    *,
    neighbours: Neighbours | None = None,
    seed_predictions: Mapping[str, Predictions] | None = None,
    level: float = 0.95,
) -> ErrorTable:
    """Return all patches called other than their label at `threshold`, the largest loss first.

    `predictions` are calibrated; `rows` are theirs in the patches table, in the same order, whose
    `label_belief` and `flags` are used where they are there; `neighbours` are in a train sample,
    and listed for the first 200; `seed_predictions` are of other seeds, calibrated alike. Raises
    RunError without labels and for neighbours or seeds of other patches, ValueError for rows of
    others or a threshold out of range.
    """
    check_threshold(threshold)
    if not np.array_equal(rows["index"].to_numpy(), predictions.index):
        raise ValueError("rows are not those of the predictions, in their order: join them first.")
    judged = _judge(
        predictions,
        calls_of(predictions, threshold),
        gather_witnesses(predictions, threshold, rows, neighbours, seed_predictions or {}),
        rows["flags"].to_numpy(dtype=object) if "flags" in rows else np.full(len(rows), "", object),
        0 if neighbours is None else neighbours.index.shape[1],
    )
    # patches of equal loss by index, so that the order of the table does not show
    by_loss = np.lexsort((predictions.index, -predictions.nll))
    wrong = by_loss[judged.is_wrong[by_loss]]
    listed = _list_neighbours(neighbours, predictions, wrong[:NUM_WITH_NEIGHBOURS])
    belief = judged.witnesses.label_belief
    return ErrorTable(
        split=predictions.split,
        num_patches=len(predictions),
        errors=tuple(judged.error(row, listed.get(row, ())) for row in wrong.tolist()),
        check=check_rule(predictions, judged.is_wrong, judged.is_doubtful, belief),
        level=level,
    )


@dataclass(frozen=True)
class _Judged:
    """All patches (N,): their calls, what the witnesses say, what follows for the labels."""

    predictions: Predictions
    calls: npt.NDArray[np.bool_]
    is_wrong: npt.NDArray[np.bool_]
    witnesses: Witnesses
    odds: Floats
    is_doubtful: npt.NDArray[np.bool_]
    losses: Floats
    flags: npt.NDArray[np.object_]
    num_neighbours: int

    def error(self, row: int, neighbours: tuple[Mapping[str, Any], ...]) -> PatchError:
        table, witnesses = self.predictions, self.witnesses
        called = "tumour" if self.calls[row] else "normal"
        return PatchError(
            index=int(table.index[row]),
            y_true=int(table.labels[row]),
            y_prob=float(table.y_prob[row]),
            logit=float(table.logit[row]),
            kind="false_positive" if self.calls[row] else "false_negative",
            loss=float(self.losses[row]),
            label_belief=float(witnesses.label_belief[row]),
            odds_against_label=float(self.odds[row]),
            flags=tuple(str(self.flags[row] or "").split()),
            neighbours=neighbours,
            neighbours_agree=float(witnesses.neighbours_agree[row]),
            seeds_agree=float(witnesses.seeds_agree[row]),
            doubt=whose_error(row, bool(self.is_doubtful[row]), witnesses),
            why=reasons(row, self.odds, called, witnesses, self.num_neighbours),
        )


def _judge(
    predictions: Predictions,
    calls: npt.NDArray[np.bool_],
    witnesses: Witnesses,
    flags: npt.NDArray[np.object_],
    num_neighbours: int,
) -> _Judged:
    odds = odds_against_label(predictions, witnesses.label_belief)
    return _Judged(
        predictions=predictions,
        calls=calls,
        is_wrong=calls != (predictions.labels == 1),
        witnesses=witnesses,
        odds=odds,
        is_doubtful=is_label_doubtful(odds, witnesses.label_belief),
        losses=predictions.nll,
        flags=flags,
        num_neighbours=num_neighbours,
    )


def _list_neighbours(
    neighbours: Neighbours | None, predictions: Predictions, rows: Ints
) -> dict[int, tuple[Mapping[str, Any], ...]]:
    """Return the neighbours of `rows` as JSON has them, by row."""
    if neighbours is None:
        return {}
    places = places_of(neighbours, predictions)
    return {row: neighbours.of(int(places[row])) for row in rows.tolist()}

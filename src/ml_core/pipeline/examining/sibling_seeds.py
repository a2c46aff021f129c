"""What other seeds of the same recipe say about the same patches."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ml_core.errors import MLCoreError
from ml_core.evaluation.predictions import Predictions
from ml_core.log import shown
from ml_core.pipeline.parts.operating_run import OperatingRun
from ml_core.runs import RunDir
from ml_core.selection.groups import group_runs
from ml_core.selection.runs import Candidate, LeftOut, load_predictions, read_candidates

logger = logging.getLogger("ml_core.slice")

_MOST_SAID = 3


def predictions_of_other_seeds(
    operating: OperatingRun, predictions: Predictions
) -> dict[str, Predictions]:
    """Return the valid predictions of the runs beside this one that differ only in the seed.

    By the name of their folder, in the order of `predictions`, calibrated as this run's are. Runs
    beside it that cannot be used, and those that scored other patches, are left out, and said.
    None for another split than valid, and for the trial of a study.
    """
    if predictions.split != "valid" or operating.record.study:
        return {}
    beside = [RunDir(path.parent) for path in operating.run.path.parent.glob("*/run.json")]
    candidates, unusable = read_candidates(sorted(beside, key=lambda run: run.name))
    groups, repeated = group_runs(candidates)
    left_out = [*unusable, *repeated]
    mine = operating.record.run_id
    order = np.argsort(predictions.index)
    found = {}
    for candidate in next((g.runs for g in groups if mine in _run_ids(g.runs)), ()):
        if candidate.record.run_id == mine:
            continue
        try:
            table = load_predictions(candidate)  # by rising index
        except MLCoreError as error:
            left_out.append(LeftOut(candidate.run.path, str(error)))
            continue
        if not np.array_equal(table.index, predictions.index[order]):
            left_out.append(LeftOut(candidate.run.path, "it scored other patches"))
            continue
        found[candidate.name] = operating.calibration.calibrate(_taken(table, np.argsort(order)))
    _say(left_out)
    return found


def _run_ids(runs: Sequence[Candidate]) -> set[str]:
    return {run.record.run_id for run in runs}


def _taken(table: Predictions, rows: npt.NDArray[np.int64]) -> Predictions:
    columns = ("index", "y_true", "y_prob", "logit")
    return dataclasses.replace(table, **{name: getattr(table, name)[rows] for name in columns})


def _say(left_out: Sequence[LeftOut]) -> None:
    for each in left_out[:_MOST_SAID]:
        logger.info("%s does not speak as another seed: %s", shown(each.path), each.reason)
    if len(left_out) > _MOST_SAID:
        logger.info("and %d more runs beside it do not", len(left_out) - _MOST_SAID)

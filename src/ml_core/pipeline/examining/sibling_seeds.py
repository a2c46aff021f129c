"""What other seeds of the same recipe say about the same patches."""

from __future__ import annotations

import logging

import numpy as np

from ml_core.errors import MLCoreError
from ml_core.evaluation.predictions import Predictions
from ml_core.log import shown
from ml_core.pipeline.parts.operating_run import OperatingRun
from ml_core.runs import RunDir
from ml_core.selection.groups import group_runs
from ml_core.selection.runs import load_predictions, read_candidates

logger = logging.getLogger("ml_core.slice")


def predictions_of_other_seeds(
    operating: OperatingRun, predictions: Predictions
) -> dict[str, Predictions]:
    """Return the valid predictions of the runs beside this one that differ only in the seed.

    By the name of their folder, calibrated as this run's are. Runs that cannot be used, and those
    whose patches are others, are left out, and said.
    """
    if predictions.split != "valid" or operating.record.study:
        return {}
    beside = [RunDir(path.parent) for path in operating.run.path.parent.glob("*/run.json")]
    candidates, _ = read_candidates(sorted(beside, key=lambda run: run.name))
    groups, _ = group_runs(candidates)
    mine = operating.record.run_id
    group = next((g for g in groups if any(r.record.run_id == mine for r in g.runs)), None)
    found = {}
    for candidate in group.runs if group else ():
        if candidate.record.run_id == mine:
            continue
        try:
            table = load_predictions(candidate)
        except MLCoreError as error:
            logger.info("%s is left out of the seeds: %s", shown(candidate.run.path), error)
            continue
        order = np.argsort(predictions.index)
        if np.array_equal(table.index, predictions.index[order]):
            found[candidate.name] = operating.calibration.calibrate(_in_order(table, order))
    return found


def _in_order(table: Predictions, order: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Predictions:
    """Return `table`, which is in order of index, in the order that `order` sorts."""
    import dataclasses

    back = np.argsort(order)
    columns = ("index", "y_true", "y_prob", "logit")
    return dataclasses.replace(table, **{name: getattr(table, name)[back] for name in columns})

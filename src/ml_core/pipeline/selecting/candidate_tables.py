"""The validation predictions of the runs to choose among, made now where they are missing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ml_core.errors import MLCoreError, RunError
from ml_core.evaluation.predictions import Predictions
from ml_core.log import shown
from ml_core.pipeline.evaluate import evaluate
from ml_core.pipeline.selecting.candidates import listed
from ml_core.selection.operating_point import check_two_classes
from ml_core.selection.paired import check_same_patches
from ml_core.selection.runs import SPLIT, Candidate, LeftOut, load_predictions, read_candidates

logger = logging.getLogger("ml_core.select")


@dataclass(frozen=True)
class CandidateTables:
    """The candidates that can be chosen, their predictions, and the runs that cannot."""

    candidates: list[Candidate]
    by_run_id: dict[str, Predictions]
    left_out: list[LeftOut]

    def of(self, candidate: Candidate) -> Predictions:
        """Return the predictions of `candidate`, in order of index."""
        return self.by_run_id[candidate.record.run_id]


def predict_candidates(
    candidates: Sequence[Candidate], overrides: Sequence[str]
) -> CandidateTables:
    """Return the predictions of every candidate's best weights for the same patches.

    Where they are missing, damaged or of other weights the run is evaluated, with `overrides`. What
    cannot be had leaves its run out. Raises RunError where no run is left, two are of other
    patches, or the patches are of one class.
    """
    tables = CandidateTables([], {}, [])
    for candidate in candidates:
        try:
            tables.by_run_id[candidate.record.run_id] = _predictions(candidate, overrides)
            tables.candidates.append(candidate)
        except MLCoreError as error:
            tables.left_out.append(LeftOut(candidate.run.path, str(error)))
    if not tables.candidates:
        raise RunError(f"no run can be chosen:\n{listed(tables.left_out)}")
    _check_same_patches(tables)
    return tables


def _predictions(candidate: Candidate, overrides: Sequence[str]) -> Predictions:
    if not candidate.has_weights:
        raise RunError("its best checkpoint is gone, so it cannot be champion")
    try:
        table = load_predictions(candidate)
    except RunError as error:
        is_there = candidate.run.predictions_path(SPLIT).exists()
        reason = f": {error}" if is_there else ""
        logger.info("%s is scored first%s", shown(candidate.run.path), reason)
        table = _predict_again(candidate, overrides, error)
    if np.ptp(table.logit) == 0:
        raise RunError(f"it gives every patch {table.y_prob[0]:.4f}: it has learned nothing")
    return table


def _predict_again(candidate: Candidate, overrides: Sequence[str], first: RunError) -> Predictions:
    try:
        evaluate(candidate.run.path, SPLIT, overrides)
    except MLCoreError as second:
        raise RunError(f"{first} Evaluating it now failed: {second}") from second
    (again,), _ = read_candidates([candidate.run])
    return load_predictions(again)


def _check_same_patches(tables: CandidateTables) -> None:
    first, *others = tables.candidates
    a = tables.of(first)
    check_two_classes(a, first)
    for other in others:
        b = tables.of(other)
        names = f"{first.run.path} and {other.run.path}"
        check_same_patches(a.index, a.labels, b.index, b.labels, names)

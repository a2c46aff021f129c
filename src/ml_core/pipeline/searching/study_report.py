"""Write the page of a study, whether it has ended or not.

Reads the study's files and the runs of its trials; writes study.html and figures/*.png into it.

    ml-core report runs/pcam_cnn_search/study-20260102-030405
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ml_core.errors import MLCoreError
from ml_core.evaluation.predictions import Predictions
from ml_core.log import shown
from ml_core.search.page import render_study
from ml_core.search.page.facts import StudyFacts, read_study_facts
from ml_core.search.study_dir import StudyDir
from ml_core.search.trials import Trial
from ml_core.selection.paired import Contender, paired_differences

logger = logging.getLogger("ml_core.report")

NUM_RESAMPLES = 1000
THRESHOLD = 0.5  # as during training, whose metric the study compares


def study_report(study_path: Path) -> dict[str, Any]:
    """Return {"report", "best", "findings"}; raises RunError where there is no whole study."""
    facts = read_study_facts(StudyDir.open(study_path))
    path, findings = render_study(facts, compare_best_two(facts))
    logger.info("report %s", shown(path))
    return {
        "report": str(path),
        "best": None if facts.best is None else facts.best.number,
        "findings": [finding.message for finding in findings],
    }


def compare_best_two(facts: StudyFacts) -> dict[str, Any] | None:
    """Return how the best differs from the second trial in the study's metric, on valid.

    None where one of them has no predictions, or where they are not of the same patches.
    """
    best, second = _predictions(facts.best), _predictions(facts.second)
    if best is None or second is None or best.index.tolist() != second.index.tolist():
        return None
    found = paired_differences(
        best.labels,
        Contender("best", best.y_prob, THRESHOLD),
        Contender("second", second.y_prob, THRESHOLD),
        metrics=(facts.metric,),
        num_resamples=NUM_RESAMPLES,
    )
    return {**found[facts.metric], "num_patches": len(best.labels)}


def _predictions(trial: Trial | None) -> Predictions | None:
    if trial is None or trial.run is None:
        return None
    try:
        predictions = Predictions.load(trial.run.predictions_path("valid"))
    except MLCoreError:  # most trials were not evaluated
        return None
    return predictions if predictions.y_true is not None else None

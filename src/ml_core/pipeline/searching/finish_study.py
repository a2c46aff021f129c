"""What a study leaves: the table, the page, optuna's journal, and how it ended.

Reads the trials of a study; writes trials.csv, optuna.journal, study.html and figures/ into it. A
part of

    ml-core tune experiments/configs/pcam_cnn_search.yaml
"""

from __future__ import annotations

import logging
from typing import Any

from ml_core.errors import RunError
from ml_core.log import shown
from ml_core.pipeline.searching.study_report import study_report
from ml_core.runs import utc_now
from ml_core.search.optuna_study import export
from ml_core.search.space import Space
from ml_core.search.study_dir import StudyDir, StudyRecord
from ml_core.search.summary import (
    commonest_cause,
    count_states,
    render_params,
    write_table,
)
from ml_core.search.trials import Trial, best_trial, load_trials

logger = logging.getLogger("ml_core.tune")


def finish_study(study: StudyDir) -> dict[str, Any]:
    """Write what a study leaves when all its trials have ended, and return `study_result`.

    Raises RunError, with everything written, when no trial came through.
    """
    trials, record = load_trials(study), StudyRecord.load(study)
    best = best_trial(trials, record)
    if record.status not in ("completed", "failed") or record.ended_at is None:
        record.ended_at = utc_now()
    record.status = "completed" if best else "failed"
    record.save(study)
    write_table(study, trials, record)
    space = Space.from_dict(record.space)
    export(trials, space, record.direction, record.name, study.optuna_path)
    study_report(study.path)
    if best is None:
        raise RunError(
            f"none of the {record.num_trials} trials of {shown(study.path)} came through; "
            f"{commonest_cause(trials)}. See output.log in the directory of a trial."
        )
    counts = count_states(trials, record)
    logger.info("%s", ", ".join(f"{number} {state}" for state, number in counts.items()))
    logger.info(
        "best: trial %d, %s %.4f, %s",
        best.number, record.metric, best.value, render_params(best.params),
    )  # fmt: skip
    logger.info("freeze the champion with: ml-core select %s", shown(study.path))
    return study_result(study, trials)


def leave_study(study: StudyDir, trials: list[Trial]) -> None:
    """Note that the workers of this command have gone, unless others still work on the study."""
    record = StudyRecord.load(study)
    write_table(study, trials, record)
    if not any(trial.state == "running" for trial in trials):
        record.status, record.ended_at = "interrupted", utc_now()
        record.save(study)


def study_result(study: StudyDir, trials: list[Trial]) -> dict[str, Any]:
    """Return {"study", "status", "metric", "counts", "best"}, for `--json`."""
    record = StudyRecord.load(study)
    best = best_trial(trials, record)
    return {
        "study": str(study.path),
        "status": record.status,
        "metric": record.metric,
        "counts": count_states(trials, record),
        "best": best and {
            "trial": best.number,
            "value": best.value,
            "params": dict(best.params),
            "run": str(best.run.path) if best.run else None,
        },
    }  # fmt: skip

"""Studies made by the steps that workers take, without any training."""

import itertools

from ml_core.runs import write_json
from ml_core.search.claim import claim
from ml_core.search.journal import Journal
from ml_core.search.process import this_process
from ml_core.search.study_dir import StudyDir, StudyRecord

NOW = "2026-01-02T03:04:05+00:00"
SPACE = {"optimizer.lr": {"low": 1e-4, "high": 1e-1, "log": True}}
_pids = itertools.count(1)


def make_study(folder, *, num_trials=4, **changes):
    """Write a study that nobody works on."""
    fields = {
        "name": "study", "experiment_name": "tiny", "command": "a test", "metric": "val_roc_auc",
        "direction": "maximize", "num_trials": num_trials, "sampler": {"name": "random", "seed": 0},
        "pruner": {"name": "none"}, "space": SPACE,
    }  # fmt: skip
    study = StudyDir.create(folder, "study")
    StudyRecord(**{**fields, **changes}).save(study)
    write_json(study.gate_path, {})
    return study


def take(study, number, attempt=0, params=None, worker=None):
    """Claim a slot, as a worker of its own would; None when it is taken."""
    worker = worker or {**this_process(), "pid": next(_pids), "pid_started": 1}
    return claim(study, number, attempt, params or {"optimizer.lr": 0.01}, worker=worker, now=NOW)


def end(folder, state, reports=(), *, num_rungs=None, **how):
    """Write what a trial's process does: the metric of each epoch from 1, then the end."""
    with Journal(folder) as journal:
        for epoch, value in enumerate(reports, start=1):
            rungs = (num_rungs or {}).get(epoch, 0)
            journal.report(epoch, value, num_rungs=rungs, stop=False)
        if state is not None:
            journal.end(state, **how)
    return folder

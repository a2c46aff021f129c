"""Search for better settings: train a run per trial, in worker processes that share a study.

Reads a config with a section `search`, and the train and valid split; writes a study (see
`ml_core.search.study_dir`) with an ordinary run per trial. Several commands, on one machine or
many, may work on one study at once: the first begins it, the others join it with --resume.

    ml-core tune experiments/configs/pcam_cnn_search.yaml --workers 2
    ml-core tune --resume runs/pcam_cnn_search/study-20260102-030405

In a chain of jobs one begins the study where the others look for it, and leaves:

    ml-core tune experiments/configs/pcam_cnn_search.yaml --study runs/study --workers 0
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ml_core.config import Config
from ml_core.errors import RunError
from ml_core.log import shown
from ml_core.pipeline.searching.begin_study import begin_study
from ml_core.pipeline.searching.finish_study import finish_study, leave_study, study_result
from ml_core.pipeline.searching.named_study import find_study
from ml_core.pipeline.searching.study_data import DataStamps, refuse_other_bytes
from ml_core.pipeline.searching.trial_worker import run_worker
from ml_core.reproducibility import code_record
from ml_core.runs import utc_now
from ml_core.search.crew import Crew, start_server
from ml_core.search.process import this_process
from ml_core.search.recovery import recover
from ml_core.search.study_dir import StudyDir, StudyRecord
from ml_core.search.summary import render_attempt, render_trial
from ml_core.search.trials import load_trials
from ml_core.search.worker import cannot_write, is_finished
from ml_core.solver.interrupt import StopRequest
from ml_core.tracking import finish_sending, start_sending

logger = logging.getLogger("ml_core.tune")

# Imported once by the server that workers are forked from: seconds each, otherwise.
PRELOAD = (
    "ml_core.pipeline.searching.trial_worker",
    "optuna.pruners", "optuna.samplers", "sklearn.metrics",
    "torch._dynamo",  # which an optimizer imports when it is built
)  # fmt: skip
_LOOK_S = 1.0
_SEND_S = 60.0
_REPLACED_PER_WORKER = 3


def tune(
    config: Config, *, workers: int | None = None, path: Path | None = None, command: str
) -> dict[str, Any]:
    """Begin a study and run all its trials; return {"study", "status", "metric", "counts", "best"}.

    With 0 `workers` none is run: the status is then "begun". `path` is the study's folder; one
    that holds a study of this very config already is gone on with. Raises what `begin_study` and
    `find_study` do, and RunError when no trial or no worker came through.
    """
    num_workers = _num_workers(config, workers)
    found = find_study(path, config) if path is not None else None
    if found is not None and num_workers > 0:
        return resume(found.path, workers=workers, command=command)
    if found is not None:
        logger.info("%s was begun before; it is left as it is", shown(found.path))
        return _begun(found)
    if num_workers > 0:
        start_server(PRELOAD)  # which imports while the data are looked at
    study = begin_study(config, num_workers=max(num_workers, 1), command=command, path=path)
    if num_workers == 0:
        return _begun(study)
    with _explained(study):
        return _run(study, num_workers, command)


def _num_workers(config: Config, workers: int | None) -> int:
    if workers is not None:
        return workers
    return config.search.num_workers if config.search else 1


def _begun(study: StudyDir) -> dict[str, Any]:
    """Say how others join a study that is left to them; return what `tune` does."""
    logger.info("let workers join: ml-core tune --resume %s", shown(study.path))
    return {**study_result(study, load_trials(study)), "status": "begun"}


def resume(study_path: Path, *, workers: int | None = None, command: str) -> dict[str, Any]:
    """Go on with a study, or join those who work on it; return what `tune` does.

    Raises RunError when its config has changed, DataError when its data have.
    """
    study = StudyDir.open(study_path)
    record = StudyRecord.load(study)
    text = study.config_path.read_bytes() if study.config_path.is_file() else b""
    if hashlib.sha256(text).hexdigest() != record.config_sha256:
        raise RunError(
            f"{study.config_path} is not what the study began with, so its trials would not be "
            "comparable. Put it back as it was, or begin a new study: ml-core tune CONFIG."
        )
    config = Config.load(study.config_path)
    with _explained(study):
        if is_finished(study, load_trials(study)):
            logger.info("all %d trials of %s have ended", record.num_trials, shown(study.path))
            return finish_study(study)
        refuse_other_bytes(study, config)
        record = StudyRecord.load(study)  # others may have written it meanwhile
        code, _ = code_record()
        if any(code.get(key) != value for key, value in record.code.items()):
            logger.warning("the code has changed since the study began; see run.json of each trial")
        record.status, record.ended_at = "running", None
        record.resumed_at.append(utc_now())
        record.save(study)
        return _run(study, _num_workers(config, workers), command)


@contextlib.contextmanager
def _explained(study: StudyDir) -> Iterator[None]:
    """Say in words that the disk refuses what the study writes."""
    try:
        yield
    except OSError as error:
        raise cannot_write(study.path, error) from error


def _run(study: StudyDir, num_workers: int, command: str) -> dict[str, Any]:
    """Let workers run what is missing, telling each trial as it ends."""
    start_server(PRELOAD)
    config = Config.load(study.config_path)
    stamps = DataStamps.of(config.data.files_dir).to_json()
    devices = _gpus() if config.training.device in ("auto", "cuda") else []
    lines = _Lines(study)
    with StopRequest() as stop:
        crew = Crew(
            run_worker,
            [str(study.path.absolute()), command, json.dumps(stamps), json.dumps(devices)],
            size=num_workers,
            max_replaced=_REPLACED_PER_WORKER * num_workers,
        )
        while crew.is_at_work:
            crew.wait(_LOOK_S)
            if stop:
                crew.stop()  # at each look: one that is starting does not listen yet
            lines.show()
        lines.show()
        is_stopped = bool(stop)
        # Still listening: who writes the study's page is not ended by a warning of the time limit.
        try:
            return _settle(study, crew, is_stopped=is_stopped)
        finally:
            if config.tracking.mlflow_uri is not None:
                _send(study, config.tracking.mlflow_uri)


def _settle(study: StudyDir, crew: Crew, *, is_stopped: bool) -> dict[str, Any]:
    """Leave the record as the study stands now that this command's workers have ended."""
    recover(study, this_process())  # what a worker left that died last of all
    trials = load_trials(study)
    if is_finished(study, trials):
        return finish_study(study)
    how_to_go_on = f"Go on with: ml-core tune --resume {shown(study.path)}"
    with contextlib.suppress(OSError):  # a full disk must not hide why the workers ended
        leave_study(study, trials)
    if crew.refusals:
        raise RunError(crew.refusals[0])
    if not is_stopped:
        raise RunError(
            f"{_how_they_ended(crew)}, and trials of {shown(study.path)} are left. What each trial "
            f"printed is in its output.log. {how_to_go_on}"
        )
    logger.info("interrupted. %s", how_to_go_on)
    return {**study_result(study, trials), "status": "interrupted"}


def _how_they_ended(crew: Crew) -> str:
    return f"{crew.num_dead} workers died" if crew.num_dead else "the workers were told to stop"


def _send(study: StudyDir, uri: str) -> None:
    """Let MLflow show the trials as one study; they were sent one by one as they ran."""
    outcome = finish_sending(start_sending(study.path, uri), _SEND_S)
    logger.log(logging.INFO if outcome.complete else logging.WARNING, "%s", outcome.message)


class _Lines:
    """Tells each trial once, when it has ended; those that ended before are not told."""

    def __init__(self, study: StudyDir) -> None:
        self._study = study
        self._record = StudyRecord.load(study)
        self._told = {
            (attempt.number, attempt.attempt)
            for trial in load_trials(study)
            for attempt in trial.attempts
            if attempt.state != "running"
        }

    def show(self) -> None:
        """Tell what has ended since; a study that cannot be read is the workers' to refuse."""
        try:
            trials = load_trials(self._study)
        except RunError:
            return
        for trial in trials:
            for attempt in trial.attempts:
                key = (attempt.number, attempt.attempt)
                if attempt.state == "running" or key in self._told:
                    continue
                self._told.add(key)
                if attempt is trial.last and trial.is_finished:
                    logger.info("%s", render_trial(trial, trials, self._record))
                else:
                    logger.info("%s", render_attempt(attempt))


def _gpus() -> list[str]:
    """Return the GPUs that this command may use, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    return [str(index) for index in range(torch.cuda.device_count())]

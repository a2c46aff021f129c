"""What the process of one trial does: train with the parameters it was given, and say how it ends.

Reads the study's config and what its data gate let through; writes a run into the trial's
directory, and one line per epoch into its journal. A part of

    ml-core tune experiments/configs/pcam_cnn_search.yaml
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any

import torch

from ml_core.checkpoint import load_best, load_last
from ml_core.config import Config
from ml_core.errors import CheckpointError, RunError, TrainingError
from ml_core.log import console, setup_cli_logging
from ml_core.pipeline.parts.finished_run import is_over
from ml_core.pipeline.searching.study_data import load_gate, trial_checks
from ml_core.pipeline.train import resume, train_seed
from ml_core.runs import RunRecord, read_jsonl, utc_now
from ml_core.search.journal import AbandonedError, Journal
from ml_core.search.process import this_process
from ml_core.search.pruner import judge
from ml_core.search.pulse import Pulse
from ml_core.search.recovery import inherit_run
from ml_core.search.space import overrides
from ml_core.search.study_dir import AttemptDir, StudyDir, StudyRecord
from ml_core.search.trials import (
    ERROR,
    NOT_FINITE,
    OUT_OF_MEMORY,
    Attempt,
    load_attempt,
    load_trials,
)
from ml_core.search.worker import EXIT_BLOCKED, EXIT_CANNOT_WRITE, EXIT_STOPPED

logger = logging.getLogger("ml_core.tune")

# What a trial cannot help: the next would meet it as well.
_CANNOT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE}


def trial_config(study: StudyDir, params: Mapping[str, Any]) -> Config:
    """Return the config of a trial of `study`: an ordinary one, without its search."""
    return Config.load(study.config_path, [*overrides(params), "search=null"])


def run_trial(folder: AttemptDir, *, command: str) -> None:
    """Do the trial that was claimed in `folder`, in a process of its own, and exit.

    With 0 when the journal says how it ended, also where the trial raised; EXIT_STOPPED when asked
    to stop; EXIT_CANNOT_WRITE when its files cannot be written, EXIT_BLOCKED when the study's
    cannot be read.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's, which then sends SIGTERM
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _print_into(folder)
    try:
        with Pulse(folder.heartbeat_path), Journal(folder) as journal:
            sys.exit(_Attempt(folder, journal, command).run())
    except AbandonedError as error:
        logger.warning("%s", error)
        sys.exit(0)
    except OSError as error:
        with contextlib.suppress(OSError):
            logger.error("%s", error)
        os._exit(EXIT_CANNOT_WRITE)  # at once: to flush output.log would fail again, and exit by 1


def _print_into(folder: AttemptDir) -> None:
    """Send what this process prints, its libraries and a crash too, to the trial's output.log."""
    with open(folder.output_path, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a real text file here
    console.cache_clear()
    setup_cli_logging()
    logging.getLogger("ml_core.train").setLevel(logging.NOTSET)  # the worker keeps it quiet


class _StudyUnreadableError(Exception):
    """The other trials of the study cannot be read."""


class _Attempt:
    """One attempt at a trial, in its process."""

    def __init__(self, folder: AttemptDir, journal: Journal, command: str) -> None:
        self.study = StudyDir.open(folder.path.parents[1])
        self.record = StudyRecord.load(self.study)
        self.claimed = load_attempt(folder)
        self.run_dir = folder.run
        self.journal = journal
        self.command = command
        self.reports: dict[int, float] = {}
        self.num_rungs: dict[int, int] = {}
        self.started = time.monotonic()

    def run(self) -> int:
        """Train, and note the end; return the exit code."""
        self.journal.start(this_process())
        try:
            result = self._train()
        except AbandonedError:
            raise
        except KeyboardInterrupt:
            return EXIT_STOPPED
        except _StudyUnreadableError as error:
            logger.error("%s", error)
            return EXIT_BLOCKED
        except Exception as error:
            _raise_if_nothing_can_be_written(error)
            logger.exception("the trial failed")
            self._end("failed", cause=_cause(error), error=f"{type(error).__name__}: {error}")
            return 0
        return self._settle(result)

    def _settle(self, result: Mapping[str, Any]) -> int:
        """Note the end of a training that raised nothing."""
        if result["status"] == "interrupted":
            return EXIT_STOPPED
        best = result["best"].get("value")
        if result["status"] == "pruned":
            numbers = [value for _, value in sorted(self.reports.items()) if not math.isnan(value)]
            self._end("pruned", value=numbers[-1] if numbers else None)
        elif best is None:
            metric = self.record.metric
            self._end("failed", cause=NOT_FINITE, error=f"{metric} was a number after no epoch")
        else:
            self._end("complete", value=best)
        return 0

    def _end(self, state: str, **how: Any) -> None:
        self.journal.end(state, seconds=time.monotonic() - self.started, **how)

    def _train(self) -> Mapping[str, Any]:
        """Train from the start, or go on where an earlier attempt was cut off."""
        claimed = self.claimed
        earlier = inherit_run(self.study, claimed.number, claimed.attempt)
        if earlier is not None:
            try:
                return self._go_on(earlier)
            except CheckpointError as error:
                logger.warning("%s The trial begins anew.", error)
                shutil.rmtree(self.run_dir.path)
                self.reports.clear()
                self.num_rungs.clear()
        config = trial_config(self.study, claimed.params)
        gate = load_gate(self.study)
        of_study = Config.load(self.study.config_path)
        return train_seed(
            config,
            config.seed,
            trial_checks(self.study, of_study, config, gate),
            gate,
            command=self.command,
            run=self.run_dir,
            study=self.record.trial_of(claimed.number, claimed.attempt, claimed.params),
            on_epoch=self._on_epoch,
        )

    def _on_epoch(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Report the metric; return whether the pruner wants the trial to stop."""
        self.reports[epoch] = metrics[self.record.metric]
        try:
            trials = load_trials(self.study)
        except RunError as error:  # another trial's file is damaged: no fault of this one
            raise _StudyUnreadableError(str(error)) from error
        verdict = judge(
            self.record.pruner,
            trials,
            self.claimed.number,
            self.reports,
            self.num_rungs,
            self.record.direction,
        )
        self._report(epoch, verdict.num_rungs, verdict.stop)
        return verdict.stop

    def _report(self, epoch: int, num_rungs: int, stop: bool) -> None:
        self.num_rungs[epoch] = num_rungs
        self.journal.report(epoch, self.reports[epoch], num_rungs=num_rungs, stop=stop)

    # ---- going on with what another attempt has left -----------------------------------------

    def _go_on(self, earlier: Attempt) -> Mapping[str, Any]:
        """Go on with the copy of an earlier attempt's run; raises CheckpointError without one."""
        run = RunRecord.load(self.run_dir)
        claimed = self.claimed
        run.study = self.record.trial_of(claimed.number, claimed.attempt, claimed.params)
        run.save(self.run_dir)
        checkpoint = load_last(self.run_dir.checkpoints_dir)
        num_epochs = checkpoint.state["train"]["epoch"] - 1
        wants_stop = self._repeat_reports(earlier, num_epochs)
        if is_over(run):
            return {"status": run.status, "best": run.best}
        if wants_stop and num_epochs < trial_config(self.study, claimed.params).training.epochs:
            state = checkpoint.state["train"]
            run.status, run.ended_at = "pruned", utc_now()
            run.best = {
                "epoch": state["best_epoch"],
                "metric": self.record.metric,
                "value": state["best_value"],
                "weights_sha256": load_best(self.run_dir.checkpoints_dir).weights_sha256,
            }
            run.save(self.run_dir)
            return {"status": "pruned", "best": run.best}
        return resume(self.run_dir.path, command=self.command, on_epoch=self._on_epoch)

    def _repeat_reports(self, earlier: Attempt, num_epochs: int) -> bool:
        """Report the epochs that are done, with the verdicts they had; return the last one's.

        An epoch that was logged but not reported gets its verdict now.
        """
        stop = False
        for line in read_jsonl(self.run_dir.metrics_log_path):
            epoch = int(line["epoch"])
            if epoch > num_epochs:
                break
            value = line[self.record.metric]
            value = math.nan if value is None else value
            if epoch in earlier.reports:
                self.reports[epoch] = value
                stop = earlier.was_stopped and epoch == max(earlier.reports)
                self._report(epoch, earlier.num_rungs[epoch], stop)
            else:
                stop = self._on_epoch(epoch, {self.record.metric: value})
        return stop


def _cause(error: Exception) -> str:
    if isinstance(error, TrainingError):
        return NOT_FINITE
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error):
        return OUT_OF_MEMORY
    return ERROR


def _raise_if_nothing_can_be_written(error: BaseException | None) -> None:
    """Raise the OSError behind `error` that the next trial would meet as well, if there is one."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _CANNOT_WRITE:
            raise error
        error = error.__cause__ or error.__context__

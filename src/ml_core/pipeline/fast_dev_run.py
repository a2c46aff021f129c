"""Two batches through everything: train, validate, checkpoint, resume, evaluate, report.

Reads a few patches of train and valid; writes into a folder under output_dir that is removed at
the end, so that paths and rights are tried as well. MLflow is left out. Then some more steps are
taken for the clock, at most two seconds each of training and of validation after the first step.

    ml-core train experiments/configs/pcam_cnn.yaml --fast-dev-run
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from ml_core.config import Config, Section
from ml_core.data.patch_file import Rows
from ml_core.errors import RunError
from ml_core.pipeline.evaluate import evaluate
from ml_core.pipeline.explain import explain
from ml_core.pipeline.parts.device import choose_device
from ml_core.pipeline.parts.memory_used import PeakMemory
from ml_core.pipeline.parts.splits import run_exclusions
from ml_core.pipeline.parts.throughput import as_json, measure_throughput
from ml_core.pipeline.report import report
from ml_core.pipeline.slice import slice_predictions
from ml_core.pipeline.train import resume, train
from ml_core.runs import RunDir, RunRecord, write_text

logger = logging.getLogger("ml_core.train")

S = TypeVar("S", bound=Section)
MIN_PATCHES = 64  # fewer might all be of one class


def fast_dev_run(config: Config, *, command: str) -> dict[str, Any]:
    """Return {"status", "seconds", ...}; whatever a real run would raise is raised here.

    Beside those: "device", "num_threads", the rates and the arithmetic of
    `ml_core.pipeline.parts.throughput`, and "peak_rss_mb" (MiB) of this process and its readers.
    """
    started = time.monotonic()
    with PeakMemory() as memory:
        exclude = _go_through(config, command)
        measured = as_json(measure_throughput(config, exclude), config.training.epochs)
    seconds = time.monotonic() - started
    logger.info("at this pace training a seed takes %s", measured["estimate"])
    logger.info("fast dev run passed in %.1f s; nothing of it is kept", seconds)
    return {
        "status": "completed",
        "seconds": round(seconds, 1),
        "device": str(choose_device(config.training.device)),
        "num_threads": torch.get_num_threads(),
        **measured,
        "peak_rss_mb": round(memory.mib, 1),
    }


def _go_through(config: Config, command: str) -> Mapping[str, Rows]:
    """Do everything once with a few patches; return the rows that a run leaves out, by split."""
    try:
        config.output_dir.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix="fast-dev-run-", dir=config.output_dir)
    except OSError as error:
        raise RunError(f"cannot write in {config.output_dir}: {error.strerror}.") from error
    with folder:
        few = max(2 * config.data.batch_size, MIN_PATCHES)
        small = _with(
            config,
            seeds=None,
            output_dir=Path(folder.name),
            data=_with(config.data, max_patches=min(few, config.data.max_patches or few)),
            training=_with(config.training, epochs=1),
            tracking=_with(config.tracking, mlflow_uri=None),
            evaluation=_with(
                config.evaluation, num_resamples=100, probe_patches=100, saliency_patches=16
            ),
        )
        run = RunDir.open(train(small, command=command)["runs"][0]["run"])
        _pretend_interrupted(run)
        resume(run.path, command=command)
        evaluate(run.path)
        explain(run.path)
        slice_predictions(run.path)
        report([run.path])
        return run_exclusions(run, RunRecord.load(run))


def _pretend_interrupted(run: RunDir) -> None:
    """Make the finished run one that stopped before its second and last epoch."""
    config = Config.load(run.config_path)
    longer = _with(config, training=_with(config.training, epochs=2))
    write_text(run.config_path, longer.dump_yaml())
    record = RunRecord.load(run)
    record.status = "interrupted"
    record.save(run)


def _with(section: S, **changes: Any) -> S:
    return section.model_copy(update=changes)

"""Train each seed of a config, or go on with a run.

Reads the train and valid split; writes one run directory per seed: config, record, logs and
checkpoints (see `ml_core.runs`). The test split is not opened, but by the audit of the data.

    ml-core train experiments/configs/pcam_cnn.yaml
    ml-core train --resume runs/pcam_cnn/20260102-030405-seed42
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ml_core.checkpoint import Checkpoint, load_best, load_last
from ml_core.config import Config
from ml_core.data.checks import SplitRecord
from ml_core.errors import RunError, TrainingError
from ml_core.evaluation.slices.facts import FACTS
from ml_core.evaluation.slices.query import compile_query
from ml_core.findings import Finding
from ml_core.log import shown
from ml_core.models import PatchClassifier, build_from_spec, describe_model
from ml_core.pipeline.parts.data_gate import Gate, pass_gate
from ml_core.pipeline.parts.device import choose_device
from ml_core.pipeline.parts.splits import (
    check_data,
    inference_loader,
    open_split,
    refuse_other_data,
    run_exclusions,
)
from ml_core.pipeline.parts.trained_model import load_run_config
from ml_core.pipeline.parts.training_parts import build_trainer
from ml_core.reproducibility import (
    code_record,
    hardware_record,
    package_versions,
)
from ml_core.runs import RunDir, RunRecord, utc_now, write_text
from ml_core.solver.trainer import FitResult, OnEpoch
from ml_core.tracking import ExperimentTracker, finish_sync, start_sync

logger = logging.getLogger("ml_core.train")

SPLITS = ("train", "valid")


def train(config: Config, *, command: str) -> dict[str, Any]:
    """Train every seed of `config`; return {"status", "runs": [...]}, for `--json`."""
    for name, query in config.slices.items():  # refused now, not after hours
        compile_query(query, FACTS, name)
    gate = pass_gate(config, SPLITS)
    checks = check_data(config, SPLITS, gate.exclude, gate.hashes)
    results = []
    for seed in config.all_seeds:
        results.append(train_seed(config, seed, checks, gate, command=command))
        if results[-1]["status"] == "interrupted":
            break
    return {"status": results[-1]["status"], "runs": results}


def train_seed(
    config: Config,
    seed: int,
    checks: Sequence[SplitRecord],
    gate: Gate,
    *,
    command: str,
    run: RunDir | None = None,
    study: Mapping[str, Any] | None = None,
    on_epoch: OnEpoch | None = None,
) -> dict[str, Any]:
    """Make a run directory and train in it; return {"run", "status", "best", "findings"}.

    A trial of a study brings its own empty `run`, what its record says of the `study`, and an
    `on_epoch` that may stop it.
    """
    if config.training.num_threads is not None:
        torch.set_num_threads(config.training.num_threads)
    choose_device(config.training.device)  # before a directory is made for nothing
    if run is None:
        name = f"{dt.datetime.now():%Y%m%d-%H%M%S}-seed{seed}"
        run = RunDir.create(config.output_dir / config.experiment_name, name)
    code, diff = code_record()
    record = RunRecord(
        experiment_name=config.experiment_name,
        seed=seed,
        command=command,
        code=code,
        packages=package_versions(),
        hardware=hardware_record(),
        data={check.split: check.to_dict() for check in checks},
        audit=dict(gate.record),
        study=dict(study or {}),
    )
    one_seed = config.model_copy(update={"seed": seed, "seeds": None})
    write_text(run.config_path, one_seed.dump_yaml())
    if diff:
        write_text(run.diff_path, diff)
    gate.save(run)
    return _train_in(run, record, one_seed, checkpoint=None, on_epoch=on_epoch)


def resume(
    path: Path,
    overrides: Iterable[str] = (),
    *,
    command: str,
    on_epoch: OnEpoch | None = None,
) -> dict[str, Any]:
    """Go on with the run at `path` from its newest whole checkpoint, to the bits it would have had.

    Raises RunError when it is finished or its data have changed, CheckpointError without one.
    """
    run = RunDir.open(path)
    record = RunRecord.load(run)
    if record.status in ("completed", "stopped_early", "pruned"):
        raise RunError(
            f"{run.path} is {record.status}; there is nothing to resume. "
            "Train longer as a new run: ml-core train CONFIG --set training.epochs=N."
        )
    config = load_run_config(run, overrides)
    checkpoint = load_last(run.checkpoints_dir)
    checks = check_data(config, SPLITS, run_exclusions(run, record))
    refuse_other_data(record, checks)
    num_threads = checkpoint.state["num_threads"]
    if num_threads != torch.get_num_threads():
        logger.info("using %d threads, as this run did before", num_threads)
        torch.set_num_threads(num_threads)
    record.resumed_at.append(utc_now())
    record.status, record.error, record.ended_at = "running", None, None
    logger.info("resuming %s at step %d", shown(run.path), checkpoint.state["train"]["step"])
    return _train_in(run, record, config, checkpoint=checkpoint, on_epoch=on_epoch)


def _train_in(
    run: RunDir,
    record: RunRecord,
    config: Config,
    *,
    checkpoint: Checkpoint | None,
    on_epoch: OnEpoch | None,
) -> dict[str, Any]:
    """Build everything, fit, and leave the record as it ended, whatever happens."""
    logger.info("run    %s", shown(run.path))
    started = time.monotonic()
    with _only_writer(run):
        record.save(run)  # before the syncer looks, which leaves a run that is not running
        sync = start_sync(run, config.tracking.mlflow_uri) if config.tracking.mlflow_uri else None
        try:
            result = _fit(run, record, config, checkpoint, on_epoch)
            record.status = result.status
            record.findings = [*result.findings]
        except BaseException as error:
            record.status = "diverged" if isinstance(error, TrainingError) else "failed"
            if isinstance(error, KeyboardInterrupt):
                record.status = "interrupted"
            record.error = str(error) or type(error).__name__
            if isinstance(error, TrainingError):
                record.add_finding(Finding("non-finite", "error", str(error)))
            if isinstance(error, OSError):
                raise _explain_os_error(error, run) from error
            raise
        finally:
            record.ended_at = utc_now()
            record.duration_s += time.monotonic() - started
            with contextlib.suppress(OSError):  # a full disk must not hide the first error
                record.save(run)
            if sync is not None and not record.study:  # what a trial lacks, its study sends
                logger.info("%s", finish_sync(sync).message)
    if record.status == "interrupted":
        logger.info("interrupted; go on with: ml-core train --resume %s", shown(run.path))
    else:
        logger.info(
            "best epoch %s with %s %.4f, checkpoint %s",
            record.best.get("epoch"), config.training.best_metric,
            record.best.get("value", float("nan")), shown(run.checkpoints_dir / "best"),
        )  # fmt: skip
    return {
        "run": str(run.path),
        "status": record.status,
        "best": record.best,
        "findings": [finding.message for finding in record.findings],
    }


def _fit(
    run: RunDir,
    record: RunRecord,
    config: Config,
    checkpoint: Checkpoint | None,
    on_epoch: OnEpoch | None,
) -> FitResult:
    """Wire data, model, optimizer and schedule together and train."""
    device = choose_device(config.training.device)
    exclude = run_exclusions(run, record)
    train_set, valid_set = (open_split(config, split, exclude) for split in SPLITS)
    with ExperimentTracker(
        config.experiment_name,
        config.model_dump(mode="json"),
        run=run,
        tensorboard=config.tracking.tensorboard,
    ) as tracker:
        trainer, batches = build_trainer(
            config,
            train_set,
            device,
            model=build_from_spec(checkpoint.model_spec) if checkpoint else None,
            tracker=tracker,
            on_epoch=on_epoch,
        )
        assert isinstance(trainer.model, PatchClassifier)
        _describe(run, record, trainer.model)
        if checkpoint is not None:
            trainer.load_checkpoint(checkpoint)
        try:
            return trainer.fit(batches, inference_loader(config, valid_set, device))
        finally:
            record.first_batch = trainer.first_batch
            is_saved = (run.checkpoints_dir / "best").exists()  # or the disk was full by then
            if trainer.state.best_epoch is not None and is_saved:
                record.best = {
                    "epoch": trainer.state.best_epoch,
                    "metric": config.training.best_metric,
                    "value": trainer.state.best_value,
                    "weights_sha256": load_best(run.checkpoints_dir).weights_sha256,
                }


def _describe(run: RunDir, record: RunRecord, model: PatchClassifier) -> None:
    """Say what is trained, and keep it in the record."""
    record.model = describe_model(model)
    record.save(run)
    logger.info(
        "model  %s, %s parameters, %.1f MFLOP per patch",
        record.model["name"],
        f"{record.model['num_parameters']:,}",
        record.model["flops_per_patch"] / 1e6,
    )


@contextlib.contextmanager
def _only_writer(run: RunDir) -> Iterator[None]:
    """Hold the run's lock while inside; raises RunError when another process trains in it."""
    with open(run.lock_path, "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(
                f"another process is training in {run.path}. Wait for it, or stop it first."
            ) from error
        yield


def _explain_os_error(error: OSError, run: RunDir) -> RunError:
    where = f" ({error.filename})" if error.filename else ""
    return RunError(
        f"training stopped, the system says: {error.strerror or error}{where}. The checkpoints "
        f"written so far are whole. Mend it (free space, rights), then go on with: "
        f"ml-core train --resume {shown(run.path)}"
    )

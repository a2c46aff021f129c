"""Train each seed of a config, or go on with a run.

Reads the train and valid split; writes one run directory per seed: config, record, logs and
checkpoints (see `ml_core.runs`). The test split is not opened, but by the audit of the data.

    ml-core train experiments/configs/pcam_cnn.yaml
    ml-core train --resume runs/pcam_cnn/20260102-030405-seed42

Several processes share it where torchrun or srun starts them: rank 0 does all of this, the others
wait to be told the run directory and then take their part of every step.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_core.checkpoint import Checkpoint, load_best, load_checkpoint, load_last
from ml_core.config import Config
from ml_core.data.checks import SplitRecord, digest_splits, sha256_of
from ml_core.data.loader import PatchLoader
from ml_core.data.worker_faults import explained
from ml_core.distributed import ALONE, Ranks
from ml_core.errors import MLCoreError, RankError, RunError, TrainingError
from ml_core.evaluation.slices.facts import FACTS
from ml_core.evaluation.slices.query import compile_query
from ml_core.findings import Finding
from ml_core.lease import Lease, slurm_job
from ml_core.log import shown
from ml_core.models import PatchClassifier, build_from_spec, describe_model
from ml_core.pipeline.parts.data_gate import Gate, pass_gate
from ml_core.pipeline.parts.device import choose_device
from ml_core.pipeline.parts.elsewhere import elsewhere_findings, note_elsewhere
from ml_core.pipeline.parts.finished_run import is_of_this_job, is_over, result_of
from ml_core.pipeline.parts.numerics import prepare
from ml_core.pipeline.parts.ranks import Invitation, joined_ranks
from ml_core.pipeline.parts.same_on_ranks import (
    Hashes,
    facts_here,
    hash_data_of_node,
    refuse_another_than_first,
)
from ml_core.pipeline.parts.splits import (
    changed_rows,
    check_data,
    inference_loader,
    open_split,
    recorded,
    refuse_other_data,
    run_exclusions,
)
from ml_core.pipeline.parts.trained_model import load_run_config
from ml_core.pipeline.parts.training_parts import build_trainer
from ml_core.reproducibility import (
    code_record,
    hardware_record,
    installed_packages,
    package_versions,
    refuse_other_numerics,
)
from ml_core.reproducibility.packages import render_packages
from ml_core.runs import RunDir, RunRecord, utc_now, write_text
from ml_core.solver import Trainer
from ml_core.solver.interrupt import StopRequest
from ml_core.solver.state import FitResult
from ml_core.solver.trainer import OnEpoch
from ml_core.tracking import ExperimentTracker, finish_sync, start_sync
from ml_core.tracking.chain import Chain

logger = logging.getLogger("ml_core.train")

SPLITS = ("train", "valid")


def train(config: Config, *, command: str) -> dict[str, Any]:
    """Train every seed of `config`; return {"status", "runs": [...]}, for `--json`.

    Told to stop before all are trained, the status is interrupted.
    """
    for name, query in config.slices.items():  # refused now, not after hours
        compile_query(query, FACTS, name)
    with joined_ranks(config) as ranks:
        if ranks.is_first:
            gate = pass_gate(config, SPLITS)
            checks = check_data(config, SPLITS, gate.exclude, gate.hashes)
        else:
            hashes = hash_data_of_node(config, ranks)
        results: list[dict[str, Any]] = []
        for seed in config.all_seeds:
            if results and ranks.any(results[-1]["told_to_stop"]):
                logger.info("told to stop before seed %d was begun", seed)
                return {"status": "interrupted", "runs": results}
            if ranks.is_first:
                trained = train_seed(config, seed, checks, gate, command=command, ranks=ranks)
            else:
                trained = _follow(ranks, hashes)
            results.append(trained)
            if trained["status"] == "interrupted":
                _leave_together(ranks)
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
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Make a run directory and train in it; return what `result_of` does.

    A trial of a study brings its own empty `run`, what its record says of the `study`, and an
    `on_epoch` that may stop it.
    """
    numerics = prepare(config, config.training.num_threads, ranks)  # before a directory is made
    if run is None:
        name = f"{dt.datetime.now():%Y%m%d-%H%M%S}-seed{seed}"
        run = RunDir.create(config.output_dir / config.experiment_name, name)
    one_seed = config.model_copy(update={"seed": seed, "seeds": None})
    code, diff = code_record()
    record = RunRecord(
        experiment_name=config.experiment_name,
        seed=seed,
        command=command,
        code=code,
        packages=package_versions(),
        hardware=hardware_record(),
        numerics=numerics,
        config=one_seed.model_dump(mode="json"),
        data={check.split: recorded(config, check) for check in checks},
        audit=dict(gate.record),
        study=dict(study or {}),
    )
    write_text(run.config_path, one_seed.dump_yaml())
    if diff:
        write_text(run.diff_path, diff)
    write_text(run.packages_path, render_packages(installed_packages()))
    gate.save(run)
    with _lease(run) as lease:
        lease.take_over_at(0)
        return _train_in(run, record, one_seed, lease, on_epoch=on_epoch, ranks=ranks)


def resume(
    path: Path,
    overrides: Iterable[str] = (),
    *,
    command: str,
    on_epoch: OnEpoch | None = None,
    elsewhere: bool = False,
) -> dict[str, Any]:
    """Go on with the run at `path` from its newest whole checkpoint, to the bits it would have had.

    Raises RunError when its data have changed, and where this machine or its libraries would give
    other bits, unless it shall go on `elsewhere`, which is written down; and when it is finished,
    but for the Slurm job that finished it and was started again. CheckpointError without a
    checkpoint.
    """
    run = RunDir.open(path)
    record = RunRecord.load(run)
    if is_over(record):
        if is_of_this_job(run):
            logger.info("%s is %s: this job had finished it", shown(run.path), record.status)
            return result_of(run, record)
        raise RunError(
            f"{run.path} is {record.status}; there is nothing to resume. "
            "Train longer as a new run: ml-core train CONFIG --set training.epochs=N."
        )
    config = load_run_config(run, overrides)
    with joined_ranks(config) as ranks:
        if ranks.is_first:
            result = _go_on(run, record, config, on_epoch, elsewhere, ranks)
        else:
            result = _follow(ranks, hash_data_of_node(config, ranks), overrides)
        if result["status"] == "interrupted":
            _leave_together(ranks)
        return result


def _go_on(
    run: RunDir,
    record: RunRecord,
    config: Config,
    on_epoch: OnEpoch | None,
    elsewhere: bool,
    ranks: Ranks,
) -> dict[str, Any]:
    """Train on in `run` from its newest whole checkpoint, as the process that writes there now."""
    with _lease(run) as lease:
        checkpoint = load_last(run.checkpoints_dir)
        digests = digest_splits(config.data.files_dir, SPLITS)
        checks = check_data(config, SPLITS, run_exclusions(run, record), sha256_of(digests))
        refuse_other_data(record, checks, changed_rows(run, digests))
        numerics = prepare(config, checkpoint.state["num_threads"], ranks)
        step = checkpoint.state["train"]["step"]
        if elsewhere:
            note_elsewhere(record, numerics, step)
        else:
            refuse_other_numerics(record.numerics, numerics, config.training.numerics)
        lease.take_over_at(step)
        record.resumed_at.append(utc_now())
        record.status, record.error, record.ended_at = "running", None, None
        logger.info("resuming %s at step %d", shown(run.path), step)
        return _train_in(run, record, config, lease, checkpoint, on_epoch, ranks)


def _lease(run: RunDir) -> Lease:
    """Become the one process that writes into `run`; raises RunError where another does."""
    job, restart = slurm_job(os.environ)
    return Lease.take(run, job=job, restart=restart)


def _leave_together(ranks: Ranks) -> None:
    """Wait until rank 0 has saved and closed its record; alone, return at once.

    torchrun ends the others when the first leaves with 130, and would end the one that writes.
    """
    with contextlib.suppress(RankError):  # each has left the training well, whoever is gone by now
        ranks.wait()


def _follow(ranks: Ranks, hashes: Hashes, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Take this rank's part in the training that rank 0 has made or goes on with.

    `hashes`: see `hash_data_of_node`. Raises RunError where this rank would compute another result.
    """
    invitation = Invitation.from_text(ranks.share_text(None))
    run = invitation.run
    record = RunRecord.load(run)
    config = load_run_config(run, overrides)
    checkpoint = load_checkpoint(invitation.checkpoint) if invitation.checkpoint else None
    num_threads = checkpoint.state["num_threads"] if checkpoint else config.training.num_threads
    prepare(config, num_threads, ranks)
    refuse_another_than_first(invitation.facts, config, record, hashes, ranks.rank)
    trainer, batches, valid = _build(config, run, record, checkpoint, ranks=ranks)
    result = trainer.fit(batches, valid)
    return {"run": str(run.path), "status": result.status, "told_to_stop": result.told_to_stop}


def _train_in(
    run: RunDir,
    record: RunRecord,
    config: Config,
    lease: Lease,
    checkpoint: Checkpoint | None = None,
    on_epoch: OnEpoch | None = None,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Train, and return what `result_of` does; signals are heard until all is written.

    Slurm tells of a time limit once: that must neither end this process nor be forgotten.
    """
    with StopRequest() as stop:
        fitted = _fit_and_record(run, record, config, lease, checkpoint, on_epoch, ranks, stop)
        return result_of(run, record, told_to_stop=fitted.told_to_stop or bool(stop))


def _fit_and_record(
    run: RunDir,
    record: RunRecord,
    config: Config,
    lease: Lease,
    checkpoint: Checkpoint | None,
    on_epoch: OnEpoch | None,
    ranks: Ranks,
    stop: StopRequest,
) -> FitResult:
    """Build everything, fit, and leave the record as it ended, whatever happens."""
    logger.info("run    %s", shown(run.path))
    started = time.monotonic()
    record.save(run)  # before the syncer looks, which leaves a run that is not running
    sync = start_sync(run, config.tracking.mlflow_uri) if config.tracking.mlflow_uri else None
    try:
        _invite(run, checkpoint, config, ranks)
        with explained():  # torch raises a reader's death wherever this process happens to be
            result = _fit(run, record, config, lease, checkpoint, on_epoch, ranks, stop)
        record.status = result.status
        record.findings = [*result.findings, *elsewhere_findings(record)]
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
        # a full disk must not hide the first error, nor a fenced process overwrite the new one's
        with contextlib.suppress(OSError, RunError):
            lease.check()
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
    return result


def _invite(run: RunDir, checkpoint: Checkpoint | None, config: Config, ranks: Ranks) -> None:
    """Tell the other ranks, if there are any, what to train."""
    if ranks.world_size > 1:
        path = checkpoint.path if checkpoint else None
        ranks.share_text(Invitation(run, path, facts_here(config)).to_text())


def _fit(
    run: RunDir,
    record: RunRecord,
    config: Config,
    lease: Lease,
    checkpoint: Checkpoint | None,
    on_epoch: OnEpoch | None,
    ranks: Ranks,
    stop: StopRequest,
) -> FitResult:
    """Train in `run`, logging and saving there, and keep in the record what was best."""
    chain = Chain(run.chain_path)
    tracker = ExperimentTracker(
        config.experiment_name,
        config.model_dump(mode="json"),
        run=run,
        tensorboard=config.tracking.tensorboard,
    )
    with tracker, contextlib.closing(chain):
        trainer, batches, valid = _build(
            config, run, record, checkpoint,
            tracker=tracker, on_epoch=on_epoch, chain=chain, lease=lease, ranks=ranks, stop=stop,
        )  # fmt: skip
        try:
            result = trainer.fit(batches, valid)
        except BaseException:
            with contextlib.suppress(OSError, MLCoreError):  # the first error is the one to tell
                _note_best(run, record, trainer)
            raise
        _note_best(run, record, trainer)
        return result


def _note_best(run: RunDir, record: RunRecord, trainer: Trainer) -> None:
    """Keep in the record what the first batch was, and which checkpoint was the best so far."""
    record.first_batch = trainer.first_batch
    is_saved = (run.checkpoints_dir / "best").exists()  # or the disk was full by then
    if trainer.state.best_epoch is not None and is_saved:
        record.best = {
            "epoch": trainer.state.best_epoch,
            "metric": trainer.settings.best_metric,
            "value": trainer.state.best_value,
            "weights_sha256": load_best(run.checkpoints_dir).weights_sha256,
        }


def _build(
    config: Config,
    run: RunDir,
    record: RunRecord,
    checkpoint: Checkpoint | None,
    *,
    ranks: Ranks,
    **parts: Any,
) -> tuple[Trainer, PatchLoader, PatchLoader]:
    """Wire data, model, optimizer and schedule together, as far as `checkpoint` had come.

    Returns the loop, its batches and those of the validation split. `parts` go to the loop.
    """
    device = choose_device(config.training.device)
    exclude = run_exclusions(run, record)
    train_set, valid_set = (open_split(config, split, exclude) for split in SPLITS)
    model = build_from_spec(checkpoint.model_spec) if checkpoint else None
    trainer, batches = build_trainer(config, train_set, device, model=model, ranks=ranks, **parts)
    assert isinstance(trainer.model, PatchClassifier)
    if ranks.is_first:
        _describe(run, record, trainer.model)
    if checkpoint is not None:
        trainer.load_checkpoint(checkpoint)
    return trainer, batches, inference_loader(config, valid_set, device, ranks)


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


def _explain_os_error(error: OSError, run: RunDir) -> RunError:
    where = f" ({error.filename})" if error.filename else ""
    return RunError(
        f"training stopped, the system says: {error.strerror or error}{where}. The checkpoints "
        f"written so far are whole. Mend it (free space, rights), then go on with: "
        f"ml-core train --resume {shown(run.path)}"
    )

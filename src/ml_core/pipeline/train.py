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
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_core.checkpoint import load_checkpoint, load_last
from ml_core.config import Config
from ml_core.data.checks import SplitRecord, digest_splits, sha256_of
from ml_core.distributed import ALONE, Ranks
from ml_core.errors import RankError, RunError
from ml_core.lease import Lease, slurm_job
from ml_core.log import shown
from ml_core.pipeline.parts.data_gate import Gate, pass_gate
from ml_core.pipeline.parts.elsewhere import note_elsewhere
from ml_core.pipeline.parts.finished_run import is_of_this_job, is_over, result_of
from ml_core.pipeline.parts.numerics import prepare
from ml_core.pipeline.parts.ranks import Invitation, joined_ranks
from ml_core.pipeline.parts.run_in_training import RunInTraining
from ml_core.pipeline.parts.same_on_ranks import (
    Hashes,
    hash_data_of_node,
    refuse_another_than_first,
)
from ml_core.pipeline.parts.splits import (
    changed_rows,
    check_data,
    check_placement,
    recorded,
    refuse_other_data,
    run_exclusions,
)
from ml_core.pipeline.parts.trained_model import load_run_config
from ml_core.reproducibility import (
    code_record,
    hardware_record,
    installed_packages,
    package_versions,
    refuse_other_numerics,
)
from ml_core.reproducibility.packages import render_packages
from ml_core.runs import RunDir, RunRecord, utc_now, write_text
from ml_core.solver.trainer import OnEpoch

logger = logging.getLogger("ml_core.train")

SPLITS = ("train", "valid")


def train(config: Config, *, command: str) -> dict[str, Any]:
    """Train every seed of `config`; return {"status", "runs": [...]}, for `--json`.

    Told to stop before all are trained, the status is interrupted.
    """
    if config.slices:
        _check_slices(config.slices)
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


def _check_slices(slices: Mapping[str, str]) -> None:
    """Raise ConfigError for a query that cannot be read: now, not after hours."""
    # as pandas, half a second that a training without slices need not wait
    from ml_core.evaluation.slices.facts import FACTS
    from ml_core.evaluation.slices.query import compile_query

    for name, query in slices.items():
        compile_query(query, FACTS, name)


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
    check_placement(config, checks)
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
        return RunInTraining(run, record, one_seed, ranks=ranks).train(lease, on_epoch)


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
        check_placement(config, checks)
        step = checkpoint.state["train"]["step"]
        if elsewhere:
            note_elsewhere(record, numerics, step)
        else:
            refuse_other_numerics(record.numerics, numerics, config.training.numerics)
        lease.take_over_at(step)
        record.resumed_at.append(utc_now())
        record.status, record.error, record.ended_at = "running", None, None
        logger.info("resuming %s at step %d", shown(run.path), step)
        return RunInTraining(run, record, config, checkpoint, ranks).train(lease, on_epoch)


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
    result = RunInTraining(run, record, config, checkpoint, ranks).take_part()
    return {"run": str(run.path), "status": result.status, "told_to_stop": result.told_to_stop}

"""Say whether a recorded run can be had again bit for bit, or where two runs begin to differ.

Of a run: reads its record and the data, takes its first steps again in a temporary folder, and
compares logs and digests; writes nothing into the run. Of two runs: reads what both recorded. Of a
witness: trains it again.

    ml-core verify runs/pcam_cnn/20260102-030405-seed42
    ml-core verify runs/pcam_cnn/20260102-030405-seed42 --full
    ml-core verify runs/pcam_cnn/20260102-030405-seed1 runs/pcam_cnn/20260102-030616-seed2
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from ml_core.config import Config
from ml_core.errors import ConfigError, RunError
from ml_core.log import shown
from ml_core.pipeline.parts.trained_model import load_run_config
from ml_core.pipeline.verifying.kept_weights import compare_weights
from ml_core.pipeline.verifying.replay import Replay, replay
from ml_core.pipeline.verifying.whole_logs import check_logs
from ml_core.runs import RunDir, RunRecord, write_text
from ml_core.verification.compare_records import compare_records
from ml_core.verification.differences import KINDS, Difference
from ml_core.verification.replay_plan import ReplayPlan, plan_replay
from ml_core.verification.run_evidence import evidence_of_now, read_evidence
from ml_core.verification.verdict import (
    BINDING_FOR_REPLAY,
    BINDING_FOR_TWO,
    NOW,
    Verdict,
    compute_compared,
    judge,
    render_verdict,
)

logger = logging.getLogger("ml_core.verify")


def verify_run(
    path: Path,
    overrides: Iterable[str] = (),
    *,
    steps: int | None = None,
    full: bool = False,
    from_step: int | None = None,
) -> dict[str, Any]:
    """Replay a part of the run at `path`, see `plan_replay`; return the verdict as JSON.

    Raises RunError for a record that is damaged or contradicts itself, ConfigError where this
    machine cannot honour the run's numerics, DataError for data that cannot be read.
    """
    run = RunDir.open(path)
    record = _whole_record(run)
    plan = plan_replay(run, steps=steps, full=full, from_step=from_step)
    with tempfile.TemporaryDirectory(prefix="ml-core-verify-") as folder:
        config = _recorded_config(run, record, overrides, Path(folder))
        _say(run, plan, config)
        found = replay(run, record, config, plan, Path(folder))
        kept, changed = compare_weights(run, record)
        differences = _sorted([*changed, *found.differences, *_differences(run, record, found)])
        compared = compute_compared(run, found.run, plan.after_step)
    num = sum(plan.after_step < step <= plan.last_step for step in kept)
    compared = dataclasses.replace(compared, checkpoints=num)
    return _finish(judge(shown(run.path), NOW, compared, differences, BINDING_FOR_REPLAY))


def verify_two(a: Path, b: Path) -> dict[str, Any]:
    """Compare the records and every logged bit of two runs; return the verdict as JSON."""
    runs = RunDir.open(a), RunDir.open(b)
    if runs[0].path.resolve() == runs[1].path.resolve():
        raise RunError(f"{a} was given twice; give two runs, or one to take its steps again.")
    kept, changed = zip(*(compare_weights(run, _whole_record(run)) for run in runs), strict=True)
    found = compare_records(read_evidence(runs[0]), read_evidence(runs[1]))
    here, there = (shown(run.path) for run in runs)
    compared = compute_compared(*runs)
    num = sum(step <= compared.last_step for steps in kept for step in steps)
    compared = dataclasses.replace(compared, checkpoints=num)
    differences = _sorted([*itertools.chain(*changed), *found])
    return _finish(judge(here, there, compared, differences, BINDING_FOR_TWO))


def _whole_record(run: RunDir) -> RunRecord:
    """Return the record of `run`; raises RunError where a log of it lacks a line."""
    record = RunRecord.load(run)
    check_logs(run, is_over=record.status in ("completed", "stopped_early"))
    return record


def _recorded_config(
    run: RunDir, record: RunRecord, overrides: Iterable[str], folder: Path
) -> Config:
    """Return the config that run.json holds, whatever became of config.yaml since.

    A run older than that key has config.yaml only.
    """
    if not record.config:
        return load_run_config(run, overrides)
    stand_in = RunDir(folder / "recorded" / run.name)
    write_text(stand_in.config_path, yaml.safe_dump(record.config, sort_keys=False))
    try:
        return load_run_config(stand_in, overrides)
    except ConfigError as error:  # said of the file that the user has
        said = str(error).replace(str(stand_in.config_path), f"the config in {run.record_path}")
        raise ConfigError(said) from error


def _say(run: RunDir, plan: ReplayPlan, config: Config) -> None:
    start = f"the checkpoint at step {plan.after_step}" if plan.checkpoint else "the seed"
    logger.info(
        "taking steps %d to %d of %s again, from %s, numerics %s",
        plan.after_step + 1, plan.last_step, shown(run.path), start, config.training.numerics,
    )  # fmt: skip


def _differences(run: RunDir, record: RunRecord, found: Replay) -> list[Difference]:
    """Return in what the record of `run` differs from what was found."""
    then = read_evidence(run)
    now = evidence_of_now(
        then.config,  # what was set anew is where things are
        data=found.data,
        digests=found.digests,
        numerics=found.numerics,
        exclusions_sha256=record.audit.get("exclusions_sha256"),
        logs=found.run,
    )
    return compare_records(then, now)


def _sorted(differences: Iterable[Difference]) -> list[Difference]:
    """Return causes before effects; of a kind in the given order."""
    return sorted(differences, key=lambda each: KINDS.index(each.kind))


def _finish(verdict: Verdict) -> dict[str, Any]:
    logger.info("%s", text := render_verdict(verdict))
    return {**verdict.to_dict(), "message": text}

"""Say whether a recorded run can be had again bit for bit, or where two runs begin to differ.

Of a run: reads its record and the data, takes its first steps again in a temporary folder, and
compares logs and digests; writes nothing into the run. Of two runs: reads what both recorded. Of a
witness: trains it again.

    ml-core verify runs/pcam_cnn/20260102-030405-seed42
    ml-core verify runs/pcam_cnn/20260102-030405-seed42 --full
    ml-core verify runs/pcam_cnn/20260102-030405-seed1 runs/pcam_cnn/20260102-030616-seed2
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from ml_core.config import Config
from ml_core.errors import RunError
from ml_core.log import shown
from ml_core.pipeline.parts.trained_model import load_run_config
from ml_core.pipeline.verifying.replay import Replay, replay
from ml_core.runs import RunDir, RunRecord, read_jsonl, write_text
from ml_core.tracking.chain import check_chain
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
    plan = plan_replay(run, steps=steps, full=full, from_step=from_step)
    _check_chain_of(run)
    record = RunRecord.load(run)
    with tempfile.TemporaryDirectory(prefix="ml-core-verify-") as folder:
        config = _recorded_config(run, record, overrides, Path(folder))
        _say(run, plan, config)
        found = replay(run, record, config, plan, Path(folder))
        differences = _differences(run, record, found)
        compared = compute_compared(run, found.run, plan.after_step)
    verdict = judge(shown(run.path), NOW, compared, differences, BINDING_FOR_REPLAY)
    return _finish(verdict)


def verify_two(a: Path, b: Path) -> dict[str, Any]:
    """Compare the records and every logged bit of two runs; return the verdict as JSON."""
    runs = RunDir.open(a), RunDir.open(b)
    if runs[0].path.resolve() == runs[1].path.resolve():
        raise RunError(f"{a} was given twice; give two runs, or one to take its steps again.")
    for run in runs:
        _check_chain_of(run)
    differences = compare_records(read_evidence(runs[0]), read_evidence(runs[1]))
    here, there = (shown(run.path) for run in runs)
    compared = compute_compared(*runs)
    return _finish(judge(here, there, compared, differences, BINDING_FOR_TWO))


def _check_chain_of(run: RunDir) -> None:
    check_chain(run.chain_path, list(read_jsonl(run.chain_path)))


def _recorded_config(
    run: RunDir, record: RunRecord, overrides: Iterable[str], folder: Path
) -> Config:
    """Return the config that run.json holds, whatever became of config.yaml since.

    A run older than that key has config.yaml only.
    """
    if not record.config:
        return load_run_config(run, overrides)
    stand_in = RunDir(folder / "recorded")
    write_text(stand_in.config_path, yaml.safe_dump(record.config, sort_keys=False))
    return load_run_config(stand_in, overrides)


def _say(run: RunDir, plan: ReplayPlan, config: Config) -> None:
    start = f"the checkpoint at step {plan.after_step}" if plan.checkpoint else "the seed"
    logger.info(
        "taking steps %d to %d of %s again, from %s, numerics %s",
        plan.after_step + 1, plan.last_step, shown(run.path), start, config.training.numerics,
    )  # fmt: skip


def _differences(run: RunDir, record: RunRecord, found: Replay) -> list[Difference]:
    """Return in what the record of `run` differs from what was found, causes before effects."""
    then = read_evidence(run)
    now = evidence_of_now(
        then.config,  # what was set anew is where things are
        data=found.data,
        digests=found.digests,
        numerics=found.numerics,
        exclusions_sha256=record.audit.get("exclusions_sha256"),
        logs=found.run,
    )
    differences = [*found.differences, *compare_records(then, now)]
    return sorted(differences, key=lambda each: KINDS.index(each.kind))


def _finish(verdict: Verdict) -> dict[str, Any]:
    logger.info("%s", text := render_verdict(verdict))
    return {**verdict.to_dict(), "message": text}

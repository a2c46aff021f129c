"""Queue a verb on Slurm, when everything that can be seen to fail now has been looked at.

Reads what the verb reads; writes a folder output_dir/jobs/DATE-VERB-EXPERIMENT: config.yaml (the
config as it is now, which is what the jobs read), a script per job, submission.json, changes.diff
(what differs from the commit), and later the logs.

    ml-core submit train experiments/configs/pcam_cnn.yaml --dry-run
    ml-core submit chain experiments/configs/pcam_cnn_search.yaml --profile snellius-gpu --array 4
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import itertools
import logging
import os
import pwd
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_core.cluster.interpreter import find_interpreter
from ml_core.cluster.job_script import render_script
from ml_core.cluster.profile import Profile, load_profile
from ml_core.cluster.slurm.submit import cluster_name
from ml_core.cluster.submission import Submission
from ml_core.errors import ClusterError, cannot_write
from ml_core.log import shown
from ml_core.pipeline.doctor import examine
from ml_core.pipeline.submitting.asked import check_search_memory, compare_with_asked
from ml_core.pipeline.submitting.awaited import refuse_awaited
from ml_core.pipeline.submitting.fast_run import take_fast_run
from ml_core.pipeline.submitting.plan import Order, PlannedJob, plan_jobs
from ml_core.pipeline.submitting.queueing import new_folder, queue_jobs
from ml_core.pipeline.submitting.racing import refuse_second, sole_submitter
from ml_core.pipeline.submitting.shared_disk import is_on_network
from ml_core.pipeline.submitting.subject import Subject, read_subject
from ml_core.pipeline.submitting.waiting import wait_for_jobs
from ml_core.pipeline.submitting.words import BEGIN_RUNS, CHAIN, SEARCH, Words, read_words
from ml_core.preflight.check import Check
from ml_core.preflight.file_systems import read_mounts
from ml_core.reproducibility.code import code_record
from ml_core.runs import utc_now, write_text

logger = logging.getLogger("ml_core.submit")


def submit(
    verb: str,
    arguments: Sequence[str],
    *,
    commands: Mapping[str, Any],
    profile: str,
    ask: Sequence[str] = (),
    after: Sequence[str] = (),
    array: int | None = None,
    name: str | None = None,
    fast_dev_run: bool = True,
    dry_run: bool = False,
    wait: bool = False,
    command: str,
) -> dict[str, Any]:
    """Return {"status", "folder", "jobs": [{id, name, log}]}; of a dry run the "scripts" instead.

    `arguments` follow the verb, `commands` are the command-line parsers of all verbs. The status is
    submitted, dry run, or after `wait` completed, failed, or interrupted. Raises ConfigError,
    RunError or ClusterError for whatever would fail; nothing is then queued.
    """
    words = read_words(verb, arguments, commands)
    subject = read_subject(words)
    asked = load_profile(profile, ask)
    if Path(profile).suffix in (".yaml", ".yml"):
        profile = str(Path(profile).expanduser().absolute())
    code, diff = code_record()
    order = dataclasses.replace(
        _order(words, subject, asked, name),
        submit_options=("--profile", profile, *(word for key in ask for word in ("--ask", key))),
        after=tuple(after),
        num_workers=array,
        code_sha256=code["source_sha256"],
    )
    planned = plan_jobs(words, subject.config, order, is_new=subject.is_new)
    scripts = {job.script_path.name: render_script(job.request, job.profile) for job in planned}
    if dry_run:
        _show(scripts)
    checks = examine(subject.config, asked, submits=True, needs_slurm=not dry_run)
    is_tried = fast_dev_run and not dry_run and subject.is_new and verb in (*BEGIN_RUNS, CHAIN)
    if verb in SEARCH and not is_tried:
        checks += check_search_memory(asked)
    _refuse_errors(checks)
    if dry_run:
        logger.info("nothing was written or submitted: this was a dry run")
        return {"status": "dry run", "scripts": scripts}
    refuse_awaited(after)
    with _alone(words), new_folder(order.folder):
        _write_snapshot(subject, order, diff)
        if is_tried:
            _try_first(words, subject, order)
        submission = queue_jobs(planned, _submission(words, order, profile, command, code))
    _tell(submission, planned)
    return _followed(submission) if wait else _result(submission, "submitted")


def _order(words: Words, subject: Subject, profile: Profile, name: str | None) -> Order:
    """Return what the jobs share; the folder has a name that nobody has used."""
    label = re.sub(r"[^A-Za-z0-9._-]+", "_", subject.name)
    now = f"{dt.datetime.now():%Y%m%d-%H%M%S}"

    def folder_of(stamp: str) -> Path:
        return subject.output_dir / "jobs" / f"{stamp}-{words.verb}-{label}"

    stamps = (now if attempt == 1 else f"{now}-{attempt}" for attempt in itertools.count(1))
    stamp = next(each for each in stamps if not folder_of(each).exists())
    data = subject.config.data.data_path if subject.config else None
    return Order(
        folder=folder_of(stamp),
        stamp=stamp,
        name=name or f"{words.verb}-{label}",
        profile=profile,
        interpreter=find_interpreter(profile.python),
        is_staged=bool(profile.scratch) and data is not None and is_on_network(data, read_mounts()),
    )


def _show(scripts: Mapping[str, str]) -> None:
    for name, text in scripts.items():
        logger.info("# ----- %s\n%s", name, text)


def _refuse_errors(checks: Sequence[Check]) -> None:
    """Say what is doubtful; raise ClusterError with all that would fail."""
    for check in checks:
        if check.level == "warning":
            logger.warning("%s", _sentence(check))
    errors = [_sentence(check) for check in checks if check.level == "error"]
    if errors:
        listed = "".join(f"\n  {error}" for error in errors)
        raise ClusterError(f"nothing was submitted, for this would fail:{listed}")


def _sentence(check: Check) -> str:
    return f"{check.about}: {check.told} {check.remedy}".rstrip().replace("\n", "\n  ")


@contextlib.contextmanager
def _alone(words: Words) -> Iterator[None]:
    """Keep a second job away from the run or study that `words` go on with."""
    if words.resume is None:
        yield
        return
    with sole_submitter(words.resume):
        refuse_second(words.resume, _user(), is_study=words.verb == "tune")
        yield


def _write_snapshot(subject: Subject, order: Order, diff: str) -> None:
    """Keep config and code as they are now; raises ClusterError."""
    try:
        if subject.is_new:
            assert subject.config is not None
            write_text(order.config_path, subject.config.dump_yaml())
        if diff:
            write_text(order.folder / "changes.diff", diff)
    except OSError as error:
        raise ClusterError(cannot_write(order.folder, error)) from error


def _try_first(words: Words, subject: Subject, order: Order) -> None:
    """Take two batches through everything, and say what time and memory that asks for."""
    assert subject.config is not None
    logger.info("trying two batches first: ml-core train --fast-dev-run ...")
    measured = take_fast_run(order.config_path, subject.config)
    where = " on the CPU, since this machine has no GPU" if measured["is_on_cpu"] else ""
    logger.info("they passed in %s s%s", measured.get("seconds"), where)
    searches = words.verb in SEARCH
    checks = compare_with_asked(measured, order.profile, subject.config, searches=searches)
    for check in checks:
        if check.level == "ok":
            logger.info("%s", _sentence(check))
    _refuse_errors(checks)


def _submission(
    words: Words, order: Order, profile: str, command: str, code: Mapping[str, Any]
) -> Submission:
    return Submission(
        folder=order.folder,
        command=command,
        verb=words.verb,
        submitted_at=utc_now(),
        user=_user(),
        cluster=cluster_name(),
        profile=profile,
        commit=code["commit"],
        jobs=(),
        resumes=words.resume,
    )


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # an account that this machine's list does not hold
        return str(os.getuid())


def _tell(submission: Submission, planned: Sequence[PlannedJob]) -> None:
    """Print what was queued, and how to follow it."""
    for before, job, plan in zip((None, *submission.jobs), submission.jobs, planned, strict=False):
        num = job.num_tasks
        tasks = "" if num is None else f", {num} task{'s' * (num > 1)}"
        waits = f", after {before.id}" if before else ""
        asks = f"{plan.profile.partition or 'the default partition'}, {plan.profile.time}"
        logger.info("job %s  %s%s (%s)%s", job.id, job.name, tasks, asks, waits)
    first, ids = submission.jobs[0], " ".join(job.id for job in submission.jobs)
    logger.info("how it is:  ml-core jobs %s", ids)
    logger.info("its log:    tail -F %s", shown(first.log_path(first.task_ids[0])))
    logger.info("stop it:    scancel %s", ids)


def _followed(submission: Submission) -> dict[str, Any]:
    """Wait for the end of all jobs; Ctrl-C ends the waiting alone."""
    try:
        all_well = wait_for_jobs(submission)
    except KeyboardInterrupt:
        logger.info("no longer waiting; the jobs go on, and ml-core jobs tells of them")
        return _result(submission, "interrupted")
    return _result(submission, "completed" if all_well else "failed")


def _result(submission: Submission, status: str) -> dict[str, Any]:
    jobs = [{"id": job.id, "name": job.name, "log": job.log} for job in submission.jobs]
    return {"status": status, "folder": str(submission.folder), "jobs": jobs}

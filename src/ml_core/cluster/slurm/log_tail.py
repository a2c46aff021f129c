"""What the end of a job's log tells: Slurm's own notices, our errors, a traceback's last line."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass

from ml_core.cluster.slurm.jobs import ExitCode

# slurmstepd, in every version since 17.11 (src/slurmd/slurmstepd/req.c): "slurmstepd: error: ***
# JOB 7 ON n1 CANCELLED AT 2026-11-22T21:59:17 DUE TO TIME LIMIT ***"
_NOTICE = re.compile(
    r"^slurmstepd\S*: error: \*\*\* (JOB|STEP) \S+ ON \S+ CANCELLED AT \S+"
    r"(?: DUE TO ([A-Z ]*[A-Z]))?"
)
_STATES = {
    "TIME LIMIT": "TIMEOUT",
    "PREEMPTION": "PREEMPTED",
    "NODE FAILURE": "NODE_FAIL",
}
_REQUEUED = "JOB REQUEUE"
# By cgroups: "slurmstepd: error: Detected 1 oom_kill event in StepId=7.batch" (oom-kill before
# 22.05), then "srun: error: n1: task 0: Out Of Memory". By Slurm itself, the job is then FAILED:
# "slurmstepd: error: StepId=7.0 exceeded memory limit (3 > 1), being killed".
_OUT_OF_MEMORY = re.compile(
    r"^slurmstepd\S*: error: .*(?:Detected \d+ oom.kill event|[Ee]xceeded (?:\w+ )?memory limit)"
    r"|^srun: error: .*: Out Of Memory$"
)
_NODE_LOST = re.compile(r"^srun: error: Node failure on ")
# "srun: error: n1: task 0: Exited with exit code 2", or the name of a signal: "... task 0: Killed"
_TASK_END = re.compile(r"^srun: error: \S+: tasks? \S+: (?:Exited with exit code (\d+)|(.+))$")
_SIGNALS = {signal.strsignal(number): int(number) for number in signal.valid_signals()}
_OURS = re.compile(r"^error: (.+)")
# what the others say when one rank has died: not the first cause
_OTHER_RANKS = re.compile(r"^rank \d+ of \d+ cannot go on:")
_RAISED = re.compile(r"^[A-Za-z_][\w.]*(?:: .*)?$")


@dataclass(frozen=True)
class LogTail:
    """What the last start of a job left in its log; None for what is not there."""

    state: str | None
    exit_code: ExitCode | None  # of the first task of srun that failed: it may have ended others
    out_of_memory: bool
    error: str | None
    traceback: str | None  # its last line, which names the error
    last_line: str | None


def read_tail(text: str) -> LogTail:
    """Return what `text`, the end of a log, tells of the job's last start."""
    lines = _of_last_start([line.rstrip() for line in text.splitlines()])
    ends = [_task_end(match) for match in map(_TASK_END.match, lines) if match]
    ours = [match[1] for match in map(_OURS.match, lines) if match]
    causes = [error for error in ours if not _OTHER_RANKS.match(error)] or ours
    said = [line for line in lines if line and not line.startswith(("slurmstepd", "srun:"))]
    return LogTail(
        state=_state(lines),
        exit_code=next((end for end in ends if end is not None), None),
        out_of_memory=any(_OUT_OF_MEMORY.search(line) for line in lines),
        error=causes[-1] if causes else None,
        traceback=_raised(lines),
        last_line=said[-1] if said else None,
    )


def _of_last_start(lines: list[str]) -> list[str]:
    """Return the lines after the last notice that the job was put back: logs are appended to."""
    matches = ((number, _NOTICE.match(line)) for number, line in enumerate(lines))
    put_back = [number for number, match in matches if match and match[2] == _REQUEUED]
    return lines[put_back[-1] + 1 :] if put_back else lines


def _state(lines: list[str]) -> str | None:
    """Return the state that the notices name.

    A step is cancelled without a reason when it is preempted with a grace time, runs out of memory
    or loses a task; only a job that is has been cancelled by somebody.
    """
    if any(map(_NODE_LOST.match, lines)):
        return "NODE_FAIL"
    notices = [match.groups() for match in map(_NOTICE.match, lines) if match]
    named = [_STATES[why] for _, why in notices if why in _STATES]
    if named:
        return named[-1]
    return "CANCELLED" if ("JOB", None) in notices else None


def _task_end(match: re.Match[str]) -> ExitCode | None:
    if match[1] is not None:
        return ExitCode(int(match[1]))
    number = _SIGNALS.get(match[2].removesuffix(" (core dumped)"))
    return None if number is None else ExitCode(0, signal=number)


def _raised(lines: list[str]) -> str | None:
    """Return the line after the last traceback's frames, ``ValueError: ...``."""
    starts = [number for number, line in enumerate(lines) if line.startswith("Traceback (most")]
    if not starts:
        return None
    after = (line for line in lines[starts[-1] + 1 :] if _RAISED.match(line))
    return next(after, None)

"""What the end of a job's log tells: Slurm's notices, our script's, our errors, a traceback."""

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
_OURS = re.compile(r"^[Ee]rror: (.+)")  # with E of a wrong option
_LIST_AHEAD = re.compile(r"(?<=[.;]) [^.;]*:$")  # "... Not above 0 are:", with a line each below
# What the others say when one rank has died, and the script once it gives up: not the first cause.
_LATER = re.compile(r"^rank \d+ of \d+ cannot go on:|^failed on \S+ and not tried again;")
# What our script says of itself, and of them its first and last words; see cluster/shell.
_SCRIPT = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d  (?P<said>.*)")
_BEGINS = re.compile(r"job \S+, start \d+, on ")
_WORK_END = re.compile(r"ml-core ended with exit code (\d+) after \d+ s, job (\w+)")
_STILL_OURS = ("RUNNING", "SIGNALING", "state")  # "state unknown"
_BY_SLURM = ("slurmstepd", "srun:")  # which may come between the lines of a traceback
_RAISED = re.compile(r"^[A-Za-z_][\w.]*(?:: .*)?$")


@dataclass(frozen=True)
class LogTail:
    """What the last start of a job left in its log; None for what is not there."""

    state: str | None
    exit_code: ExitCode | None  # of the first task that failed: it may have ended others
    out_of_memory: bool
    error: str | None
    traceback: str | None  # its last line, which names the error
    last_line: str | None


def read_tail(text: str) -> LogTail:
    """Return what `text`, the end of a log, tells of the job's last start."""
    lines = _of_last_start([line.rstrip() for line in text.splitlines()])
    ends = [_task_end(match) for match in map(_TASK_END.match, lines) if match]
    code = _code_of_work(lines)
    ours = [_LIST_AHEAD.sub("", match[1]) for match in map(_OURS.match, lines) if match]
    causes = [error for error in ours if not _LATER.match(error)] or ours
    said = [line for line in lines if not (line.startswith(_BY_SLURM) or _SCRIPT.match(line))]
    said = [line for line in said if line]
    return LogTail(
        state=_state(lines) or ("COMPLETED" if code == 0 else None),
        exit_code=next((end for end in ends if end is not None), _exit_code(code)),
        out_of_memory=any(_OUT_OF_MEMORY.search(line) for line in lines),
        error=causes[-1] if causes else None,
        traceback=_raised(lines),
        last_line=said[-1] if said else None,
    )


def _of_last_start(lines: list[str]) -> list[str]:
    """Return the lines since the job was last put back or begun: logs are appended to."""
    since = 0
    for number, line in enumerate(lines):
        notice = _NOTICE.match(line)
        if notice and notice[2] == _REQUEUED:
            since = number + 1
        elif _BEGINS.match(_words_of_script(line)):
            since = number
    return lines[since:]


def _words_of_script(line: str) -> str:
    match = _SCRIPT.match(line)
    return match["said"] if match else ""


def _code_of_work(lines: list[str]) -> int | None:
    """Return the exit code that our script noted, None where Slurm had taken the job away."""
    ends = [_WORK_END.match(_words_of_script(line)) for line in lines]
    codes = [int(end[1]) for end in ends if end and end[2] in _STILL_OURS]
    return codes[-1] if codes else None


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


def _exit_code(code: int | None) -> ExitCode | None:
    return ExitCode(code) if code else None


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
    after = [line for line in lines[starts[-1] + 1 :] if not line.startswith(_BY_SLURM)]
    return next(filter(_RAISED.match, after), None)

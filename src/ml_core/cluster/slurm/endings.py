"""Why a job ended, in one sentence, and what to do about it."""

from __future__ import annotations

import math
import pwd
import re
import signal

from ml_core.cluster.slurm.accounting import Usage
from ml_core.cluster.slurm.fields import duration, size
from ml_core.cluster.slurm.jobs import ExitCode, Job
from ml_core.cluster.slurm.log_tail import LogTail, read_tail

_SHELL = {
    126: "a file in its script may not be executed: see the last lines of its log",
    127: "its script calls a program that is not there: see that the modules and Python's "
    "environment it loads exist on the machines too",
}
# What Slurm 22.05 gives as the signal of a job that it could not start: measured with the folder of
# its log removed while it waited.
_NOT_STARTED = 53
# Measured on 22.05 of a task that is cancelled by itself before it starts.
LEFT_NO_TRACE = (
    "it was cancelled while it waited, it seems: Slurm tells of other tasks of its array, and of "
    "this one nothing."
)
_KILLED_FOR_MEMORY = signal.SIGKILL
_FAILED_BEFORE = re.compile(r"(\d+(?:_(?:\d+|\*))?)\(failed\)")  # "afterok:12(failed),afterok:13_*"


def why_ended(
    job: Job | None,
    usage: Usage | None = None,
    log_tail: str = "",
    go_on: str = "submit it again",
    before: str | None = None,
) -> str:
    """Return in one sentence why a job ended and what to do, from whatever is left of it.

    `job` is what squeue still knows, `usage` what sacct does, `log_tail` the end of its log, which
    may hold the ends of earlier starts too; `go_on` is how this job is taken up again, in words;
    `before` the job it waited for, where Slurm may have forgotten. Raises ValueError when the job
    has not ended.
    """
    log = read_tail(log_tail)
    state = _state(job, usage, log)
    code = _exit_code(job, usage, log)
    if state == "COMPLETED":
        return "it ran to its end."
    if log.out_of_memory or state == "OUT_OF_MEMORY":
        return _out_of_memory(usage)
    if state == "CANCELLED":
        return _cancelled(job, usage, go_on, before)
    if state in ("TIMEOUT", "DEADLINE"):
        limits = [each.limit_s for each in (job, usage) if each is not None]
        limit = f" of {duration(limits[0])}" if limits and limits[0] else ""
        return f"it reached its time limit{limit}: {go_on}, perhaps with more time."
    if state in ("NODE_FAIL", "BOOT_FAIL"):
        where = _nodes(job, usage)
        return f"the machine it ran on failed{where}: {go_on}, perhaps without that machine."
    if state == "PREEMPTED":
        return f"it made room for a job of a higher priority: {go_on}."
    if job is not None and job.reason == "BadConstraints":
        return "Slurm refused it: no machine has what it asks for. Submit it with less."
    if code is None:
        return _forgotten(log)
    return _of_exit(code, log, go_on)


def _state(job: Job | None, usage: Usage | None, log: LogTail) -> str | None:
    """Return how it ended: squeue is the first to know, sacct the last to forget."""
    told = [source for source in (job, usage) if source is not None]
    ended = [source.state for source in told if source.has_ended]
    if told and not ended:
        raise ValueError(f"the job has not ended: {told[0].state}")
    return ended[0] if ended else log.state


def _exit_code(job: Job | None, usage: Usage | None, log: LogTail) -> ExitCode | None:
    """Return the exit code, in full where squeue or the accounts still have it; else a task's."""
    if job is not None and job.exit_code is not None:
        return job.exit_code
    return log.exit_code if usage is None else usage.exit_code


def _out_of_memory(usage: Usage | None) -> str:
    told = more = ""
    if usage is not None and usage.asked_mem_mb is not None:
        told = f": {size(usage.asked_mem_mb)} were asked for"
        if usage.max_rss_mb is not None:
            told += f", and it was last seen using {size(usage.max_rss_mb)}"
        more = f" (--ask mem_gb={math.ceil(2 * usage.asked_mem_mb / usage.num_tasks / 1024)})"
    return f"it ran out of memory{told}. Submit it with more{more}, or with fewer workers."


def _cancelled(job: Job | None, usage: Usage | None, go_on: str, before: str | None) -> str:
    if _waited_in_vain(job, usage):
        failed = ", ".join(_FAILED_BEFORE.findall(job.dependency or "")) if job else ""
        which = failed or before
        told = f" ({which})" if which else ""
        return f"the job before it failed{told}: mend that one, and submit both again."
    who = "" if usage is None or usage.cancelled_by is None else f" by {_user(usage.cancelled_by)}"
    if not any(told.nodes for told in (job, usage) if told is not None) and (job or usage):
        again = " again" if job is not None and job.restarts else ""
        return f"it was cancelled{who} before it started{again}."
    return f"it was cancelled{who}: if that was not meant, {go_on}."


def _waited_in_vain(job: Job | None, usage: Usage | None) -> bool:
    """Return whether Slurm itself cancelled it, since the job it waited for ended otherwise.

    With --kill-on-invalid-dep, 22.05 then tells squeue "DependencyNeverSatisfied", and sacct
    "CANCELLED" by nobody, with the reason "Dependency".
    """
    if job is not None:
        return job.reason == "DependencyNeverSatisfied"
    if usage is None or usage.cancelled_by is not None or usage.elapsed_s:
        return False
    return usage.reason in ("Dependency", "DependencyNeverSatisfied")


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def _nodes(job: Job | None, usage: Usage | None) -> str:
    names = [told.nodes for told in (job, usage) if told is not None and told.nodes]
    return f" ({names[0]})" if names else ""


def _forgotten(log: LogTail) -> str:
    told = log.traceback or log.error or log.last_line
    last = f" Its log ends with: {told}" if told else ""
    return f"Slurm has forgotten how it ended, and keeps no accounts.{last}"


def _of_exit(code: ExitCode, log: LogTail, go_on: str) -> str:
    """Return the sentence for an exit code of ours, of the shell's, or of a signal."""
    number = code.signal or (code.code - 128 if code.code > 128 else 0)
    if code.code == 130:
        return f"it was interrupted, and saved a checkpoint first: {go_on}."
    if number:
        return _of_signal(number, log, go_on)
    if code.code == 2 and log.error:
        return f"it was refused: {log.error}"
    if code.code == 3:
        found = _or_log(log.error or log.last_line)
        return f"it ran to its end, and what it found needs a look: {found}"
    if code.code in _SHELL:
        return f"{_SHELL[code.code]}."
    if log.traceback is not None:
        return _of_traceback(log.traceback)
    return f"it ended with exit code {code.code}: {_or_log(log.error or log.last_line)}"


def _or_log(text: str | None) -> str:
    return text or "see its log."


def _of_traceback(line: str) -> str:
    if "CUDA out of memory" in line or "CUDA error: out of memory" in line:
        return f"its GPU ran out of memory: make data.batch_size smaller. It said: {line}"
    if line.startswith("MemoryError") or "can't allocate memory" in line:
        return f"it ran out of memory: submit it with more. It said: {line}"
    return f"it stopped at a mistake of the program, whose traceback is in its log: {line}"


def _of_signal(number: int, log: LogTail, go_on: str) -> str:
    if number == _NOT_STARTED:
        return (
            "Slurm could not start it on its machine, most often for want of the folder of its "
            "log: see that the folder is there, on that machine too, and submit it again."
        )
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    if number == _KILLED_FOR_MEMORY:
        return (
            f"it was killed ({name}), which is most often for want of memory: see what it used, "
            f"and submit it with more, or {go_on}."
        )
    if name in ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT"):
        return f"the program crashed ({name}): {_or_log(log.error or log.last_line)}"
    return f"it was ended by {name}: {log.error or f'{go_on}.'}"

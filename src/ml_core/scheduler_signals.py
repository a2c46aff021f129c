"""The signals by which a scheduler asks a process to stop, and how a finished one takes them."""

from __future__ import annotations

import signal

# Its end or a preemption; what sites send ahead of a time limit, USR1 or USR2.
OF_A_SCHEDULER = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def ignore_until_the_end() -> None:
    """Let this process leave with the exit code that it has earned.

    All is done and saved, but on a busy machine an interpreter takes seconds to leave, and a signal
    would then kill it: the job of a finished training would count as failed.
    """
    for number in OF_A_SCHEDULER:
        signal.signal(number, signal.SIG_IGN)

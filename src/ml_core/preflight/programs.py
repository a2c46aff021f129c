"""Ask a program of the system, which may not be there."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """What a program said; `code` is None where it could not be started or was too slow."""

    code: int | None
    output: str
    problem: str  # what it wrote to standard error, or why there is no answer


def ask_program(
    words: Sequence[str], *, timeout_s: float, environment: Mapping[str, str] | None = None
) -> Answer:
    """Run a program without a shell or input, and return what it says; raises nothing.

    `environment` replaces this process's own.
    """
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Answer(None, "", f"{words[0]} has not answered for {timeout_s:g} s")
    except OSError as error:
        return Answer(None, "", f"{words[0]} cannot be started: {error.strerror or error}")
    return Answer(done.returncode, done.stdout, done.stderr)

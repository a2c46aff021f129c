"""Run one of Slurm's programs and give its output, or say in one sentence why there is none."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Collection, Mapping

from ml_core.errors import ClusterError

# Users set these for their own eyes: they filter, sort and reword what the readers here expect.
_FOR_THE_EYES = ("SQUEUE_", "SINFO_", "SACCT_")
# Times as ISO 8601, and a job array's tasks in full instead of the first 64 bytes of them.
_FOR_READERS = {"LC_ALL": "C", "SLURM_TIME_FORMAT": "standard", "SLURM_BITSTR_LEN": "0"}

_NO_PERMISSION = re.compile(
    r"permission denied|access denied|not permitted|not authorized", re.IGNORECASE
)
_NO_CONTROLLER = re.compile(
    r"unable to contact slurm|configuration source|connection refused|timed out|connect failure",
    re.IGNORECASE,
)


class Refused(ClusterError):
    """One of Slurm's programs said no; `words` are its own, cleaned."""

    def __init__(self, message: str, words: str) -> None:
        super().__init__(message)
        self.words = words


def run(
    name: str,
    *arguments: str,
    timeout_s: float = 20.0,
    stdin: str | None = None,
    unset: Collection[str] = (),
) -> str:
    """Return what the program `name` of Slurm prints; no shell is between, so nothing is expanded.

    It does not see the environment variables in `unset`. Raises ClusterError where it is not there,
    cannot be started or does not answer within `timeout_s`, and Refused, which is one, where it
    ends with another exit code than 0.
    """
    try:
        done = subprocess.run(
            [name, *arguments],
            input=stdin if stdin is not None else "",
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
            env={
                key: value
                for key, value in environment_for_readers(os.environ).items()
                if key not in unset
            },
            check=False,
        )
    except FileNotFoundError as error:
        raise ClusterError(
            f"no Slurm here: {name} is not on PATH. Log in to the cluster and run this there, or "
            "run the stage itself on this machine, without submit."
        ) from error
    except OSError as error:
        raise ClusterError(
            f"{name} cannot be started: {error.strerror or error}. See which one is meant: "
            f"type -a {name}"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(
            f"{name} has not answered for {timeout_s:g} s: Slurm's controller is busy or cannot be "
            "reached. Try again in a minute; scontrol ping says whether it is up."
        ) from error
    if done.returncode != 0:
        raise _refusal(name, done.returncode, said(done.stderr) or said(done.stdout))
    return done.stdout


def environment_for_readers(environment: Mapping[str, str]) -> dict[str, str]:
    """Return `environment` without what a user set to change how Slurm's programs print."""
    kept = {key: value for key, value in environment.items() if not key.startswith(_FOR_THE_EYES)}
    return kept | _FOR_READERS


def said(text: str) -> str:
    """Return the distinct lines of an error output as one, without ``sbatch: error:`` and such."""
    lines = [re.sub(r"^[\w.-]+:? (error|fatal): ", "", line.strip()) for line in text.splitlines()]
    return "; ".join(dict.fromkeys(line.rstrip(".") for line in lines if line))


def _refusal(name: str, code: int, words: str) -> Refused:
    if _NO_CONTROLLER.search(words):
        remedy = "Slurm's controller cannot be reached from here: try again in a minute, or log in"
        remedy += " to a login node of the cluster."
    elif _NO_PERMISSION.search(words):
        remedy = "This account may not: ask whoever runs the cluster for access."
    else:
        remedy = f"What it takes: man {name}"
    return Refused(f"{name} refuses: {words or f'exit code {code}'}. {remedy}", words)

"""Hand a job script to Slurm, as it is written: nothing from outside changes what it asks for."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from ml_core.cluster.slurm import fields
from ml_core.cluster.slurm.commands import run
from ml_core.errors import ClusterError

TIMEOUT_S = 120.0  # a busy controller may take the job and answer late; a second try would be two
# sbatch(1), INPUT ENVIRONMENT VARIABLES: they go before the lines of a script (measured: partition
# and time limit). What was looked at before is what the script says, and so is what is asked for.
_BEFORE_THE_SCRIPT = "SBATCH_"
_WHERE = ("ArrayJobID", "WorkDir")


def submit(script: Path) -> str:
    """Return the id that Slurm gave to the job of the file `script`.

    The user's SBATCH_ variables do not count. Raises ClusterError, Refused where Slurm says no.
    """
    unset = [name for name in os.environ if name.startswith(_BEFORE_THE_SCRIPT)]
    said = run("sbatch", "--parsable", str(script), timeout_s=TIMEOUT_S, unset=unset)
    found = re.match(r"\d+", said.strip().splitlines()[-1] if said.strip() else "")
    if found is None:
        raise ClusterError(
            f"sbatch took {script}, and gave no number but {said.strip()!r}. See what it made of "
            "it: squeue --me"
        )
    return found[0]


def jobs_of_folder(folder: Path) -> list[str]:
    """Return the numbers of this user's jobs in the queue that work in `folder`; ClusterError."""
    text = run(
        "squeue", "--noheader", f"--user={os.getuid()}", "--Format", fields.format_of(_WHERE)
    )
    rows = fields.records(text, _WHERE)
    return list(dict.fromkeys(row["ArrayJobID"] for row in rows if row["WorkDir"] == str(folder)))


def cancel(jobs: Iterable[str]) -> None:
    """Cancel these jobs, whatever they do; raises ClusterError."""
    run("scancel", *jobs)


def cluster_name() -> str | None:
    """Return the name that the cluster has given itself, None where it does not say."""
    try:
        found = re.search(r"^ClusterName\s*=\s*(\S+)", run("scontrol", "show", "config"), re.M)
    except ClusterError:
        return None
    return found[1] if found else None

"""The batch script of a job: a text that a person can read, change and submit by hand.

First the #SBATCH lines, then everything that was asked for, quoted and by name, then the parts of
`shell/` that this job needs; these are the same in every script. How they end a job was shaped by
what Slurm 22.05 does, measured on a cluster:

* `--signal` reaches the steps and never bash, up to a minute early;
* a job that reaches its limit is TIMEOUT for good; one that has saved must ask to be requeued;
* scancel sends SIGTERM to step and bash at once, and a bash that survives it could requeue the job
  that was cancelled. So nothing is trapped, and bash dies of it;
* SLURM_JOB_ID of one task of an array is that of the whole array, which would be requeued.
"""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path

from ml_core.cluster.job_request import JobRequest
from ml_core.cluster.profile import Profile
from ml_core.cluster.sbatch_lines import Shape, is_requeued, render_sbatch_lines
from ml_core.distributed import FIRST_PORT, NUM_PORTS

SHELL_DIR = Path(__file__).parent / "shell"

MAX_NODES_TRIED = 3
AT_ONCE_S = 60  # nothing of ours fails so soon that a try on another node would cost much
EARLY_S = 90  # sbatch(1): --signal may come a minute early; and half of one for the questions


def render_script(request: JobRequest, profile: Profile) -> str:
    """Return the text for sbatch; the folder of `request` must be there when the job starts.

    Raises ClusterError where the warning comes before half of the time is over.
    """
    shape = Shape.of(request, profile)
    parts = [
        f"#!/bin/bash\n# {_title(request)}\n{render_sbatch_lines(request, profile)}",
        "set -euo pipefail\nexport SLURM_EXPORT_ENV=ALL  # srun hands on what is exported below,"
        " in spite of --export=NONE",
        _render_values(request, profile, shape),
        _shell("job"),
        _shell("modules") if profile.modules else "",
        _render_setup(profile),
        _shell("python"),
        _shell("nodes"),
        _shell("code") if request.code_sha256 else "",
        _shell("stage") if request.stage and profile.scratch else "",
        _shell("ranks") if shape.nodes > 1 else "",
        _render_array(request),
        _shell("resume") if request.resume_dir else "",
        _shell("work"),
        _shell("requeue") if is_requeued(request, profile) else "",
        _shell("end"),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _title(request: JobRequest) -> str:
    """Return what the job does, as one line of a comment, whatever its words hold."""
    words = shlex.join(["ml-core", *request.arguments])
    return f"{' '.join(words.split())} (written by ml-core submit)"


def _render_values(request: JobRequest, profile: Profile, shape: Shape) -> str:
    """Return the assignments of what was asked for: the only lines that hold a user's text."""
    values: dict[str, str | int | list[str]] = {
        "folder": str(request.folder),
        "python": str(request.python),
        "python_version": request.python_version,
        "words": list(request.arguments),
        "also": [],
        "gpus": "yes" if shape.gpus_per_node else "no",
        "requeue": "yes" if is_requeued(request, profile) else "no",
        "exclude": ",".join(profile.exclude),
        "max_nodes_tried": MAX_NODES_TRIED,
        "at_once_s": AT_ONCE_S,
    }
    if profile.modules:
        values["modules"] = list(profile.modules)
    if request.code_sha256:
        values["code_sha256"] = request.code_sha256
    if request.stage and profile.scratch:
        values["data"] = str(request.stage)
        values["staged_name"] = _staged_name(request.stage)
        values["scratch"] = profile.scratch
    if shape.nodes > 1:
        values |= {"first_port": FIRST_PORT, "num_ports": NUM_PORTS}
    if request.resume_dir:
        values["runs"] = str(request.resume_dir)
    if is_requeued(request, profile):
        values["warned_s"] = profile.signal_s + EARLY_S
    lines = [f"{name}={_quoted(value)}" for name, value in values.items()]
    scratch_dir = f"${{{profile.scratch}:-}}" if "data" in values else "''"
    return "\n".join(["# What was asked for.", *lines, f"scratch_dir={scratch_dir}"])


def _render_setup(profile: Profile) -> str:
    """Return the profile's own lines; activate scripts and the like read what is not set."""
    if not profile.setup:
        return ""
    return "\n".join(["# Lines of the profile.", "set +u", *profile.setup, "set -u"])


def _staged_name(data: Path) -> str:
    """Return a name for the copy of `data`: two folders of one name must not meet on a disk."""
    return f"data-{hashlib.sha256(bytes(data)).hexdigest()[:12]}"


def _render_array(request: JobRequest) -> str:
    """Return which words each task of an array adds; nothing where they all do the same."""
    if not any(request.array_arguments):
        return ""
    cases = [
        f"  {task}) words+=({shlex.join(words)}) ;;"
        for task, words in enumerate(request.array_arguments)
        if words
    ]
    return "\n".join(["case $SLURM_ARRAY_TASK_ID in", *cases, "esac"])


def _quoted(value: str | int | list[str]) -> str:
    return f"({shlex.join(value)})" if isinstance(value, list) else shlex.quote(str(value))


def _shell(name: str) -> str:
    return (SHELL_DIR / f"{name}.sh").read_text(encoding="utf-8").strip()

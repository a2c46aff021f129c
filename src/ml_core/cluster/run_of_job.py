"""Which run a job has begun: what it goes on with when the scheduler starts it again.

A batch script asks on its node, before it starts anything:

    python -m ml_core.cluster.run_of_job runs/pcam_cnn 123
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from ml_core.errors import RunError
from ml_core.lease import Lineage
from ml_core.runs import RunDir


def run_of_job(folder: Path, job: str) -> Path | None:
    """Return the run in `folder` that `job` trained in last, None where it has saved nothing.

    A run without a checkpoint has nothing to go on from: the job begins again, with a new one.
    """
    found: dict[str, Path] = {}
    for path in folder.glob("*/generation.json"):
        run = RunDir(path.parent)
        with contextlib.suppress(RunError):  # a damaged one is another job's trouble
            newest = Lineage.read(run.lease_path).newest
            if newest and newest.job == job and any(run.checkpoints_dir.glob("step-*")):
                found[newest.started_at] = run.path
    return found[max(found)] if found else None


if __name__ == "__main__":
    run_path = run_of_job(Path(sys.argv[1]), sys.argv[2])
    print(run_path or "", end="")

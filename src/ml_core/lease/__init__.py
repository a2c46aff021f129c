"""Who may write into a run: one process at a time, and whoever was replaced is fenced off.

A scheduler that loses a node starts the job again elsewhere while the first copy still trains. So
each process that trains in a run enters itself in generation.json under a random token, the token
goes into every checkpoint, and before anything is published the newest entry must be one's own.

    job, restart = slurm_job(os.environ)
    with Lease.take(run, job=job, restart=restart) as lease:  # an older process is fenced now
        checkpoint = load_last(run.checkpoints_dir)  # those of fenced processes do not count
        lease.take_over_at(step)  # of the checkpoint; 0 where training begins
        ...
        lease.check()  # before each publish; save_checkpoint(..., lease=lease) does it itself
"""

from ml_core.lease.lease import Lease, slurm_job
from ml_core.lease.lineage import Generation, Lineage

__all__ = ["Generation", "Lease", "Lineage", "slurm_job"]

"""What Slurm says, read: partitions, jobs, what they used, why they wait, why they ended.

refuse_request(list_partitions(), Request(partition="gpu_a100", gpus=1, time_s=3600))
for job in list_jobs(user="me"):
    print(job.id, why_pending(job) if job.is_waiting else job.state)
"""

from ml_core.cluster.slurm.accounting import Usage, read_usage
from ml_core.cluster.slurm.commands import Refused, run
from ml_core.cluster.slurm.endings import why_ended
from ml_core.cluster.slurm.jobs import ExitCode, Job, list_jobs, show_job
from ml_core.cluster.slurm.partitions import Node, Partition, default_partition, list_partitions
from ml_core.cluster.slurm.reasons import why_pending
from ml_core.cluster.slurm.requests import Request, refuse_request

__all__ = [
    "ExitCode",
    "Job",
    "Node",
    "Partition",
    "Refused",
    "Request",
    "Usage",
    "default_partition",
    "list_jobs",
    "list_partitions",
    "read_usage",
    "refuse_request",
    "run",
    "show_job",
    "why_ended",
    "why_pending",
]

"""The configuration files of a test cluster: two nodes on this machine, five partitions."""

from __future__ import annotations

import dataclasses
from pathlib import Path

NODES = ("n1", "n2")


@dataclasses.dataclass(frozen=True)
class Ports:
    """Where each daemon listens, on the loopback interface only."""

    slurmctld: int
    slurmdbd: int
    database: int
    slurmd: tuple[int, int]


def render_slurm_conf(
    folder: Path,
    ports: Ports,
    *,
    cpus: int,
    memory_mb: int,
    grace_s: int,
    requeue_delay_s: int,
    kill_wait_s: int,
    accounting: bool,
) -> str:
    """Return slurm.conf; the options and their meaning: slurm.conf(5) of Slurm 22.05.

    `grace_s` is the warning of a job that is preempted, `kill_wait_s` the time between SIGTERM and
    SIGKILL. `requeue_delay_s` is how long a requeued job waits at least; sites leave it at 120.
    """
    storage = (
        f"AccountingStorageType=accounting_storage/slurmdbd\n"
        f"AccountingStorageHost=127.0.0.1\n"
        f"AccountingStoragePort={ports.slurmdbd}\n"
        f"AccountingStoragePass={folder}/munge.socket"
        if accounting
        else "AccountingStorageType=accounting_storage/none"
    )
    nodes = "\n".join(
        f"NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs={cpus} "
        f"RealMemory={memory_mb} State=UNKNOWN"
        for name, port in zip(NODES, ports.slurmd, strict=True)
    )
    return f"""\
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ports.slurmctld}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# cred_expire is how long a requeued job waits at least
AuthInfo=socket={folder}/munge.socket,cred_expire={requeue_delay_s}
# listen on the loopback interface only
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld
SlurmdLogFile={folder}/log/slurmd.%n
MailProg=/bin/true

ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerNode={memory_mb // 2}
# both nodes are this machine, which has other hardware than they claim
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
{storage}

# a node that was lost comes back, and quickly is known to be lost
ReturnToService=2
SlurmdTimeout=10
KillWait={kill_wait_s}
MessageTimeout=10
CompleteWait=0
MinJobAge=3600
# look for jobs to start each second, not each minute
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE

{nodes}
PartitionName=DEFAULT Nodes=n1,n2 State=UP PreemptMode=OFF PriorityTier=5 OverSubscribe=NO
PartitionName=short Default=YES DefaultTime=1 MaxTime=2
PartitionName=long DefaultTime=10 MaxTime=1-00:00:00
PartitionName=down DefaultTime=1 MaxTime=2 State=DOWN
PartitionName=low DefaultTime=10 MaxTime=60 PriorityTier=1 PreemptMode=REQUEUE GraceTime={grace_s}
PartitionName=high DefaultTime=10 MaxTime=60 PriorityTier=10
"""


def render_slurmdbd_conf(folder: Path, ports: Ports) -> str:
    """Return slurmdbd.conf; the options and their meaning: slurmdbd.conf(5) of Slurm 22.05."""
    return f"""\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={ports.slurmdbd}
SlurmUser=root
PidFile={folder}/slurmdbd.pid
LogFile={folder}/log/slurmdbd
CommunicationParameters=NoInAddrAny
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={ports.database}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm
"""

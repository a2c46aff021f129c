"""Refuse a request that no partition can fulfil, before it is submitted.

Slurm itself takes most of these and lets the job wait for ever: of sixteen such requests sent to
22.05, with EnforcePartLimits=NO as by default, it refused five (an unknown or inactive partition;
CPUs, memory or GPUs beyond any node) and queued eleven: as PartitionTimeLimit, PartitionConfig,
PartitionNodeLimit, MaxMemPerLimit, PartitionDown, or for their account.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ml_core.cluster.slurm.fields import duration
from ml_core.cluster.slurm.partitions import Node, Partition, default_partition
from ml_core.errors import ClusterError, did_you_mean


@dataclass(frozen=True)
class Request:
    """What a job asks for; CPUs, memory and GPUs are of each node, None is the site's default."""

    partition: str | None = None  # one, or several with commas: the first that is free
    nodes: int = 1
    cpus: int = 1
    mem_mb: int | None = None
    gpus: int = 0
    gpu_type: str | None = None
    time_s: int | None = None
    account: str | None = None
    qos: str | None = None


def refuse_request(partitions: Sequence[Partition], request: Request) -> None:
    """Return where one of the partitions asked for can run this; raise ClusterError if none can.

    The error names each obstacle, and the partitions there are with their limits.
    """
    candidates = _candidates(partitions, request.partition)
    obstacles = {partition.name: list(_obstacles(partition, request)) for partition in candidates}
    if all(obstacles.values()):
        told = "; ".join(f"{name}: {', '.join(found)}" for name, found in obstacles.items())
        raise ClusterError(f"this request cannot run here. {told}. {_offer(partitions)}")


def _candidates(partitions: Sequence[Partition], names: str | None) -> list[Partition]:
    if names is None:
        default = default_partition(partitions)
        if default is None:
            raise ClusterError(
                f"which partition? This cluster has no default. {_offer(partitions)}"
            )
        return [default]
    known = {partition.name: partition for partition in partitions}
    for name in names.split(","):
        if name not in known:
            near = did_you_mean(name, known)
            raise ClusterError(f"unknown partition '{name}'.{near} {_offer(partitions)}")
    return [known[name] for name in names.split(",")]


def _offer(partitions: Sequence[Partition]) -> str:
    if not partitions:
        return "Slurm shows no partition to this user: ask whoever runs the cluster for access."
    lines = "".join(f"\n  {partition}" for partition in partitions)
    return f"This cluster has:{lines}"


def _obstacles(partition: Partition, request: Request) -> Iterator[str]:
    if partition.state != "UP":
        yield f"it is {partition.state}"
    if partition.nodes and not partition.nodes_usable:
        yield "none of its nodes is up"
    if _exceeds(request.time_s, partition.max_time_s):
        assert request.time_s is not None and partition.max_time_s is not None
        asked, limit = duration(request.time_s), duration(partition.max_time_s)
        yield f"{asked} of time is more than its limit of {limit}"
    if _exceeds(request.nodes, partition.max_nodes):
        yield f"{request.nodes} nodes are more than the {partition.max_nodes} it gives a job"
    yield from _lacks(partition, request)
    yield from _not_allowed(partition, request)


def _exceeds(asked: int | None, limit: int | None) -> bool:
    return asked is not None and limit is not None and asked > limit


def _lacks(partition: Partition, request: Request) -> Iterator[str]:
    """Yield what no node has; else, that too few nodes have all of it together."""
    if not partition.nodes:
        yield "it has no nodes"
        return
    each = list(_more_than_a_node(partition, request))
    fitting = sum(_fits(node, partition, request) for node in partition.nodes)
    yield from each
    if not each and fitting < request.nodes:
        has = "node has" if fitting == 1 else "nodes have"
        yield f"{request.nodes} such nodes are asked for, and {fitting} {has} all of that together"


def _more_than_a_node(partition: Partition, request: Request) -> Iterator[str]:
    if request.cpus > partition.cpus_per_node:
        yield f"{request.cpus} CPUs per node are more than the {partition.cpus_per_node} of a node"
    if request.mem_mb is not None and request.mem_mb > partition.mem_per_node_mb:
        yield (
            f"{request.mem_mb} MB of memory per node are more than the "
            f"{partition.mem_per_node_mb} MB of a node"
        )
    if request.gpus > _gpus(partition.gpus_per_node, request.gpu_type):
        yield _too_many_gpus(partition.gpus_per_node, request)


def _too_many_gpus(per_node: dict[str, int], request: Request) -> str:
    kind = f" {request.gpu_type}" if request.gpu_type else ""
    asked = f"{request.gpus} GPU{'s' * (request.gpus > 1)}{kind} per node"
    if not per_node:
        return f"{asked}, where no node has one"
    has = ", ".join(f"{num}{kind and f' {kind}'}" for kind, num in per_node.items())
    return f"{asked}, where a node has {has}"


def _fits(node: Node, partition: Partition, request: Request) -> bool:
    cpus = node.cpus if partition.max_cpus is None else min(node.cpus, partition.max_cpus)
    has_memory = request.mem_mb is None or request.mem_mb <= node.mem_mb
    has_gpus = request.gpus <= _gpus(node.gpus, request.gpu_type)
    return request.cpus <= cpus and has_memory and has_gpus


def _gpus(gpus: dict[str, int], kind: str | None) -> int:
    """Return how many GPUs of one type there are, of any type where none is named."""
    return sum(gpus.values()) if kind is None else gpus.get(kind, 0)


def _not_allowed(partition: Partition, request: Request) -> Iterator[str]:
    """Yield whose account or QOS is kept out; without one the site's default is not known here."""
    account, qos = request.account, request.qos
    if account and partition.accounts is not None and account not in partition.accounts:
        allowed = ", ".join(partition.accounts)
        yield f"account '{account}' may not use it; these may: {allowed}"
    if account in partition.denied_accounts:
        yield f"account '{account}' may not use it"
    if qos and partition.qos is not None and qos not in partition.qos:
        yield f"QOS '{qos}' may not be used with it; these may: {', '.join(partition.qos)}"

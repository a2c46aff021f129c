"""The partitions of a cluster: which there are, what one may ask of them, and what their nodes are.

Limits come from ``scontrol show partition -o``, nodes from ``sinfo -N --Format``: both have kept
their form since Slurm 20.02, while what ``--json`` gives differs from version to version.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ml_core.cluster.slurm import fields
from ml_core.cluster.slurm.commands import run

NODE_FIELDS = ("Partition", "NodeList", "StateComplete", "CPUs", "Memory", "Gres")
# sinfo(1), NODE STATE CODES: with any of these a node takes no new job until somebody acts. One
# that is powered down is started for a job; one that is allocated, mixed or planned is waited for.
_NOT_USABLE = {
    "down", "drain", "drained", "draining", "fail", "failing", "future", "inval", "maint",
    "not_responding", "perfctrs", "unknown",
}  # fmt: skip


@dataclass(frozen=True)
class Node:
    """A machine; `gpus` is {type: n}, with "" for a type that the site did not name."""

    name: str
    is_usable: bool
    cpus: int
    mem_mb: int
    gpus: dict[str, int]


@dataclass(frozen=True)
class Partition:
    """A row of machines with the limits of a job there; None is no limit.

    `max_cpus` and `max_mem_mb` are of one node. `accounts` and `qos` are those that may use it,
    `denied_accounts` those that may not where all others may.
    """

    name: str
    is_default: bool
    state: str  # UP, DOWN (jobs wait), DRAIN and INACTIVE (jobs are refused)
    max_time_s: int | None
    default_time_s: int | None
    max_nodes: int | None
    max_cpus: int | None
    max_mem_mb: int | None
    accounts: tuple[str, ...] | None
    denied_accounts: tuple[str, ...]
    qos: tuple[str, ...] | None
    nodes: tuple[Node, ...] = ()

    @property
    def nodes_total(self) -> int:
        return len(self.nodes)

    @property
    def nodes_usable(self) -> int:
        """How many machines are up, be they busy or idle."""
        return sum(node.is_usable for node in self.nodes)

    @property
    def cpus_per_node(self) -> int:
        """The CPUs that a job can have on the largest machine."""
        largest = max((node.cpus for node in self.nodes), default=0)
        return largest if self.max_cpus is None else min(largest, self.max_cpus)

    @property
    def mem_per_node_mb(self) -> int:
        """The memory that a job can have on the largest machine."""
        largest = max((node.mem_mb for node in self.nodes), default=0)
        return largest if self.max_mem_mb is None else min(largest, self.max_mem_mb)

    @property
    def gpus_per_node(self) -> dict[str, int]:
        """The GPUs of the machine that has most of each type."""
        kinds = sorted({kind for node in self.nodes for kind in node.gpus})
        return {kind: max(node.gpus.get(kind, 0) for node in self.nodes) for kind in kinds}

    def __str__(self) -> str:
        """As one line of a list: ``gpu: up to 5-00:00:00, 2 of 3 nodes up; a node has ...``."""
        limit = "no time limit" if self.max_time_s is None else fields.duration(self.max_time_s)
        gpus = "".join(
            f", {num} GPU{'s' * (num > 1)}{kind and f' {kind}'}"
            for kind, num in self.gpus_per_node.items()
        )
        state = "" if self.state == "UP" else f" [{self.state}]"
        return (
            f"{self.name}{state}: {limit}, {self.nodes_usable} of {self.nodes_total} nodes up, "
            f"per node {self.cpus_per_node} CPUs, {self.mem_per_node_mb / 1024:.3g} GB{gpus}"
        )


def list_partitions() -> tuple[Partition, ...]:
    """Return the partitions that Slurm shows to this user, in its order; raises ClusterError."""
    limits = run("scontrol", "show", "partition", "--oneliner")
    nodes = run("sinfo", "--Node", "--noheader", "--Format", fields.format_of(NODE_FIELDS))
    return parse_partitions(limits, parse_nodes(nodes))


def parse_partitions(
    limits: str, nodes: dict[str, tuple[Node, ...]] | None = None
) -> tuple[Partition, ...]:
    """Return the partitions in the text of ``scontrol show partition -o``, with their nodes."""
    rows = (fields.pairs(line) for line in limits.splitlines())
    return tuple(
        _partition(row, (nodes or {}).get(row["PartitionName"], ()))
        for row in rows
        if "PartitionName" in row
    )


def parse_nodes(text: str) -> dict[str, tuple[Node, ...]]:
    """Return the nodes by partition, from sinfo's `NODE_FIELDS`."""
    found: dict[str, list[Node]] = {}
    for row in fields.records(text, NODE_FIELDS):
        states = set(row["StateComplete"].lower().rstrip("*~#!%$@^-").split("+"))
        node = Node(
            name=row["NodeList"],
            is_usable=not states & _NOT_USABLE and not row["StateComplete"].endswith("*"),
            cpus=int(row["CPUs"]),
            mem_mb=int(fields.megabytes(row["Memory"]) or 0),
            gpus=fields.gpus_of_gres(row["Gres"]),
        )
        name = row["Partition"].removesuffix("*")  # the mark of the default
        found.setdefault(name, []).append(node)
    return {name: tuple(nodes) for name, nodes in found.items()}


def _partition(row: dict[str, str], nodes: Iterable[Node]) -> Partition:
    return Partition(
        name=row["PartitionName"],
        is_default=row.get("Default") == "YES",
        state=row.get("State", "UNKNOWN"),
        max_time_s=fields.seconds(row.get("MaxTime", "")),
        default_time_s=fields.seconds(row.get("DefaultTime", "")),
        max_nodes=_number(row.get("MaxNodes")),
        max_cpus=_number(row.get("MaxCPUsPerNode")),
        max_mem_mb=_number(row.get("MaxMemPerNode")),
        accounts=_names(row.get("AllowAccounts")),
        denied_accounts=_names(row.get("DenyAccounts")) or (),
        qos=_names(row.get("AllowQos")),
        nodes=tuple(nodes),
    )


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None  # else UNLIMITED


def _names(text: str | None) -> tuple[str, ...] | None:
    if text is None or text.upper() == "ALL" or fields.text_or_none(text) is None:
        return None
    return tuple(text.split(","))


def default_partition(partitions: Sequence[Partition]) -> Partition | None:
    """Return the partition of a job that names none, or None where the site has set none."""
    return next((partition for partition in partitions if partition.is_default), None)

"""Benchmarks of the same training on several machines, as one table: the slowest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ml_core.page.text import UNDEFINED, count
from ml_core.pipeline.benchmarking.figures import Benchmark
from ml_core.selection.tables import render_table

_HEADER = (
    "machine", "device", "cores", "batch", "training", "in memory", "reading", "one patch",
    "bound by",
)  # fmt: skip


def slowest_first(benchmarks: Sequence[Benchmark]) -> list[Benchmark]:
    """Return `benchmarks` by the patches per second that they train."""
    return sorted(benchmarks, key=lambda each: each.end_to_end.training.median)


def render_partitions(benchmarks: Sequence[Benchmark]) -> str:
    """Return a row for each of `benchmarks`, rates in patches/s, in their order."""
    rows = [tuple(_cells(describe(each))) for each in benchmarks]
    return render_table(_HEADER, rows, left=(0, 1, 8))


def describe(benchmark: Benchmark) -> dict[str, Any]:
    """Return what the table and `--json` show of one benchmark."""
    machine, end_to_end = benchmark.machine, benchmark.end_to_end
    job = machine.get("slurm") or {}
    gpu = machine.get("gpu")
    own = next((each for each in benchmark.computing if each.work == "forward"), None)
    latency = own.latency.p50 if own is not None and own.latency is not None else None
    return {
        "machine": job.get("job_partition") or machine["hostname"],
        "device": gpu["name"] if gpu and benchmark.settings["device"] != "cpu" else "CPU",
        "cores": machine["cores_available"],
        "batch_size": benchmark.settings["batch_size"],
        "training": end_to_end.training.median,
        "in_memory": end_to_end.in_memory.median,
        "reading": benchmark.reading.warm.median,
        "latency_p50_s": latency,
        "bound": benchmark.verdict.bound,
    }


def _cells(row: dict[str, Any]) -> list[str]:
    latency = row["latency_p50_s"]
    return [
        row["machine"],
        row["device"],
        str(row["cores"]),
        str(row["batch_size"]),
        *(count(row[name]) for name in ("training", "in_memory", "reading")),
        UNDEFINED if latency is None else f"{1000 * latency:.2f} ms",
        row["bound"],
    ]

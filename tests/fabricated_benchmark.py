"""Figures of a benchmark that nobody measured: a training that its step bounds, on two cores."""

import dataclasses

from ml_core.pipeline.benchmarking.figures import (
    AtBatch,
    Benchmark,
    Computing,
    EndToEnd,
    Latency,
    Limit,
    Peak,
    Rate,
    Reading,
    Transfer,
    Variant,
    Verdict,
)
from ml_core.pipeline.benchmarking.judging.time_parts import Measured

OWN = Variant("cpu", "bf16", "channels_last", False, 2)
MACHINE = {
    "hostname": "node1",
    "processor": "A processor",
    "cores_available": 2,
    "cores_of_node": 2,
    "whole_node": True,
    "memory_gib": 16.0,
    "load": 0.1,
    "slurm": None,
    "gpu": None,
}


def rate(median, spread=0.01):
    return Rate(median, median * (1 - spread), median * (1 + spread), 9)


def rates(**medians):
    """Return rates by batch size: rates(b64=800)."""
    return tuple(AtBatch(int(size[1:]), rate(each), None) for size, each in medians.items())


def step(variant=OWN, failed="", limit=None, **medians):
    return Computing("train step", variant, at=rates(**medians), failed=failed, limit=limit)


def forward(variant=OWN, latency=True, **medians):
    seconds = Latency(0.0021, 0.0024, 0.0031, 400) if latency else None
    return Computing("forward", variant, latency=seconds, at=rates(**medians))


def reading(warm=200_000, cold=None, stored=0.6, decoded=0.0, rest=0.4, busy=1.0, **by_workers):
    """Return reading; the parts are shares of a batch of 64 at the warm rate, w1=... readers."""
    batch_s = 64 / warm
    parts = {"stored": stored * batch_s, "decoded": decoded * batch_s, "rest": rest * batch_s}
    return Reading(
        warm=rate(warm),
        cold=None if cold is None else rate(cold),
        cold_failed="" if cold else "the system keeps it in memory",
        by_workers={0: rate(warm)} | {int(num[1:]): rate(each) for num, each in by_workers.items()},
        parts=parts,
        busy=busy,
    )


def end_to_end(training=980, in_memory=1000, waited=0.005, **by_workers):
    return EndToEnd(
        rate(training),
        rate(in_memory),
        waited,
        {int(num[1:]): rate(each) for num, each in by_workers.items()},
    )


def measured(settings=None, data=None, model=None, **figures):
    """Return a training whose step takes the time, with what is given in place of its figures."""
    given = {
        "settings": {
            "batch_size": 64, "num_workers": 0, "cores": 2, "device": "cpu", "precision": "bf16",
            "channels_last": True, "num_threads": 2, "placement": "file", "numerics": "fast",
        } | (settings or {}),
        "data": {
            "data_path": "data/pcam", "layout": "contiguous", "dtype": "uint8",
            "num_patches": 20_000, "num_bytes": 552_960_000,
            "free_bytes": {"ram": 600_000_000, "gpu": None},
        } | (data or {}),
        "model": {
            "name": "cnn", "num_parameters": 300_000, "flops_per_patch": 60_000_000,
            "bytes_per_patch": 1_000_000,
        } | (model or {}),
        "reading": reading(),
        "transfer": None,
        "computing": (forward(b1=400, b64=3000), step(b64=1000, b128=1010)),
        "end_to_end": end_to_end(),
        "peak": Peak(flops=400e9, bytes=20e9),
    }  # fmt: skip
    return Measured(**(given | figures))


def benchmark(machine=None, verdict=None, **figures):
    """Return a whole benchmark around `measured`."""
    from ml_core.pipeline.benchmarking.judging.bottleneck import judge

    taken = measured(**figures)
    return Benchmark(
        command="ml-core benchmark config.yaml",
        measured_at="2026-01-02T03:04:05+00:00",
        machine=MACHINE | (machine or {}),
        versions={"torch": "2.13.0"},
        verdict=verdict or judge(taken),
        **{each.name: getattr(taken, each.name) for each in dataclasses.fields(taken)},
    )


def many_ways():
    """Return forward and step in several ways, over many batch sizes."""
    sizes = {f"b{2**i}": 2**i for i in range(10)}

    def over(most, half):
        return {name: most * size / (size + half) for name, size in sizes.items()}

    others = {
        "precision": dataclasses.replace(OWN, precision="fp32"),
        "layout": dataclasses.replace(OWN, layout="contiguous"),
        "compiled": dataclasses.replace(OWN, compiled=True),
        "threads": dataclasses.replace(OWN, threads=1),
    }
    tf32 = dataclasses.replace(OWN, precision="tf32")
    few = {name: size for name, size in sizes.items() if size in (1, 64)}
    return (
        forward(**over(3000, 6)),
        *(forward(each, latency=i < 2, **{k: over(2500 - 400 * i, 6)[k] for k in few})
          for i, each in enumerate(others.values())),
        step(limit=Limit(512, "would take 9.1 GB of the 5.2 GB that are free"),
             **{k: v for k, v in over(1000, 4).items() if k != "b512"}),
        *(step(each, b64=800 - 100 * i) for i, each in enumerate(others.values())),
        step(tf32, failed="a CPU has no TF32"),
    )  # fmt: skip


__all__ = [
    "MACHINE", "OWN", "Limit", "Transfer", "Verdict", "benchmark", "end_to_end", "forward",
    "many_ways", "measured", "rate", "reading", "step",
]  # fmt: skip

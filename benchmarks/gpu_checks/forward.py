"""Patches per second and latency of the default CNN's forward pass: precision, layout, graphs."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from gpu_checks.answer import Answer
from gpu_checks.asked import Asked
from gpu_checks.in_turns import in_turns, medians, ratio, repeated
from gpu_checks.precisions import PRECISIONS, computing_in, default_cnn, graph_of, patches

SIZES = (1, 16, 64, 256, 1024, 4096)
OURS = "bf16"  # what a training on a GPU has
NUM_CALLS = 300


def check(asked: Asked, answer: Answer) -> None:
    best: dict[str, tuple[float, int]] = {}
    with torch.inference_mode():
        for size in (1, 8) if asked.is_tiny else SIZES:
            if asked.left_s < 5:
                break
            calls = ways(asked, patches(asked, size))
            sides = {name: repeated(call, size, asked.device) for name, call in calls.items()}
            rates = in_turns(sides, asked.device, 0.05 if asked.is_tiny else 2.5)
            found = medians(rates)
            over = {name: ratio(rates[name], rates[OURS]) for name in rates}
            answer.note(**{f"batch {size}": {"patches_per_s": found, f"of {OURS}": over}})
            best = {
                name: max(best.get(name, (0.0, 0)), (rate, size)) for name, rate in found.items()
            }
        latencies = {name: latency(asked, name) for name in PRECISIONS}
    answer.note(latency_ms=latencies, logits=differences(asked))
    bests = ", ".join(f"{name} {rate:,.0f}/s at {size}" for name, (rate, size) in best.items())
    p50, p99 = latencies[OURS]["p50"], latencies[OURS]["p99"]
    answer.settle("measured", f"{bests}; one patch in {OURS} takes {p50:.2f} ms (p99 {p99:.2f})")


def ways(asked: Asked, images: Tensor) -> dict[str, Callable[[], object]]:
    """Return forward passes of `images` by name, warmed up; a graph where there can be one."""
    ours, plain = default_cnn(asked).eval(), default_cnn(asked, channels_last=False).eval()

    def forward(model: torch.nn.Module, given: Tensor, precision: str) -> Tensor:
        with computing_in(precision, asked.device):
            logits: Tensor = model(given)
        return logits

    calls: dict[str, Callable[[], object]] = {
        name: partial(forward, ours, images, name) for name in PRECISIONS
    }
    for name in ("fp32", "bf16"):
        calls[f"{name}, contiguous"] = partial(forward, plain, images.contiguous(), name)
    if asked.device.type == "cuda":
        calls["bf16, graph"] = graph_of(partial(forward, ours, images, "bf16"))
    return calls


def latency(asked: Asked, precision: str) -> dict[str, float]:
    """Return milliseconds from one patch on the host to its logits there: p50, p95, p99."""
    model, image = default_cnn(asked).eval(), patches(asked, 1).cpu()
    taken = []
    for number in range(30 if asked.is_tiny else NUM_CALLS + 20):
        started = time.perf_counter()
        with computing_in(precision, asked.device):
            model(image.to(asked.device)).float().cpu()
        if number >= 20:  # the first ones choose kernels
            taken.append(1e3 * (time.perf_counter() - started))
    taken.sort()
    return {f"p{p}": round(taken[len(taken) * p // 100], 4) for p in (50, 95, 99)}


def differences(asked: Asked) -> dict[str, float]:
    """Return how far the logits of each precision are from those of fp32, at most."""
    model, images = default_cnn(asked).eval(), patches(asked, 8 if asked.is_tiny else 256)
    logits = {}
    for name in PRECISIONS:
        with torch.inference_mode(), computing_in(name, asked.device):
            logits[name] = model(images).float()
    return {
        name: round(float((each - logits["fp32"]).abs().max()), 6) for name, each in logits.items()
    }

"""How fast batches get to the GPU from pinned and from ordinary memory, and while it computes."""

from __future__ import annotations

import torch

from gpu_checks.answer import Answer
from gpu_checks.asked import Asked
from gpu_checks.in_turns import in_turns, medians, ratio, repeated

PATCH_BYTES = 96 * 96 * 3
SIZES = (64, 256, 1024)


def check(asked: Asked, answer: Answer) -> None:
    if asked.device.type != "cuda":
        answer.settle("left out", "a CPU has its batches already")
        return
    ratios = {}
    for size in SIZES:
        ordinary = torch.randint(0, 256, (size, 96, 96, 3), dtype=torch.uint8)
        pinned, there = ordinary.pin_memory(), ordinary.to(asked.device)
        calls = {
            "ordinary": lambda ordinary=ordinary: ordinary.to(asked.device),
            "pinned": lambda pinned=pinned: pinned.to(asked.device, non_blocking=True),
            "on the GPU": lambda there=there: there.clone(),
        }
        sides = {name: repeated(call, size, asked.device) for name, call in calls.items()}
        rates = in_turns(sides, asked.device, 2.0)
        found = medians(rates)
        ratios[size] = ratio(rates["pinned"], rates["ordinary"])
        gigabytes = {name: round(rate * PATCH_BYTES / 1e9, 2) for name, rate in found.items()}
        answer.note(**{f"batch {size}": {"patches_per_s": found, "gb_per_s": gigabytes}})
    faster = ", ".join(f"x {factor:.1f} at {size}" for size, factor in ratios.items())
    answer.judge(
        min(ratios.values()) >= 1.0,
        f"{gigabytes['pinned']} GB/s from pinned memory at {SIZES[-1]}, "
        f"{gigabytes['ordinary']} from ordinary: {faster}",
    )

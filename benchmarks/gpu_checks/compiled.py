"""What torch.compile brings to the default CNN, forward and in a bare training step, in bf16."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from gpu_checks.answer import Answer
from gpu_checks.asked import Asked
from gpu_checks.in_turns import in_turns, medians, ratio, repeated, wait_for
from gpu_checks.precisions import computing_in, default_cnn, patches
from gpu_checks.step import bare_step, precision

# by worth; each is compiled anew for the size, which takes 10 to 30 s
CASES = (("forward", 64, "default"), ("train step", 64, "default"), ("forward", 1024, "default"),
         ("forward", 64, "reduce-overhead"))  # fmt: skip
COMPILING_S = 25.0


def check(asked: Asked, answer: Answer) -> None:
    if asked.is_tiny:
        answer.settle("left out", "compiling takes too long to be tried on a CPU")
        return
    lines = []
    for work, size, mode in CASES:
        if asked.left_s < COMPILING_S:
            break
        eager, made = (call_of(work, size, each, asked) for each in (None, mode))
        started = time.perf_counter()
        made()
        wait_for(asked.device)
        seconds = round(time.perf_counter() - started, 1)
        sides = {
            "eager": repeated(eager, size, asked.device),
            mode: repeated(made, size, asked.device),
        }
        rates = in_turns(sides, asked.device, 2.0)
        factor, name = ratio(rates[mode], rates["eager"]), f"{work} at {size}, {mode}"
        answer.note(
            **{name: {"patches_per_s": medians(rates), "factor": factor, "compiling_s": seconds}}
        )
        lines.append(f"{name}: x {factor:.2f}, compiled in {seconds:.0f} s")
        answer.settle("measured", "; ".join(lines))


def call_of(work: str, size: int, mode: str | None, asked: Asked) -> Callable[[], object]:
    """Return a forward pass or a step of the CNN as it is, or compiled in `mode`."""
    model, images = default_cnn(asked), patches(asked, size)
    model.train(work == "train step")
    made: nn.Module = model
    if mode is not None:
        made = torch.compile(model, mode=mode, dynamic=False)  # type: ignore[assignment]
    if work == "train step":
        labels = torch.arange(size, device=asked.device) % 2
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
        return partial(bare_step, made, optimizer, images, labels, asked)

    def forward() -> Tensor:
        with torch.no_grad(), computing_in(precision(asked), asked.device):
            logits: Tensor = made(images)
        return logits

    return forward

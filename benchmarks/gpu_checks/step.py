"""What a training step takes: ours, and bare ones of the same model, fused and as one graph.

"bare" is forward, backward and update, nothing else. All are in the precision of a training there,
on a batch that lies on the device.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from gpu_checks.answer import Answer
from gpu_checks.asked import Asked
from gpu_checks.in_turns import in_turns, medians, ratio, repeated
from gpu_checks.precisions import computing_in, default_cnn, graph_of, patches
from ml_core.data.augment import Augmenter
from ml_core.data.loader import Batch
from ml_core.distributed import ALONE
from ml_core.solver.optim import build_optimizer
from ml_core.solver.settings import TrainerSettings
from ml_core.solver.step import OptimizerStep, Position

OURS, NO_AUGMENT = "ours", "ours, no augmentation"


def check(asked: Asked, answer: Answer) -> None:
    lines = []
    for size in (8,) if asked.is_tiny else (64, 512):
        if asked.left_s < 8:
            break
        calls = {OURS: our_step(asked, size, stain_jitter=0.15), NO_AUGMENT: our_step(asked, size)}
        calls |= bare_steps(asked, size)
        sides = {name: repeated(call, size, asked.device) for name, call in calls.items()}
        rates = in_turns(sides, asked.device, 0.1 if asked.is_tiny else 8.0)
        over = {name: ratio(rates[name], rates["bare"]) for name in rates}
        answer.note(**{f"batch {size}": {"patches_per_s": medians(rates), "of bare": over}})
        parts = ", ".join(f"{name} {value:.2f}" for name, value in over.items() if name != "bare")
        lines.append(f"at {size}: bare {medians(rates)['bare']:,.0f} patches/s, of that {parts}")
        answer.settle("measured", "; ".join(lines))


def our_step(asked: Asked, size: int, stain_jitter: float | None = None) -> Callable[[], object]:
    """Return a step as the Trainer takes it, without log; augmented where there is a jitter."""
    model = default_cnn(asked).train()
    augment = None
    if stain_jitter is not None:
        augment = Augmenter(0, size, stain_jitter=stain_jitter)
        augment.set_epoch(1)
    step = OptimizerStep(
        model,
        build_optimizer(model, "adamw", lr=1e-3, weight_decay=0.05),
        TrainerSettings(precision=precision(asked), channels_last=True),
        asked.device,
        augment=augment,
        ranks=ALONE,
    )
    rows = torch.arange(size)
    batch = Batch(patches(asked, size), rows % 2, rows)
    return lambda: step.take([batch], Position(1, 0, 1), size)


def bare_steps(asked: Asked, size: int) -> dict[str, Callable[[], object]]:
    """Return steps of torch alone: with torch's usual optimizer, the fused one, and as a graph."""
    images, labels = patches(asked, size), torch.arange(size, device=asked.device) % 2
    ways = {"bare": {}, "bare, fused": {"fused": True}}
    if asked.device.type == "cuda":
        ways["bare, graph"] = {"fused": True, "capturable": True}
    calls: dict[str, Callable[[], object]] = {}
    for name, options in ways.items():
        model = default_cnn(asked).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05, **options)
        call = partial(bare_step, model, optimizer, images, labels, asked)
        calls[name] = graph_of(call) if name == "bare, graph" else call
    return calls


def bare_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, asked: Asked
) -> Tensor:
    optimizer.zero_grad(set_to_none=True)
    with computing_in(precision(asked), asked.device):
        logits = model(images)
    loss = nn.functional.cross_entropy(logits.float(), labels)
    loss.backward()
    optimizer.step()
    return loss.detach()


def precision(asked: Asked) -> str:
    """Return what a training on the device computes in by itself."""
    return "bf16" if asked.device.type == "cuda" else "fp32"

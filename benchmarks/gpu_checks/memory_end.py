"""Whether a batch size that does not fit is told as the limit, and what comes next still works.

Most of the card is taken first, so that its end is near and met in seconds.
"""

from __future__ import annotations

import torch

from gpu_checks.answer import Answer
from gpu_checks.asked import Asked
from gpu_checks.recipe import load_recipe, write_noise
from ml_core.pipeline.benchmarking.measuring.computing import measure_computing, variants_of

LEFT_BYTES = 4 * 2**30  # for the process that measures: its context takes half of one
OTHERS_BYTES = 3 * 2**30  # who has more than our own context on the card would lose by this
SIZES = (64, 256, 1024, 4096, 16_384, 65_536)
SIZES_TINY = (2, 4, 2**22)


def check(asked: Asked, answer: Answer) -> None:
    if in_use(asked) > OTHERS_BYTES:
        answer.settle("left out", f"others hold {in_use(asked) / 1e9:.0f} GB of this GPU")
        return
    data_dir = write_noise(asked.scratch / "end", 64, 16)
    config = load_recipe(asked, data_dir, "training.precision=auto")
    variant = variants_of(config, asked.device)[0]
    taken = None
    if asked.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(asked.device)
        taken = torch.empty(max(0, free - LEFT_BYTES), dtype=torch.uint8, device=asked.device)
    sizes = SIZES_TINY if asked.is_tiny else SIZES
    found = measure_computing(config, "train step", variant, sizes, budget_s=0.1)
    del taken
    if asked.device.type == "cuda":
        torch.cuda.empty_cache()
    again = measure_computing(config, "train step", variant, sizes[:1], budget_s=0.1)
    measured = [at.batch_size for at in found.at]
    limit = None if found.limit is None else (found.limit.batch_size, found.limit.why)
    answer.note(measured=measured, limit=limit, failed=found.failed, again=again.failed)
    holds = bool(measured) and limit is not None and bool(again.at) and again.limit is None
    told = "no limit" if limit is None else f"limit {limit[0]:,}: {limit[1]}"
    answer.judge(holds, f"measured at {measured}, {told}; {found.failed or 'then measured again'}")


def in_use(asked: Asked) -> int:
    """Return the bytes of the GPU that are taken, by this process or another."""
    if asked.device.type != "cuda":
        return 0
    free, total = torch.cuda.mem_get_info(asked.device)
    return total - free

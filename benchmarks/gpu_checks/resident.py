"""Whether training on patches that lie on the GPU is as fast as the same steps on one batch there.

All sides take turns, an epoch each, by a Trainer with logs and augmentation: one on a batch that
stays where it is, the others on the shuffled batches of a placement.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gpu_checks.answer import Answer
from gpu_checks.asked import Asked
from gpu_checks.in_turns import in_turns, medians, ratio
from gpu_checks.recipe import load_recipe, write_noise
from ml_core.pipeline.parts.splits import open_split
from ml_core.pipeline.parts.training_parts import build_trainer
from ml_core.runs import RunDir
from ml_core.tracking import ExperimentTracker

BAR = 0.95
NUM_STEPS = 100  # of the smaller batches: an epoch of a fraction of a second
NEEDED_S = 15.0  # for a batch size
STAYS = "one batch"
Sides = dict[str, Callable[[], int]]


def check(asked: Asked, answer: Answer) -> None:
    num = 192 if asked.is_tiny else 64 * NUM_STEPS
    data_dir = asked.data_dir or write_noise(asked.scratch / "noise", num, 16)
    nearest, *others = ("ram", "file") if asked.is_tiny else ("gpu", "ram", "file")
    lines, holds = list[str](), True
    for size in (16,) if asked.is_tiny else (64, 512):  # the recipe's, and one that fills the GPU
        if asked.left_s < NEEDED_S:
            break
        sides = sides_of(asked, data_dir, nearest, size) | {
            name: sides_of(asked, data_dir, name, size)[name] for name in others
        }
        rates = in_turns(sides, asked.device, 0.1 if asked.is_tiny else 9.0)
        found = medians(rates)
        ratios = {name: ratio(rates[name], rates[STAYS]) for name in (nearest, *others)}
        answer.note(**{f"batch {size}": {"patches_per_s": found, f"of {STAYS}": ratios}})
        holds = holds and ratios[nearest] >= BAR
        behind = ", ".join(f"{name} {ratios[name]:.2f}" for name in others)
        lines.append(
            f"batches of {size}: {nearest} {ratios[nearest]:.3f} of {STAYS} ({behind}), "
            f"{found[nearest]:,.0f} patches/s"
        )
        told = "measured" if asked.is_tiny else "passed" if holds else "failed"
        answer.settle(told, f"{'; '.join(lines)}; the bar is {BAR}")


def sides_of(asked: Asked, data_dir: Path, placement: str, size: int) -> Sides:
    """Return an epoch of the recipe in that placement; and the same steps on its first batch."""
    config = load_recipe(
        asked, data_dir, f"data.placement={placement}", f"data.batch_size={size}",
        f"data.max_patches={64 * NUM_STEPS}", "training.precision=auto",
    )  # fmt: skip
    dataset = open_split(config, "train", {})
    run = RunDir.create(asked.scratch, f"resident-{placement}-{size}")
    tracker = ExperimentTracker("resident", {}, run=run)
    trainer, batches = build_trainer(config, dataset, asked.device, tracker=tracker)
    batches.batch_sampler.set_epoch(1)
    batch = next(iter(batches))
    num_steps = len(dataset) // size

    def epoch() -> int:
        trainer.train_epoch(batches)
        return len(dataset)

    def same_batch() -> int:
        trainer.train_epoch([batch] * num_steps)
        return num_steps * size

    return {placement: epoch, STAYS: same_batch}

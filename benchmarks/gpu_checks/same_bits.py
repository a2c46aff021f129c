"""Whether trainings that must end in the same weights do: repeated, and from any placement.

Each is of the whole recipe but shorter: shuffled batches, augmentation, dropout, clipping. The
repetition runs in a process of its own.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from pathlib import Path

import torch

from gpu_checks.answer import Answer
from gpu_checks.asked import Asked
from gpu_checks.recipe import load_recipe, write_noise

LEVELS = {"elastic fp32": ("elastic", "fp32"), "elastic bf16": ("elastic", "bf16"),
          "fast bf16": ("fast", "bf16")}  # fmt: skip
NUM_PATCHES = 1000  # 16 batches, the last one smaller


def check(asked: Asked, answer: Answer) -> None:
    data_dir = write_noise(asked.scratch / "few", 40 if asked.is_tiny else NUM_PATCHES, 16)
    places = ("file", "ram") if asked.is_tiny else ("file", "ram", "gpu")
    levels = ["elastic fp32"] if asked.is_tiny else list(LEVELS)
    again = multiprocessing.get_context("spawn").Process(
        target=train_again, args=(asked, data_dir, levels)
    )
    again.start()
    ends = {
        level: {place: end_of(asked, data_dir, level, place) for place in places}
        for level in levels
    }
    again.join()
    told = asked.scratch / "again.json"
    repeated = json.loads(told.read_text()) if told.is_file() else {}
    different = []
    for level, found in ends.items():
        found["file, again"] = repeated.get(level, "it never ended")
        different += [f"{level}: {place}" for place in found if found[place] != found["file"]]
    answer.note(weights=ends)
    num = sum(len(found) for found in ends.values())
    answer.judge(
        not different,
        f"not the weights of file: {', '.join(different)}" if different
        else f"{num} trainings ({', '.join(levels)}; {', '.join(places)}; a second process) agree",
    )  # fmt: skip


def train_again(asked: Asked, data_dir: Path, levels: list[str]) -> None:
    """Write the ends of the trainings from file, of this process."""
    asked = Asked(
        str(asked.device),
        data_dir=None,
        scratch=asked.scratch,
        is_tiny=asked.is_tiny,
        ends_at=asked.ends_at,
    )
    ends = {level: end_of(asked, data_dir, level, "file") for level in levels}
    (asked.scratch / "again.json").write_text(json.dumps(ends))
    sys.stdout.flush()


def end_of(asked: Asked, data_dir: Path, level: str, place: str) -> str:
    """Return the name of weights and optimizer state after two epochs."""
    from ml_core.numerics.state_hash import state_hash, training_state
    from ml_core.pipeline.parts.numerics import prepare
    from ml_core.pipeline.parts.splits import open_split
    from ml_core.pipeline.parts.training_parts import build_trainer

    numerics, precision = LEVELS[level]
    config = load_recipe(
        asked, data_dir, f"training.numerics={numerics}", f"training.precision={precision}",
        f"data.placement={place}", f"training.num_threads={torch.get_num_threads()}",
        "training.clip_grad_norm=1.0",
    )  # fmt: skip
    flags = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    prepare(config, torch.get_num_threads())
    trainer, batches = build_trainer(config, open_split(config, "train", {}), asked.device)
    for epoch in (1, 2):
        trainer.train_epoch(batches, epoch)
    torch.set_float32_matmul_precision(flags[0])  # elastic turned TF32 off, for the whole process
    torch.backends.cudnn.allow_tf32 = flags[1]
    return state_hash(training_state(trainer.model, trainer.optimizer))

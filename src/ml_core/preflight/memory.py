"""The memory that a training needs, by arithmetic, against what its job asks for.

Meant to be too high rather than too low; how far it is from what was measured is in
`tests/test_doctor_memory.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ml_core.preflight.check import Check, error, ok, warning
from ml_core.preflight.model_size import ModelSize

MIB = 2**20
FLOAT = 4  # bytes of a float32
# Resident memory of `ml-core train` with patches and a model of next to nothing: Python, torch and
# the libraries. Measured 2026-11-23, torch 2.13 for CPUs, Linux x86-64: 547 MiB.
BASE_MB = 550
CUDA_MB = 3000  # more of it with torch's CUDA libraries and a context; not measured here
# A reader process shares most of that with the training: measured 31 to 36 MiB of its own.
READER_MB = 40
PREFETCHED = 3  # batches of each reader: torch's prefetch_factor of 2, and the one being read
# Copies of the parameters at the end of an epoch: weights, gradients and what the optimizer keeps;
# then what checkpoint and best weights hold of them while they are written. Measured, in copies:
# 9.3 (mlp, 1024 units), 10.9 (2048 and 2048) with AdamW, 6.0 with SGD.
CHECKPOINT_COPIES = 4
SUMMED = 2  # int64 sums of gradients in elastic and portable, 8 bytes each
INFERENCE_BATCH_SIZE = 256  # of `ml_core.pipeline.parts.splits`, which loads torch
# In training augmentation holds two more copies of a patch, the way back two of the largest layer.
# In inference the patches of a batch are held as read, scaled, shifted and divided, and turned
# around; of the largest layer a few results live at once. Fitted to what was measured.
INPUT_COPIES, LAYER_COPIES = 4, 5
# Asked over estimated. What is estimated was up to 1.2 times what was measured, never below it.
TOO_LITTLE, SPARE = 0.85, 1.25


@dataclass(frozen=True)
class MemoryNeed:
    """MiB of main memory for one task, by what they are for."""

    base: float
    weights: float
    patches: float
    readers: float
    held: float = 0.0  # patches that stay in memory

    @property
    def total_mb(self) -> float:
        return self.base + self.weights + self.patches + self.readers + self.held

    def __str__(self) -> str:
        """The terms as a sum: ``2.1 GB = libraries 0.5 + weights and optimizer 0.1 + ...``."""
        terms = {
            "libraries": self.base, "weights, optimizer and checkpoint": self.weights,
            "a batch on its way": self.patches, "reader processes": self.readers,
            "patches kept in memory": self.held,
        }  # fmt: skip
        told = " + ".join(f"{name} {mb / 1024:.2f}" for name, mb in terms.items() if mb)
        return f"{self.total_mb / 1024:.2f} GB = {told}"


def estimate_memory(
    model: ModelSize,
    *,
    moments: int,
    batch_size: int,
    micro_batch: int | None,
    num_workers: int,
    numerics: str,
    on_gpu: bool,
    num_held: int = 0,
) -> MemoryNeed:
    """Return what one task of a training needs at its peak, validation and checkpoints included.

    `moments`: numbers that the optimizer keeps per parameter, 2 for Adam. `micro_batch`: patches
    per backward pass where that is not the batch. On a GPU model and batches lie in its memory, and
    main memory holds the checkpoint. `num_held`: patches that are kept in main memory.
    """
    summed = 0 if numerics == "fast" else SUMMED
    copies = 1 + moments + CHECKPOINT_COPIES + (0 if on_gpu else 2 + moments + summed)
    trained = min(batch_size, micro_batch or batch_size) * (
        model.kept + 2 * model.num_inputs + 2 * model.largest
    )
    inferred = INFERENCE_BATCH_SIZE * (
        INPUT_COPIES * model.num_inputs + LAYER_COPIES * model.largest
    )
    computed = 0 if on_gpu else max(trained, inferred) * FLOAT
    read = max(batch_size, INFERENCE_BATCH_SIZE) * model.num_inputs  # a byte each
    # train and valid have readers of their own, which stay
    readers = 2 * num_workers * READER_MB + num_workers * PREFETCHED * read / MIB
    return MemoryNeed(
        base=BASE_MB + (CUDA_MB if on_gpu else 0),
        weights=copies * model.num_parameters * FLOAT / MIB,
        patches=(computed + 2 * read) / MIB,
        readers=readers,
        held=num_held * model.num_inputs / MIB,  # a byte each
    )


def checkpoint_bytes(model: ModelSize, moments: int) -> int:
    """Return the size of one checkpoint: weights and what the optimizer keeps, as float32."""
    return (1 + moments) * model.num_parameters * FLOAT


def check_memory(need: MemoryNeed, asked_mb: float | None, num_tasks: int = 1) -> Check:
    """Return whether `asked_mb` of a node, for `num_tasks` of them, is enough for `need` each."""
    total_mb = need.total_mb * num_tasks
    tasks = f" for each of {num_tasks} tasks" if num_tasks > 1 else ""
    told = f"a training needs about {need}{tasks}"
    enough_gb = -(-need.total_mb * SPARE // 1024)
    remedy = f"Ask for more: --ask mem_gb={enough_gb:.0f}; or lower data.batch_size."
    if asked_mb is None:
        return warning(
            "memory",
            f"{told}, and the profile asks for none: the cluster's default may be less.",
            f"Say how much: --ask mem_gb={enough_gb:.0f}",
        )
    asked = f"the job asks for {asked_mb / 1024:.3g} GB"
    if asked_mb < total_mb * TOO_LITTLE:
        return error("memory", f"{asked}, and {told}.", remedy)
    if asked_mb < total_mb * SPARE:
        return warning("memory", f"{asked}, and {told}: that is little to spare.", remedy)
    return ok("memory", f"{asked}; {told}.")

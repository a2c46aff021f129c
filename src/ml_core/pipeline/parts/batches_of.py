"""Which patches a step of a training was made of, worked out again.

The order is a function of (seed, epoch) and the labels, so nobody needs to log it: the loader that
training used is built again and asked.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ml_core.config import Config
from ml_core.pipeline.parts.splits import open_split, run_exclusions, train_order
from ml_core.runs import RunDir, RunRecord


def patches_of_steps(
    run: RunDir, config: Config, steps: Sequence[int]
) -> dict[int, npt.NDArray[np.int64]]:
    """Return, per step (from 1), the rows of the train file that its batches held, rising.

    `config` is the run's own, its data_path where the data are now. Raises DataError where they
    cannot be read, RunError where the run's list of exclusions has changed.
    """
    exclude = run_exclusions(run, RunRecord.load(run))
    dataset = open_split(config, "train", exclude)
    sampler = train_order(config, dataset)
    batches_per_step = config.training.accumulate_steps
    steps_per_epoch = -(-sampler.num_batches // batches_per_step)
    found = {}
    for step in steps:
        epoch, step_of_epoch = divmod(step - 1, steps_per_epoch)
        first = step_of_epoch * batches_per_step
        sampler.set_epoch(epoch + 1, start_batch=first)
        batches = zip(range(batches_per_step), sampler, strict=False)
        positions = [position for _, batch in batches for position in batch]
        found[step] = np.sort(dataset.indices[np.array(positions, dtype=np.int64)])
    return found

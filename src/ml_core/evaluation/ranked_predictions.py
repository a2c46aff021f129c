"""Predictions that several ranks made of one split, put together on each of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from ml_core.distributed import Ranks
from ml_core.evaluation.predictions import Predictions

INDEX, LABEL, PROB, LOGIT = range(4)  # columns of what travels, all as int64


def gather_predictions(own: Predictions | None, num_rows: int, ranks: Ranks) -> Predictions:
    """Return the predictions of all ranks in the order of the file, the same bits on each rank.

    `own` are those of this rank, or None where there were fewer batches than ranks: rank 0 has the
    first. Together they are `num_rows`. Floats travel as the integers that their bits are, and each
    place of the sum is filled by one rank alone.
    """
    if ranks.world_size == 1:
        assert own is not None and len(own) == num_rows, "alone one predicts everything"
        return own
    counts = np.zeros((ranks.world_size, 2), dtype=np.int64)  # patches; of these, with a label
    if own is not None:
        counts[ranks.rank] = len(own), 0 if own.y_true is None else len(own)
    _sum_(counts, ranks)
    num_found, num_labelled = counts.sum(axis=0).tolist()
    assert num_found == num_rows and num_labelled in (0, num_rows), "each patch on one rank, once"
    columns = np.zeros((4, num_rows), dtype=np.int64)
    if own is not None:
        first = int(counts[: ranks.rank, 0].sum())
        columns[:, first : first + len(own)] = _columns_of(own)
    _sum_(columns, ranks)
    split = ranks.share_text(own.split if own is not None and ranks.is_first else None)
    columns = columns[:, np.argsort(columns[INDEX], kind="stable")]
    return Predictions(
        split=split,
        index=columns[INDEX],
        y_true=columns[LABEL] if num_labelled else None,
        y_prob=columns[PROB].view(np.float64),
        logit=columns[LOGIT].view(np.float64),
    )


def _columns_of(own: Predictions) -> npt.NDArray[np.int64]:
    labels = np.zeros(len(own), np.int64) if own.y_true is None else own.y_true
    return np.stack([own.index, labels, own.y_prob.view(np.int64), own.logit.view(np.int64)])


def _sum_(numbers: npt.NDArray[np.int64], ranks: Ranks) -> None:
    """Replace `numbers` by their sums over all ranks."""
    ranks.sum_(torch.from_numpy(numbers))  # the same memory

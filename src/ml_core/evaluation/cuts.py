"""What every threshold would call: patches in order of probability, counted down to each cut."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml_core.metrics.arrays import Floats, Ints, checked

Int32s = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Counts:
    """What is called down to each cut, each patch counted as often as its weight: both (R, G + 1).

    Whole numbers of 32 bits, which numpy adds up seven times as fast as floats.
    """

    tp: Int32s
    calls: Int32s

    @property
    def positives(self) -> Floats:
        """The tumours of each row, (R, 1): the last cut calls every patch."""
        return self.tp[:, -1:].astype(np.float64)

    @property
    def negatives(self) -> Floats:
        """The normal patches of each row, (R, 1)."""
        return self.calls[:, -1:] - self.positives

    def cells(self, cut: Ints) -> Floats:
        """Return tn, fp, fn, tp, (4, R), where row r calls the patches down to cut[r].

        One row alone takes any number of cuts.
        """
        rows = np.arange(len(self.tp))
        tp = self.tp[rows, cut].astype(np.float64)
        fp = self.calls[rows, cut] - tp
        return np.stack([self.negatives[:, 0] - fp, fp, self.positives[:, 0] - tp, tp])


class Cuts:
    """The patches of a table in falling order of probability, cut after each distinct one.

    `thresholds` (G,) are the distinct probabilities, falling: no threshold can part patches whose
    probabilities are equal, and any other threshold calls what one of these calls, or nothing. Cut
    0 calls nothing; cut g from 1 to G calls the patches with a probability of at least
    thresholds[g - 1]. The order is complete, so that the rows of a file may come in any.

    Raises ValueError for arrays that are not labels and probabilities.
    """

    def __init__(self, y_true: npt.ArrayLike, y_prob: npt.ArrayLike) -> None:
        labels, probs = checked(y_true, y_prob)
        order = np.lexsort((labels, -probs))
        self.is_tumour: Bools = labels[order] == 1  # (n,)
        ordered = probs[order]
        last = np.flatnonzero(np.append(np.diff(ordered) != 0, True))
        self.thresholds: Floats = ordered[last]
        self._num_called: Ints = np.append(0, last + 1)  # (G + 1,)

    def __len__(self) -> int:
        return len(self.is_tumour)

    @property
    def positives(self) -> int:
        """The number of tumours."""
        return int(self.is_tumour.sum())

    def cut_at(self, threshold: float) -> int:
        """Return the cut that calls what has a probability of at least `threshold`."""
        return int(np.count_nonzero(self.thresholds >= threshold))

    def count(self, weights: npt.NDArray[np.generic] | None = None) -> Counts:
        """Return the counts at every cut, for whole weights (R, n) on the ordered patches.

        Without weights each patch counts once, in one row.
        """
        each = np.ones((1, len(self)), np.int32) if weights is None else weights.astype(np.int32)
        return Counts(self._sum_down(each * self.is_tumour), self._sum_down(each))

    def cells_of(self, members: Bools, cut: Ints) -> Floats:
        """Return tn, fp, fn, tp, (4, R), of the patches `members` (R, n); row r calls to cut[r]."""
        called = np.arange(len(self), dtype=np.int32) < self._num_called[cut, None].astype(np.int32)
        calls = members & called
        tumours = members & self.is_tumour
        num, num_called = members.sum(axis=1), calls.sum(axis=1)
        positives, tp = tumours.sum(axis=1), (calls & tumours).sum(axis=1)
        fp, fn = num_called - tp, positives - tp
        return np.stack([num - positives - fp, fp, fn, tp]).astype(np.float64)

    def _sum_down(self, each: Int32s) -> Int32s:
        sums = np.zeros((len(each), len(self) + 1), np.int32)
        np.cumsum(each, axis=1, out=sums[:, 1:])
        return (
            sums if len(self.thresholds) == len(self) else np.take(sums, self._num_called, axis=1)
        )

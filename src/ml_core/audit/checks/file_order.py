"""How much the order of a file gives away of its labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml_core.audit.statistics.rank_effect import RankEffect, compare_groups
from ml_core.findings import Finding
from ml_core.page.text import percent

_REACH = 2  # rows looked at on either side: 16 contexts, enough for 0101, 0011, 001 and stretches
_STRETCH = 50  # rows; every second stretch is predicted from the others


# The order of the real files: neighbours 0.90, 0.94, 0.94 and row number 0.50, 0.62, 0.61; labels
# in pure stretches of 16 rows give 0.99, sorted ones 1.00 for both.
NEIGHBOURS_WARNING_FROM = 0.98
ROW_WARNING_FROM = 0.70
_WORTH_SAYING_FROM = 0.60  # a shuffled file stays within 0.5 and its interval


@dataclass(frozen=True)
class FileOrder:
    """What the order of the rows says of the labels of one split."""

    neighbours: RankEffect  # of the label that the four nearest rows suggest
    row: RankEffect  # of the row number alone
    num_runs: int  # stretches of one label
    expected_runs: float  # in an order drawn by chance (Wald and Wolfowitz 1940)
    longest_run: int
    first_tenth_share: float  # of tumour among the first tenth of the rows
    tumour_share: float
    num_rows: int

    @property
    def neighbours_give_away(self) -> bool:
        """Whether labels lie in stretches so pure that a batch in file order holds one class.

        Labels that alternate are known from their neighbours too, but every batch holds both.
        """
        in_stretches = self.num_runs <= self.expected_runs / 2
        return in_stretches and self.neighbours.low >= NEIGHBOURS_WARNING_FROM

    @property
    def gives_label_away(self) -> bool:
        """Whether a part of the file stands for one class."""
        return self.neighbours_give_away or self.row.sure_strength >= ROW_WARNING_FROM

    def to_dict(self) -> dict[str, float]:
        return {
            "neighbours_auc": self.neighbours.auc,
            "row_auc": self.row.auc,
            "num_runs": self.num_runs,
            "expected_runs": self.expected_runs,
            "longest_run": self.longest_run,
            "first_tenth_share": self.first_tenth_share,
            "tumour_share": self.tumour_share,
        }


def measure_order(labels: npt.NDArray[np.integer]) -> FileOrder:
    """Return what the order of `labels` (n,), each 0 or 1 and both there, gives away.

    A row's label is guessed from its context, the labels of the two rows before and the two after:
    by the share of tumour among the rows of the other stretches that have the same context. This
    finds labels that are sorted, lie in stretches, or alternate with a period up to 4; it cannot
    see a longer period, or an order by something else that only goes along with the label.
    """
    is_tumour = labels == 1
    num_tumour, num_rows = int(is_tumour.sum()), len(labels)
    changes = np.flatnonzero(np.diff(is_tumour)) + 1
    runs = np.diff(np.concatenate([[0], changes, [num_rows]]))
    scores, known = _scores_of_context(is_tumour)
    return FileOrder(
        neighbours=compare_groups(scores, is_tumour[known]),
        row=compare_groups(np.arange(num_rows, dtype=np.float64), is_tumour),
        num_runs=len(runs),
        expected_runs=1 + 2 * num_tumour * (num_rows - num_tumour) / num_rows,
        longest_run=int(runs.max()),
        first_tenth_share=float(is_tumour[: max(1, num_rows // 10)].mean()),
        tumour_share=num_tumour / num_rows,
        num_rows=num_rows,
    )


def judge_order(split: str, order: FileOrder) -> list[Finding]:
    """Return a warning where the order gives the label away."""
    if not order.gives_label_away:
        return []
    if order.neighbours_give_away:
        cause = f"the labels of the four nearest rows give the label away (AUC {order.neighbours})"
    else:
        cause = f"the row number gives the label away (AUC {order.row})"
    return [
        Finding(
            id="shortcut-file-order",
            severity="warning",
            message=f"{split}: {cause}: {order.num_rows:,} rows in {order.num_runs:,} stretches of "
            f"one label, {percent(order.first_tenth_share)} tumour in the first tenth and "
            f"{percent(order.tumour_share)} in all.",
            action="Shuffled training is not harmed; the first N rows are no fair sample, and "
            "batches in file order hold one class: take random rows.",
            split=split,
            count=order.num_rows,
            share=1.0,
            facts=order.to_dict(),
        )
    ]


def describe_orders(orders: Mapping[str, FileOrder]) -> list[Finding]:
    """Say in one finding which splits are not shuffled, though no part stands for one class."""
    partly = {
        split: order
        for split, order in orders.items()
        if not order.gives_label_away and order.neighbours.low >= _WORTH_SAYING_FROM
    }
    if not partly:
        return []
    figures = ", ".join(
        f"{order.neighbours.auc:.2f} in {split} (longest stretch of a label {order.longest_run:,})"
        for split, order in partly.items()
    )
    return [
        Finding(
            id="file-order",
            severity="info",
            message="Rows are not shuffled: the labels of the four nearest rows predict a label "
            f"with AUC {figures}; real PCam files give 0.90 to 0.94.",
            action="Shuffle in training, and take random rows for a subset.",
            facts={split: order.to_dict() for split, order in partly.items()},
        )
    ]


def _scores_of_context(
    is_tumour: npt.NDArray[np.bool_],
) -> tuple[npt.NDArray[np.float64], slice]:
    """Return a score per row that has a whole context, and which rows those are."""
    num_rows = len(is_tumour)
    known = slice(_REACH, max(_REACH, num_rows - _REACH))
    num_known = known.stop - known.start
    context = np.zeros(num_known, np.int64)
    for offset in (*range(-_REACH, 0), *range(1, _REACH + 1)):
        context = 2 * context + is_tumour[known.start + offset :][:num_known]
    truth = is_tumour[known].astype(np.float64)
    in_odd_stretch = np.arange(num_known) // _STRETCH % 2 == 1
    scores = np.empty(num_known)
    for rows in (in_odd_stretch, ~in_odd_stretch):
        counts = np.bincount(context[~rows], minlength=4**_REACH)
        tumours = np.bincount(context[~rows], truth[~rows], minlength=4**_REACH)
        scores[rows] = ((tumours + 1) / (counts + 2))[context[rows]]
    return scores, known

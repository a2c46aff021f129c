"""What one set of patches scores at one threshold, and the formulas behind it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ml_core.metrics.arrays import Floats, Sums, check_threshold, checked, checked_losses, ratio

SAMPLE_FACTS = ("n", "positives", "prevalence")  # of the patches; the rest depends on the model
HIGHER_IS_BETTER = {
    "roc_auc": True,
    "pr_auc": True,
    "accuracy": True,
    "balanced_accuracy": True,
    "f1": True,
    "f2": True,
    "precision": True,
    "recall": True,
    "specificity": True,
    "brier": False,
    "loss": False,
}


class Confusion(NamedTuple):
    """Patches by truth and decision; positive means tumour."""

    tn: int
    fp: int
    fn: int
    tp: int


def compute_metrics(
    y_true: npt.ArrayLike,
    y_prob: npt.ArrayLike,
    threshold: float = 0.5,
    nll: npt.ArrayLike | None = None,
) -> dict[str, float]:
    """Return every metric of one set of patches by name.

    A patch is called positive where ``y_prob >= threshold``. `nll` is the loss of each patch, when
    it is known more exactly than y_prob can tell (a saturated sigmoid); `loss` is its mean.

    NaN: precision without a positive call; recall, specificity without a patch of their class;
    balanced accuracy, ROC-AUC and PR-AUC with one class only; F1 and F2 with neither a positive
    patch nor a positive call. F1 is 0.0, as counted, when there are tumours and none is found.

    Raises ValueError for empty or unequal arrays, labels outside {0, 1}, and probabilities that
    are NaN or outside 0..1.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    labels, probs = checked(y_true, y_prob)
    losses = checked_losses(labels, probs, nll)
    two_classes = 0 < labels.sum() < len(labels)
    decisions = metrics_from_counts(*map(np.float64, confusion(labels, probs, threshold)))
    return {
        "n": float(len(labels)),
        "positives": float(labels.sum()),
        "prevalence": float(labels.mean()),
        "loss": float(losses.mean()),
        **{name: float(value) for name, value in decisions.items()},
        "brier": float(((probs - labels) ** 2).mean()),
        "roc_auc": float(roc_auc_score(labels, probs)) if two_classes else float("nan"),
        "pr_auc": float(average_precision_score(labels, probs)) if two_classes else float("nan"),
    }


def confusion(y_true: npt.ArrayLike, y_prob: npt.ArrayLike, threshold: float = 0.5) -> Confusion:
    """Return the counts of true and false, negative and positive calls at `threshold`."""
    labels, probs = checked(y_true, y_prob)
    check_threshold(threshold)
    cells = np.bincount(2 * labels + (probs >= threshold), minlength=4)
    return Confusion(*(int(count) for count in cells))


def f_beta(tp: Sums, fp: Sums, fn: Sums, beta: float) -> Floats:
    """Return (1 + beta^2) TP / ((1 + beta^2) TP + FP + beta^2 FN), elementwise over counts.

    A missed tumour weighs beta^2 times a false alarm (van Rijsbergen 1979, chapter 7). NaN where
    there is neither a tumour nor a call, 0.0 where there are tumours and none is found. Raises
    ValueError for a beta that is not a positive number.
    """
    if not 0 < beta < float("inf"):
        raise ValueError(f"beta is {beta}; allowed are positive numbers, such as 1 or 2.")
    weighted = (1 + beta**2) * tp
    return ratio(weighted, weighted + fp + beta**2 * fn)


def metrics_from_counts(tn: Sums, fp: Sums, fn: Sums, tp: Sums) -> dict[str, Floats]:
    """Return the metrics that follow from decisions, elementwise; one formula for all."""
    recall = ratio(tp, tp + fn)
    specificity = ratio(tn, tn + fp)
    return {
        "accuracy": ratio(tn + tp, tn + fp + fn + tp),
        "balanced_accuracy": (recall + specificity) / 2,
        "precision": ratio(tp, tp + fp),
        "recall": recall,
        "specificity": specificity,
        "f1": f_beta(tp, fp, fn, 1),
        "f2": f_beta(tp, fp, fn, 2),
    }
